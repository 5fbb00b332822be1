"""What codecs refuse, and how they say it: the field, the bad value, what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from codec_cases import PACKED, codec_of, decode, relative_error, shape_of, states

from mmkv.codecs import CODECS, Codec, from_spec, make_codec
from mmkv.codecs.packed import _LARGEST


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"codec": "zip"}, ["codec='zip'", "'fp16'", "'fitted'", "'vidkv'", "'stp'", "'kivi'"]),
        ({"codec": 3}, ["codec=3"]),
        ({"key_bits": 3}, ["key_bits=3", "1.5, 1.58, 2 or 4"]),
        ({"key_bits": "2"}, ["key_bits='2'"]),
        ({"key_bits": True}, ["key_bits=True"]),
        ({"value_bits": 0}, ["value_bits=0", "codec='fitted'"]),
        ({"codec": "kivi", "value_bits": 1.58}, ["value_bits=1.58", "codec='kivi'", "2 or 4"]),
        ({"codec": "stp", "value_bits": 2}, ["value_bits=2", "1.66"]),
        ({"codec": "fp16", "key_bits": 2}, ["key_bits=2", "16"]),
        ({"codec": "fp16", "group_size": 64}, ["group_size=64", "'fp16'", "'fitted'"]),
        ({"protected_layers": [0]}, ["protected_layers=[0]", "'fp16'"]),
        ({"codec": "fitted", "group_size": 0}, ["group_size=0", "8 to 65535", "None"]),
        ({"codec": "fitted", "group_size": 2.5}, ["group_size=2.5"]),
        ({"codec": "fitted", "transform": "dct"}, ["transform='dct'", "'hadamard', 'fft'"]),
        ({"codec": "fitted", "remove_mean": 1}, ["remove_mean=1", "True or False"]),
        ({"codec": "fitted", "protected_layers": [3]}, ["protected_layers=[3]", "0 to 2"]),
        ({"codec": "fitted", "protected_layers": [-4]}, ["protected_layers=[-4]"]),
        ({"codec": "fitted", "protected_layers": 1}, ["protected_layers=1"]),
        ({"codec": "fitted", "protected_layers": "0"}, ["protected_layers='0'"]),
        ({"codec": "fitted", "protected_bits": 8}, ["protected_bits=8", "2 or 4"]),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError) as found:
        make_codec(settings.pop("codec", None), shape_of(layers=3), **settings)
    for part in parts:
        assert part in str(found.value)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "fp16"),
        ({"key_bits": 16, "value_bits": 16}, "fp16"),
        ({"key_bits": 1.5}, "fitted"),
        ({"value_bits": 2.0}, "fitted"),
        ({"value_bits": 1.66}, "stp"),
    ],
)
def test_bits_alone_choose_a_codec(settings: dict[str, Any], name: str) -> None:
    assert make_codec(None, shape_of(), **settings).name == name


def test_a_codec_object_is_taken_as_it_is() -> None:
    codec = codec_of("kivi", shape_of())
    assert make_codec(codec, shape_of()) is codec


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("head_dim", [24, 8, 100])
def test_head_sizes_that_do_not_pack_are_refused(name: str, head_dim: int) -> None:
    with pytest.raises(ValueError, match=rf"multiple of 16.*{head_dim}.*codec='fp16'"):
        make_codec(name, shape_of(head_dim))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", [0, 1])
def test_numbers_that_are_none_are_refused(name: str, bad: float, where: int) -> None:
    codec = codec_of(name, shape_of(16))
    kv = states("gaussian", 2, 2, 10, 16)
    kv[where, 1, 4, 3] = bad
    named = ("keys", "values")[where]
    with pytest.raises(ValueError, match=f"{named} of layer 2 hold NaN or infinity"):
        codec.encode(kv[0], kv[1], [10], 2)


@pytest.mark.parametrize("name", PACKED)
def test_numbers_beyond_float32s_squares_are_refused(name: str) -> None:
    codec = codec_of(name, shape_of(16))
    kv = states("gaussian", 2, 2, 10, 16)
    kv[0, 0, 0, 0] = 1e30
    with pytest.raises(ValueError, match=r"keys of layer 0 reach 1e\+30.*fp16"):
        codec.encode(kv[0], kv[1], [10], 0)


@pytest.mark.parametrize("name", ["fitted", "vidkv", "stp"])
@pytest.mark.parametrize("remove_mean", [True, False])
@pytest.mark.parametrize("tokens", [2, 700])
def test_the_largest_numbers_that_are_taken_are_packed(
    name: str, remove_mean: bool, tokens: int
) -> None:
    shape = shape_of(128, 1)
    codec = codec_of(name, shape, remove_mean=remove_mean)
    sign = states("gaussian", 2, 1, tokens, 128).sign()
    for signs in (sign, sign[..., :1].expand_as(sign)):  # all of it in one slot, transformed
        kv = _LARGEST * signs
        found = decode(codec, codec.encode(kv[0], kv[1], [tokens], 0), [tokens], shape)
        assert relative_error(found, kv) < 0.5


def test_pages_of_more_tokens_than_groups_are_numbered_by_are_refused() -> None:
    codec = codec_of("fitted", shape_of(16, 1), group_size=64)
    kv = torch.zeros(2, 1, 65536, 16)
    with pytest.raises(ValueError, match=r"65536 tokens.* up to 65535; use a smaller page_tokens"):
        codec.encode(kv[0], kv[1], [65536], 0)


def test_values_beyond_float16_are_refused_by_kivi() -> None:
    codec = codec_of("kivi", shape_of(16))
    kv = states("gaussian", 2, 2, 10, 16)
    kv[1] *= 1e5
    with pytest.raises(ValueError, match="'kivi' stores them up to 65504"):
        codec.encode(kv[0], kv[1], [10], 0)


def test_fp16_of_numbers_that_do_not_fit_is_refused() -> None:
    codec = make_codec("fp16", shape_of(16), dtype=torch.float16)
    kv = 1e5 * states("gaussian", 2, 2, 10, 16)
    with pytest.raises(ValueError, match="NaN or infinity"):
        codec.encode(kv[0], kv[1], [10], 0)


@pytest.mark.parametrize("name", CODECS)
def test_lengths_have_to_add_up(name: str) -> None:
    codec = codec_of(name, shape_of(16))
    kv = states("gaussian", 2, 2, 10, 16)
    with pytest.raises(ValueError, match=r"\[4, 5\]"):
        codec.encode(kv[0], kv[1], [4, 5], 0)


@pytest.mark.parametrize("name", PACKED)
def test_another_models_keys_are_refused(name: str) -> None:
    codec = codec_of(name, shape_of(16))
    kv = states("gaussian", 2, 2, 10, 32)
    with pytest.raises(ValueError, match="not those of this codec's model"):
        codec.encode(kv[0], kv[1], [10], 0)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("name", ["fitted", "vidkv", "stp"])
def test_very_small_and_large_numbers_lose_no_more(name: str, scale: float) -> None:
    shape = shape_of(16)
    codec = codec_of(name, shape)
    kv = states("gaussian", 2, 2, 64, 16)
    lost = []
    for factor in (1.0, scale):
        packed = codec.encode(factor * kv[0], factor * kv[1], [64], 0)
        lost.append(relative_error(decode(codec, packed, [64], shape), factor * kv))
    assert lost[1] == pytest.approx(lost[0], rel=0.05)


@pytest.mark.parametrize("name", ["fitted", "vidkv", "stp"])
def test_numbers_whose_squares_vanish_stay_small(name: str) -> None:
    shape = shape_of(16)
    codec = codec_of(name, shape)
    kv = 1e-30 * states("gaussian", 2, 2, 64, 16)
    packed = codec.encode(kv[0], kv[1], [64], 0)
    assert float(decode(codec, packed, [64], shape).abs().max()) < 1e-29


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "zip"},
        {},
        {"name": "fp16"},
        {"name": "fp16", "dtype": "int8"},
        {"name": "fitted", "key_bits": 2},
    ],
)
def test_a_store_of_another_version_is_named(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        from_spec(spec, shape_of())


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_says_what_it_is(name: str) -> None:
    codec: Codec = codec_of(name, shape_of())
    assert name in repr(codec)
    assert codec == codec_of(name, shape_of())
    assert hash(codec) == hash(codec_of(name, shape_of()))
