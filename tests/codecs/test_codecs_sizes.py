"""What packed pages take, by arithmetic, against pages that were really packed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from codec_cases import codec_of, shape_of, states

from mmkv.codecs.sizes import page_bits, page_bytes, page_tokens

BITS = [(4, 4), (2, 2), (1.5, 2), (1.5, 1.58), (1.58, 4)]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("kv_heads", "head_dim"), [(2, 64), (8, 128), (1, 48), (4, 256)])
@pytest.mark.parametrize("lengths", [[64], [180] * 3, [7, 16, 1]])
def test_a_packed_page_has_as_many_bytes_as_foretold(
    bits: tuple[float, float], kv_heads: int, head_dim: int, lengths: list[int]
) -> None:
    codec = codec_of(None, shape_of(head_dim, kv_heads), key_bits=bits[0], value_bits=bits[1])
    kv = states("biased", 2, kv_heads, sum(lengths), head_dim)
    packed = codec.encode(kv[0], kv[1], lengths, 0)
    assert packed.nbytes == page_bytes(bits, kv_heads, head_dim, lengths)
    elements = 2 * kv_heads * sum(lengths) * head_dim
    assert page_bits(bits, kv_heads, head_dim, lengths) == 8 * packed.nbytes / elements


def test_an_exact_centre_takes_four_bytes_more() -> None:
    codec = codec_of(None, shape_of(64, 2), key_bits=4, value_bits=4)
    kv = states("gaussian", 2, 2, 96, 64)
    kv[0, 1, :, 5] += 1e4  # far from zero for its scale
    packed = codec.encode(kv[0], kv[1], [96], 0)
    assert packed.nbytes == page_bytes((4, 4), 2, 64, [96]) + 4


def test_pages_of_small_blocks_are_small() -> None:
    assert [page_tokens(block) for block in (1, 127, 128, 400)] == [64, 64, 512, 512]


def test_sizes_need_no_torch() -> None:
    code = "import sys, mmkv.codecs.sizes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
