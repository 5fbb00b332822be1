"""Gemma 4: what its processor makes of frames, and what its configuration says of its layers."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from engine_reference import archived_kv
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import PREPROCESS, clip, small_vlm

import mmkv
from mmkv.codecs.base import Part
from mmkv.codecs.fp16 import Fp16
from mmkv.codecs.registry import from_spec
from mmkv.models.gemma4 import Gemma4
from mmkv.models.layers import Shape, read_layers, shape_of
from mmkv.models.preprocess import Preprocess


def written(vlm: mmkv.VideoLM, seconds: list[float]) -> list[str]:
    """What is written around the frames of these times, which begin a stream."""
    frames = list(clip(len(seconds)))
    blocks = vlm.adapter.blocks(frames, seconds, vlm.adapter.grid(48, 64))
    return [vlm.tokenizer.decode(b.layout.before) for b in blocks]


def test_frames_are_written_as_minutes_and_seconds_with_a_space_between() -> None:
    vlm = small_vlm("gemma4")
    got = written(vlm, [0.0, 59.99, 61.5, 3725.0, 36000.0])
    clocks = ["00:00", " 00:59", " 01:01", " 62:05", " 600:00"]
    assert got == [f"{clock} <|image>" for clock in clocks]


def test_only_a_streams_first_frame_has_no_space_before_it() -> None:
    vlm = small_vlm("gemma4")
    with vlm.stream() as stream:
        stream.feed(clip(1), [0.0])
        stream.feed(clip(2), [1.0, 2.0])
        blocks = stream._state.archive.snapshot().blocks
    texts = [vlm.tokenizer.decode(b.layout.before) for b in blocks]
    assert texts == ["00:00 <|image>", " 00:01 <|image>", " 00:02 <|image>"]
    ends = np.cumsum([b.tokens for b in blocks])
    assert [int(b.origin[0] - blocks[0].origin[0]) for b in blocks] == [0, *ends[:-1]]


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([70, 140, 280]))
@settings(max_examples=200, deadline=None)
def test_sizes_are_the_stock_processors(height: int, width: int, tokens: int) -> None:
    processing = pytest.importorskip("transformers.models.gemma4.processing_gemma4")
    plain = small_vlm("gemma4").adapter
    config = Preprocess((0.0,) * 3, (1.0,) * 3, max_soft_tokens=tokens)
    adapter = Gemma4(plain.model, plain.tokenizer, config, None)
    want = processing.get_aspect_ratio_preserving_size(
        height=height, width=width, patch_size=8, max_patches=tokens * 4, pooling_kernel_size=2
    )
    grid = adapter.grid(height, width)
    assert (grid.height, grid.width) == want
    assert (grid.rows, grid.cols) == (want[0] // 16, want[1] // 16)


def test_pixels_bound_the_tokens_of_a_frame() -> None:
    assert small_vlm("gemma4", max_pixels=30 * 256).adapter.grid(100, 100).tokens == 25
    with pytest.raises(ValueError, match=r"max_pixels=255 .* 16x16 pixels; pass 256"):
        small_vlm("gemma4", max_pixels=255).adapter.grid(48, 64)


def test_a_frames_tokens_are_those_of_the_video_processor() -> None:
    video = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "max_soft_tokens": 140}
    assert Preprocess.from_dict(video).max_soft_tokens == 140
    picture = {**video, "image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 280}
    assert Preprocess.from_dict(picture).max_soft_tokens is None


def test_logits_are_capped() -> None:
    adapter = small_vlm("gemma4").adapter
    hidden = 50 * torch.randn(3, 64)
    logits = adapter.lm_head(hidden)
    raw = adapter.model.lm_head(hidden)
    assert raw.abs().max() > 5
    torch.testing.assert_close(logits, 4 * torch.tanh(raw / 4))
    assert small_vlm("gemma4", final_logit_softcapping=None).adapter.lm_head is not None


def test_per_layer_embeddings_are_looked_up_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock model searches its vocabulary for embeddings that come without token ids."""
    vlm = small_vlm("gemma4")
    seen: list[int] = []
    look_up = vlm.adapter.language_model.get_per_layer_inputs

    def counted(ids: torch.Tensor | None, *args: object) -> torch.Tensor:
        assert ids is not None
        seen.append(ids.numel())
        found: torch.Tensor = look_up(ids, *args)
        return found

    monkeypatch.setattr(vlm.adapter.language_model, "get_per_layer_inputs", counted)
    settings = {"keep_ratio": 0.5, "eviction": "text-prior", "chunk_frames": 2}
    with vlm.stream(mmkv.CacheConfig(**settings)) as stream:
        stream.feed(clip(4), np.arange(4.0))
        stream.ask("What?", max_new_tokens=3)
        blocks = stream._state.archive.snapshot().blocks
        proxy = stream._state.frame_encoder.proxy
        prefix = len(stream._state.frame_encoder.prefix)
    chunks = [blocks[0].tokens + blocks[1].tokens, blocks[2].tokens + blocks[3].tokens]
    assert seen[:5] == [prefix, chunks[0], len(proxy.ids), chunks[1], len(proxy.ids)]
    assert seen[5] > 1
    assert set(seen[6:]) == {1}


def refused(match: str, **text: object) -> None:
    plain = small_vlm("gemma4")
    model = copy.deepcopy(plain.model)
    for name, value in text.items():
        setattr(model.config.text_config, name, value)
    with pytest.raises(ValueError, match=match):
        mmkv.load(model=model, tokenizer=plain.tokenizer, preprocess=PREPROCESS)


def test_a_model_whose_text_sees_ahead_is_refused() -> None:
    refused("use_bidirectional_attention='all'", use_bidirectional_attention="all")


class Older:
    """A configuration of transformers before 5.23, which does not say what layers share."""

    def __init__(self, config: object) -> None:
        self._config = config

    def __getattr__(self, name: str) -> object:
        if name == "kv_sharing_modes":
            raise AttributeError(name)
        return getattr(self._config, name)


@pytest.mark.parametrize("shared", [0, 2, 3, 4])
def test_shared_keys_and_values_are_known_to_older_transformers_too(shared: int) -> None:
    near, far = "sliding_attention", "full_attention"
    types = [near, far, near, far, near, near, far]
    config = transformers.Gemma4TextConfig(
        num_hidden_layers=7, layer_types=types, num_kv_shared_layers=shared
    )
    found = read_layers(Older(config))
    assert [layer.kind for layer in found].count("reuse") == shared
    owners = {near: max(i for i in range(7 - shared) if types[i] == near)}
    owners[far] = max(i for i in range(7 - shared) if types[i] == far)
    assert [layer.owner for layer in found[7 - shared :]] == [
        owners[x] for x in types[7 - shared :]
    ]
    if hasattr(config, "kv_sharing_modes"):
        assert found == read_layers(config)


def test_only_global_layers_count_towards_a_tokens_bytes() -> None:
    """24 of 42 layers have keys: 4 global ones, of 2 heads of 512, and 20 of windows of 512."""
    config = transformers.Gemma4TextConfig(
        num_hidden_layers=42,
        num_kv_shared_layers=18,
        num_key_value_heads=2,
        head_dim=256,
        global_head_dim=512,
        sliding_window=512,
    )
    layers = read_layers(config)
    kinds = Counter(layer.kind for layer in layers)
    assert kinds == {"local": 20, "global": 4, "reuse": 18}
    assert {layer.owner for layer in layers[24:]} == {22, 23}
    assert all(layers[x.owner].type == x.type for x in layers[24:])
    shape = shape_of(layers)
    assert shape.layers * 2 * shape.kv_heads * shape.head_dim * 2 == 16 * 1024  # in bfloat16
    assert {(x.window, x.kv_heads, x.head_dim) for x in layers if x.kind == "local"} == {
        (512, 2, 256)
    }


def test_where_keys_are_weighted_values_one_tensor_is_archived(tmp_path: Path) -> None:
    vlm, frames = small_vlm("gemma4_moe"), clip(20)
    config = mmkv.CacheConfig(window_frames=4, recent_frames=2, retrieve_frames=50)
    shape, path = vlm.adapter.shape, str(tmp_path / "kv")
    both = Fp16("float32")
    with vlm.stream(config, store=path) as one, vlm.stream(replace(config, codec=both)) as two:
        for stream in (one, two):
            stream.feed(frames, np.arange(20.0))
            stream.flush()
        tokens = sum(block.tokens for block in one._state.archive.snapshot().blocks)
        assert one.stats().bits_per_element == 16  # of the 32 that an element has
        assert one.stats().archive_bytes == tokens * shape.elements // 2 * 4
        assert one.stats().gb_per_hour == pytest.approx(vlm.gb_per_hour(1, 48, 64), rel=0.05)
        assert torch.equal(archived_kv(one), archived_kv(two))  # in float32, to the last bit
        answers = [stream.ask("What?", max_new_tokens=4) for stream in (one, two)]
        assert answers[0].token_ids == answers[1].token_ids
    with vlm.open(path) as again:
        assert again.ask("What?", max_new_tokens=4).token_ids == answers[0].token_ids
    with pytest.raises(ValueError, match="keeps values only"):
        from_spec({"name": "fp16", "dtype": "float32", "keys": "values"}, shape)


def test_half_precision_rounds_derived_keys_once_more() -> None:
    weights = torch.rand(1, 16) + 0.5
    value = torch.randn(2, 9, 16).bfloat16()
    key = (value.float() * weights).bfloat16()
    codec = Fp16("bfloat16", weights)
    packed = codec.encode(key, value, [4, 5], 0)
    assert packed.nbytes == value.nbytes
    assert codec.split(packed, [4, 5], 0) == (0, value.nbytes)
    part, shape = Part(packed.shared, packed.blocks, [4, 5]), Shape(1, 2, 2, 16)
    got = codec.decode([part], 0, shape, torch.device("cpu"), torch.bfloat16)
    assert torch.equal(got, torch.stack([key, value]))
