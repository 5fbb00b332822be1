"""Every codec: blocks of many pages, in any order, are decoded on their own and in one call."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from codec_cases import CPU, PACKED, codec_of, decode, shape_of, states

from mmkv.codecs import CODECS, Part, bits_per_element, from_spec, make_codec
from mmkv.kernels.common.naive import rotate

LENGTHS = ([16, 18, 0, 30], [17], [3, 61])


def pages(name: str, dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    """A codec, three packed pages of it, and what each decodes to as a whole."""
    shape = shape_of(32)
    codec = codec_of(name, shape, dtype=dtype)
    packed, whole = [], []
    for seed, lengths in enumerate(LENGTHS):
        kv = states("biased", 2, 2, sum(lengths), 32, seed=seed).to(dtype)
        packed.append(codec.encode(kv[0], kv[1], lengths, 0))
        whole.append(decode(codec, packed[-1], lengths, shape))
    return shape, codec, packed, whole


@pytest.mark.parametrize("name", CODECS)
def test_chosen_blocks_of_many_pages_are_those_of_whole_pages(name: str) -> None:
    shape, codec, packed, whole = pages(name)
    chosen = [(0, [3, 1, 2]), (2, [0, 1]), (1, [0]), (0, [0])]
    parts, wanted = [], []
    for page, blocks in chosen:
        lengths = LENGTHS[page]
        parts.append(
            Part(packed[page].shared, [packed[page].blocks[b] for b in blocks],
                 [lengths[b] for b in blocks])
        )  # fmt: skip
        split = whole[page].split(lengths, dim=2)
        wanted += [split[b] for b in blocks]
    found = codec.decode(parts, 0, shape, CPU, torch.float32)
    torch.testing.assert_close(found, torch.cat(wanted, dim=2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CODECS)
def test_rotation_in_the_same_call_turns_keys_only(name: str) -> None:
    shape, codec, packed, whole = pages(name)
    angles = torch.arange(64)[:, None] * torch.rand(16)
    table = (torch.cat([angles, angles], 1).cos(), torch.cat([angles, angles], 1).sin())
    part = Part(packed[0].shared, packed[0].blocks, LENGTHS[0])
    found = codec.decode([part], 0, shape, CPU, torch.float32, table)
    torch.testing.assert_close(found[0], rotate(whole[0][0], table), atol=1e-5, rtol=1e-5)
    assert torch.equal(found[1], whole[0][1])


@pytest.mark.parametrize("name", CODECS)
def test_reopened_from_json_it_decodes_the_same(name: str) -> None:
    shape, codec, packed, whole = pages(name)
    again = from_spec(json.loads(json.dumps(codec.spec())), shape)
    assert again == codec
    assert torch.equal(decode(again, packed[0], LENGTHS[0], shape), whole[0])


@pytest.mark.parametrize("name", CODECS)
def test_read_only_bytes_are_decoded_without_a_warning(
    name: str, recwarn: pytest.WarningsRecorder
) -> None:
    shape, codec, packed, whole = pages(name)
    shared = np.frombuffer(packed[1].shared.tobytes(), dtype=np.uint8)
    block = np.frombuffer(packed[1].blocks[0].tobytes(), dtype=np.uint8)
    found = codec.decode([Part(shared, [block], LENGTHS[1])], 0, shape, CPU, torch.float32)
    assert torch.equal(found, whole[1])
    assert not [str(w.message) for w in recwarn if "writ" in str(w.message)]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_goes_in_and_comes_out(name: str, dtype: torch.dtype) -> None:
    shape, codec, packed, whole = pages(name, dtype)
    part = Part(packed[2].shared, packed[2].blocks, LENGTHS[2])
    found = codec.decode([part], 0, shape, CPU, dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found, whole[2].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_fp16_loses_nothing_of_the_models_dtype(dtype: torch.dtype) -> None:
    shape = shape_of(24)
    codec = make_codec("fp16", shape, dtype=dtype)
    kv = states("gaussian", 2, 2, 9, 24).to(dtype)
    packed = codec.encode(kv[0], kv[1], [4, 5], 0)
    part = Part(packed.shared, packed.blocks, [4, 5])
    assert torch.equal(codec.decode([part], 0, shape, CPU, dtype), kv)


@pytest.mark.parametrize("name", CODECS)
def test_empty_blocks_and_pages_hold_nothing(name: str) -> None:
    shape = shape_of(16)
    codec = codec_of(name, shape)
    nothing = torch.empty(2, 0, 16)
    packed = codec.encode(nothing, nothing, [0, 0], 0)
    assert packed.nbytes == 0
    assert bits_per_element([(packed, 0)]) == 0.0
    assert decode(codec, packed, [0, 0], shape).shape == (2, 2, 0, 16)
    assert codec.decode([], 0, shape, CPU, torch.float32).shape == (2, 2, 0, 16)


@pytest.mark.parametrize("name", ["fp16", *PACKED])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_channels_that_do_not_change_decode_exactly(name: str, kind: torch.dtype) -> None:
    shape = shape_of(32)
    codec = codec_of(name, shape, dtype=kind)
    kv = states("gaussian", 2, 2, 70, 32)
    kv[:, :, :, 2] = 1.2345678
    kv[:, 0, :, 17] = -3e4
    kv[:, 1, :, 30] = 0.0
    kv = kv.to(kind)
    packed = codec.encode(kv[0], kv[1], [70], 0)
    found = decode(codec, packed, [70], shape)
    tensors = (0,) if name == "kivi" else (0, 1)  # its values have no channels of their own
    for i in tensors:
        for head, channel in ((0, 2), (1, 2), (0, 17), (1, 30)):
            assert torch.equal(found[i, head, :, channel], kv[i, head, :, channel].float())


@pytest.mark.parametrize("name", PACKED)
def test_keys_and_values_that_are_all_alike_decode_exactly(name: str) -> None:
    shape = shape_of(16)
    codec = codec_of(name, shape)
    same = torch.full((2, 40, 16), 0.5)
    packed = codec.encode(same, -same, [40], 0)
    assert torch.equal(decode(codec, packed, [40], shape), torch.stack([same, -same]))


@pytest.mark.parametrize("name", ["fitted", "vidkv"])
def test_a_page_of_one_token_is_exact(name: str) -> None:
    shape = shape_of(16)
    codec = codec_of(name, shape)
    kv = states("gaussian", 2, 2, 1, 16)
    packed = codec.encode(kv[0], kv[1], [1], 0)
    assert torch.equal(decode(codec, packed, [1], shape), kv)


@pytest.mark.parametrize("name", PACKED)
def test_groups_longer_than_a_page_are_the_page(name: str) -> None:
    shape = shape_of(16)
    kv = states("biased", 2, 2, 20, 16)
    found = []
    for size in (20, 4096):
        codec = codec_of(name, shape, group_size=size)
        packed = codec.encode(kv[0], kv[1], [8, 12], 0)
        found.append(decode(codec, packed, [8, 12], shape))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", PACKED)
def test_shorter_groups_lose_less_where_channels_drift(name: str) -> None:
    shape = shape_of(16)
    kv = states("gaussian", 2, 2, 96, 16) + torch.linspace(-9, 9, 96)[:, None]
    errors = []
    for size in (96, 32):
        codec = codec_of(name, shape, group_size=size)
        packed = codec.encode(kv[0], kv[1], [20, 76], 0)
        found = decode(codec, packed, [20, 76], shape)
        errors.append(float((found - kv)[0].square().sum()))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("name", PACKED)
def test_protected_layers_lose_less_and_only_they(name: str) -> None:
    shape = shape_of(16, layers=3)
    codec = codec_of(name, shape, protected_layers=[-1])
    kv = states("gaussian", 2, 2, 64, 16)
    errors = []
    for layer in range(3):
        packed = codec.encode(kv[0], kv[1], [64], layer)
        found = decode(codec, packed, [64], shape, layer)
        errors.append(float((found - kv).square().sum()))
    assert errors[0] == errors[1]
    assert errors[2] < 0.2 * errors[0]


def test_salient_tokens_lose_less() -> None:
    shape = shape_of(32)
    codec = codec_of("stp", shape)
    kv = states("gaussian", 2, 2, 100, 32)
    salience = torch.zeros(100)
    salience[10:30] = torch.rand(20) + 1
    packed = codec.encode(kv[0], kv[1], [40, 60], 0, salience)
    error = (decode(codec, packed, [40, 60], shape) - kv)[1].square().mean(dim=(0, 2))
    others = torch.cat([error[:10], error[30:]])
    assert float(error[10:30].mean()) < 0.75 * float(others.mean())


def test_with_mean_removal_a_large_bias_costs_nothing() -> None:
    shape = shape_of(32)
    kv = states("gaussian", 2, 2, 64, 32)
    bias = torch.zeros(32)
    bias[::8] = 300.0
    lost = {}
    for remove in (True, False):
        codec = codec_of("fitted", shape, remove_mean=remove)
        packed = codec.encode(kv[0] + bias, kv[1], [64], 0)
        lost[remove] = float((decode(codec, packed, [64], shape)[0] - bias - kv[0]).square().mean())
    plain = codec_of("fitted", shape)
    packed = plain.encode(kv[0], kv[1], [64], 0)
    unbiased = float((decode(plain, packed, [64], shape)[0] - kv[0]).square().mean())
    assert lost[True] < 1.05 * unbiased
    assert lost[False] > 10 * unbiased
