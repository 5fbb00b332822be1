"""The bytes of packed pages are those that kernels/pack/naive.py describes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from codec_cases import CPU, PACKED, codec_of, decode, shape_of, slow_decode, states
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkv.kernels.pack import Form, pack, pack_bits
from mmkv.kernels.pack.form import orthonormal, tables
from mmkv.kernels.pack.naive import quantize
from mmkv.kernels.unpack_rotate import unpack_bits, unpack_rotate
from mmkv.rotary import rotate

FORMS = {
    "1.5 hadamard": lambda d: Form(2, d // 2, "hadamard"),
    "1.5 fft": lambda d: Form(2, d // 2, "fft"),
    "1.5 none": lambda d: Form(2, d // 2),
    "1.58": lambda d: Form(3),
    "2": lambda d: Form(4),
    "4": lambda d: Form(16),
    "vidkv 1.5": lambda d: Form(2, d // 2, "fft", fitted=False, centred=False),
    "vidkv 1.58": lambda d: Form(3, fitted=False, centred=False),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("head_dim", [16, 48])
def test_keys_decode_as_a_decoder_written_from_the_description(name: str, head_dim: int) -> None:
    shape = shape_of(head_dim, 2)
    codec = codec_of(name, shape, group_size=None if name != "kivi" else 64)
    kv = states("biased", 2, 2, 21, head_dim)
    kv[0, 1, :, 3] = 7.25
    kv[0, 0, :, 5] += 1000.0
    lengths = [9, 12]
    packed = codec.encode(kv[0], kv[1], lengths, 0)
    fast = decode(codec, packed, lengths, shape)
    form = codec._packers[0].form  # type: ignore[attr-defined]
    skip = 2 if name == "kivi" else 0  # a group size was given: the block's place comes first
    at = 0
    for block, tokens in zip(packed.blocks, lengths, strict=True):
        slow, _, _ = slow_decode(packed.shared[4:], block[skip:], 2, tokens, head_dim, form)
        np.testing.assert_allclose(fast[0, :, at : at + tokens].numpy(), slow, atol=2e-4)
        at += tokens


@pytest.mark.parametrize("name", ["fitted", "vidkv"])
def test_values_follow_the_keys_in_page_and_block(name: str) -> None:
    shape = shape_of(32, 1)
    codec = codec_of(name, shape, key_bits=1.58, value_bits=2)
    kv = states("gaussian", 2, 1, 10, 32)
    packed = codec.encode(kv[0], kv[1], [10], 0)
    size = int(packed.shared[:4].copy().view("<u4")[0])
    forms = [packer.form for packer in codec._packers]  # type: ignore[attr-defined]
    _, used, cut = slow_decode(packed.shared[4:], packed.blocks[0], 1, 10, 32, forms[0])
    assert used == size
    slow, used, rest = slow_decode(
        packed.shared[4 + size :], packed.blocks[0][cut:], 1, 10, 32, forms[1]
    )
    assert (used + size + 4, rest + cut) == (len(packed.shared), len(packed.blocks[0]))
    np.testing.assert_allclose(decode(codec, packed, [10], shape)[1].numpy(), slow, atol=1e-5)


@given(
    name=st.sampled_from(sorted(FORMS)),
    heads=st.integers(1, 3),
    tokens=st.integers(1, 9),
    head_dim=st.sampled_from([16, 32, 80]),
    blocks=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_codes_come_back_from_their_bytes(
    name: str, heads: int, tokens: int, head_dim: int, blocks: int
) -> None:
    form = FORMS[name](head_dim)
    generator = torch.Generator().manual_seed(tokens)
    codes = torch.randint(0, 16, (blocks, heads, tokens, head_dim), generator=generator)
    levels = torch.full((head_dim,), form.levels)
    levels[: form.wide] = 4
    codes = (codes % levels).to(torch.uint8)
    packed = pack_bits(codes, form)
    size = packed.shape[1]
    assert size == sum(form.plane_bytes(heads, tokens, head_dim))
    buffer = torch.cat([torch.full((3,), 255, dtype=torch.uint8), packed.flatten()])
    at = 3 + size * torch.arange(blocks)
    assert torch.equal(unpack_bits(buffer, at, tokens, heads, head_dim, form), codes)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_every_code_is_the_level_nearest_to_its_number(name: str) -> None:
    form = FORMS[name](32)
    x = states("biased", 2, 2, 40, 32)
    params, codes = pack(x, form)
    table = tables(params)
    slots = x.gather(3, table.order[:, :, None].expand_as(x)).double()
    rest = slots - table.centre.gather(2, table.order)[:, :, None].double()
    matrix = form.matrix(32, CPU)
    if matrix is not None:
        rest[..., form.wide :] = rest[..., form.wide :] @ matrix.double()
    levels = torch.full((32,), form.levels)
    levels[: form.wide] = 4
    scale = table.scale[:, :, None].double()
    best = torch.full(x.shape, float("inf"), dtype=torch.float64)
    for code in range(int(levels.max())):
        error = (rest - scale * (code - (levels - 1) / 2)).abs()
        best = torch.minimum(best, torch.where(code < levels, error, float("inf")))
    own = (rest - scale * (codes - (levels - 1) / 2)).abs()
    assert float((own - best).max()) < 1e-5


def test_quantizing_again_gives_the_same_codes() -> None:
    form = FORMS["1.5 hadamard"](32)
    x = states("gaussian", 3, 2, 64, 32)
    params, codes = pack(x, form)
    order = tables(params).order
    slots = x.gather(3, order[:, :, None].expand_as(x))
    assert torch.equal(quantize(slots, params, form), codes)


@pytest.mark.parametrize("name", ["hadamard", "fft"])
@pytest.mark.parametrize("size", [8, 24, 32, 40, 64, 7])
def test_transforms_are_real_and_orthonormal(name: str, size: int) -> None:
    matrix = orthonormal(name, size).double()
    eye = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, eye, atol=1e-6, rtol=0)


def test_rotation_is_what_rotating_afterwards_gives() -> None:
    form, tokens = FORMS["1.5 hadamard"](32), 12
    x = states("biased", 2, 2, tokens, 32)
    params, codes = pack(x, form)
    packed = pack_bits(codes, form)
    angles = torch.arange(2 * tokens)[:, None] * torch.rand(16)
    table = (torch.cat([angles, angles], 1).cos(), torch.cat([angles, angles], 1).sin())
    at = torch.tensor([0, packed.shape[1]])
    rows = torch.arange(2).repeat_interleave(tokens)
    plain = torch.empty(2, 2 * tokens, 32)
    turned = torch.full_like(plain, float("nan"))
    for rotation, out in ((None, plain), (table, turned)):
        unpack_rotate(packed.flatten(), at, [tokens] * 2, rows, params, form, rotation, out)
    torch.testing.assert_close(turned, rotate(plain, table))
