"""The bytes of packed pages are those that kernels/pack/naive.py describes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from codec_cases import CPU, PACKED, codec_of, decode, shape_of, slow_decode, states
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkv.codecs import Part
from mmkv.kernels.common.naive import rotate
from mmkv.kernels.pack import Form
from mmkv.kernels.pack.form import orthonormal, tables
from mmkv.kernels.pack.naive import code_groups, pack_bits, quantize
from mmkv.kernels.unpack_rotate import unpack_bits, unpack_rotate

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


def slow_kivi_block(states: np.ndarray, levels: int) -> np.ndarray:
    """Bytes of a block of values float32 `[H, T, D]`, number by number: scales and least values of
    every token and 32 channels (or all), then codes, of which a byte holds those a part of a head
    apart.
    """
    heads, tokens, dim = states.shape
    width, bits = 32 if dim % 32 == 0 else dim, {4: 2, 16: 4}[levels]
    numbers: tuple[list[np.float16], list[np.float16]] = ([], [])
    plane = np.zeros((heads, tokens, dim * bits // 8), dtype=np.uint8)
    for h, t, first in np.ndindex(heads, tokens, dim // width):
        group = states[h, t, first * width :][:width]
        low = np.float16(group.min())
        scale = np.float16((group.max() - group.min()) / np.float32(levels - 1))
        numbers[0].append(scale)
        numbers[1].append(low)
        inverse = np.float32(1) / np.float32(scale) if scale > 0 else np.float32(0)
        for c, number in enumerate(group, start=first * width):
            code = min(max(round(float((number - np.float32(low)) * inverse)), 0), levels - 1)
            byte = c % plane.shape[2]
            plane[h, t, byte] |= code << bits * (c // plane.shape[2])
    parts = [np.array(n, dtype="<f2").view(np.uint8) for n in numbers]
    return np.concatenate([*parts, plane.ravel()])


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("head_dim", [16, 48, 64, 96])
def test_kivis_values_are_stored_number_by_number(bits: int, head_dim: int) -> None:
    codec = codec_of("kivi", shape_of(head_dim, 2), value_bits=bits)
    kv = states("biased", 2, 2, 21, head_dim)
    kv[1, 0, 3], kv[1, 1, 4] = 2.5, 0.0  # constant
    kv[1, 0, 5] = torch.arange(head_dim) % 13 / 4  # halfway between codes
    kv[1, 1, 6] = 2000 + kv[1, 1, 6] / 9  # the least value is rounded by more than a scale
    lengths = [9, 0, 5, 7]
    packed = codec.encode(kv[0], kv[1], lengths, 0)
    _, values = codec.halves(Part(packed.shared, packed.blocks, lengths), 0)  # type: ignore
    assert not len(values.shared)
    wanted = [slow_kivi_block(x, 2**bits) for x in np.split(kv[1].numpy(), [9, 9, 14], axis=1)]
    assert [b.tobytes() for b in values.blocks] == [b.tobytes() for b in wanted]


@pytest.mark.parametrize("head_dim", [16, 48, 64, 96])
def test_kivis_values_decode_from_any_blocks(head_dim: int) -> None:
    codec = codec_of("kivi", shape_of(head_dim, 2))
    kv = states("biased", 2, 2, 21, head_dim)
    lengths = [9, 0, 5, 7]
    packed = codec.encode(kv[0], kv[1], lengths, 0)
    part = Part(packed.shared, [packed.blocks[i] for i in (3, 1, 0)], [7, 0, 9])
    some = codec.decode([part, part], 0, shape_of(head_dim, 2), CPU, torch.float32)[1]
    groups = kv[1].unflatten(2, (-1, 32 if head_dim % 32 == 0 else head_dim))
    low = groups.amin(3, keepdim=True).half().float()
    scale = ((groups.amax(3, keepdim=True) - groups.amin(3, keepdim=True)) / 3).half().float()
    whole = (low + scale * ((groups - low) / scale).round().clamp(0, 3)).flatten(2)
    wanted = torch.cat([whole[:, 14:], whole[:, :9]] * 2, dim=1)
    torch.testing.assert_close(some, wanted, atol=1e-5, rtol=0)


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
    fit, codes = code_groups(x, form)
    params = fit.params
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
    fit, codes = code_groups(x, form)
    params = fit.params
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
    fit, codes = code_groups(x, form)
    params = fit.params
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
