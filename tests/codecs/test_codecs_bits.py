"""Bits per element, counted from stored bytes: what each codec says it takes, and its overhead."""

from __future__ import annotations

import pytest
from codec_cases import codec_of, shape_of, states

from mmkv.codecs import bits_per_element


def measured(bits: dict[str, float], page: int, head_dim: int, kv_heads: int, block: int,
             name: str | None = None) -> tuple[float, float]:  # fmt: skip
    """Bits per element of the keys and of the values of a page."""
    shape = shape_of(head_dim, kv_heads)
    codec = codec_of(name, shape, **bits)
    kv = states("biased", 2, kv_heads, page, head_dim)
    lengths = [block] * (page // block) + [page % block] * bool(page % block)
    packed = codec.encode(kv[0], kv[1], lengths, 0)
    key, value = codec.split(packed, lengths, 0)
    elements = kv_heads * page * head_dim
    assert (
        key + value
        == packed.nbytes
        == packed.shared.nbytes + sum(block.nbytes for block in packed.blocks)
    )
    assert bits_per_element([(packed, 2 * elements)]) == 4 * (key + value) / elements
    return 8 * key / elements, 8 * value / elements


@pytest.mark.parametrize("name", ["fitted", "vidkv"])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("block", [16, 7, 64])
class TestBars:
    def test_a_page_of_64_tokens(self, name: str, head_dim: int, kv_heads: int, block: int) -> None:
        one, ternary = measured(
            {"key_bits": 1.5, "value_bits": 1.58}, 64, head_dim, kv_heads, block, name
        )
        two_key, two = measured(
            {"key_bits": 2, "value_bits": 2}, 64, head_dim, kv_heads, block, name
        )
        assert one <= 1.8
        assert ternary <= 1.9
        assert max(two_key, two) <= 2.3

    @pytest.mark.parametrize("page", [128, 196, 512])
    def test_a_page_of_128_tokens_or_more(
        self, name: str, head_dim: int, kv_heads: int, block: int, page: int
    ) -> None:
        one, ternary = measured(
            {"key_bits": 1.5, "value_bits": 1.58}, page, head_dim, kv_heads, block, name
        )
        two_key, two = measured(
            {"key_bits": 2, "value_bits": 2}, page, head_dim, kv_heads, block, name
        )
        assert one <= 1.7
        assert ternary <= 1.8
        assert max(two_key, two) <= 2.2


def test_blocks_of_one_token_cost_no_more_than_their_codes() -> None:
    one, ternary = measured({"key_bits": 1.5, "value_bits": 1.58}, 64, 64, 1, 1)
    assert one <= 1.8
    assert ternary <= 1.9


def test_four_bits_and_salient_tokens() -> None:
    four, _ = measured({"key_bits": 4, "value_bits": 4}, 512, 128, 4, 128)
    _, salient = measured({"key_bits": 1.5, "value_bits": 1.66}, 512, 128, 4, 128)
    assert 4 < four <= 4.1
    assert 1.66 < salient <= 1.8


def test_kivi_counts_its_scales_per_token() -> None:
    key, value = measured({}, 512, 128, 4, 128, "kivi")
    assert 2.5 <= key <= 2.6
    assert value == 3.0


def test_fp16_is_16_bits_of_a_half_precision_model() -> None:
    import torch

    assert measured({"dtype": torch.float16}, 64, 64, 2, 16, "fp16") == (16.0, 16.0)
    assert measured({"dtype": torch.float32}, 64, 64, 2, 16, "fp16") == (32.0, 32.0)
