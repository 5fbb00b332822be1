"""Rotary embeddings other than the plain one, and deepstack: used as transformers uses them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import archived_kv
from small_models import EVERY, clip, small_vlm
from stock import QUESTION, Stock, teacher_forced

import mmkv

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 2.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def with_rope(family: str, rope: dict[str, Any]) -> Any:
    """The family's small model with another rotary embedding, weights as before."""
    plain = small_vlm(family)
    config = copy.deepcopy(plain.model.config)
    text = config.get_text_config()
    given = text.rope_parameters
    own = given.get("sliding_attention")  # where types of layers have angles of their own
    text.rope_parameters = {
        **given,
        **(rope if own is None else {"sliding_attention": {**own, **rope}}),
    }
    model = type(plain.model)(config)
    model.load_state_dict(plain.model.state_dict())
    return model.eval(), plain


def load(family: str, rope: dict[str, Any]) -> mmkv.VideoLM:
    model, plain = with_rope(family, rope)
    bound = plain.adapter.max_pixels
    return mmkv.load(
        model=model,
        tokenizer=plain.tokenizer,
        preprocess=plain.adapter.preprocess,
        max_pixels=bound,
    )


@pytest.mark.parametrize("rope", [YARN, LINEAR, LLAMA3], ids=lambda r: r["rope_type"])
@pytest.mark.parametrize("family", EVERY)
def test_a_fixed_rope_of_any_type_equals_plain_transformers(
    family: str, rope: dict[str, Any]
) -> None:
    vlm = load(family, rope)
    frames, times = clip(8, seed=3), [0.5 * i for i in range(8)]
    config = mmkv.CacheConfig(window_frames=20, recent_frames=2, retrieve_frames=50)
    with vlm.stream(config) as stream:
        stream.feed(frames, times)
        rows, ids = teacher_forced(stream, 3)
    with torch.inference_mode():
        expected = Stock(vlm, frames, times).logits(QUESTION, ids)
    for step, row in enumerate(rows[: len(ids)]):
        want = expected[-1 - len(ids) + step]
        assert (row - want).abs().max() <= 1e-4 * max(1.0, want.abs().max().item())


@pytest.mark.parametrize("family", ["llava_onevision", "qwen3_vl"])
def test_another_rope_gives_other_keys(family: str) -> None:
    kept = []
    for vlm in (small_vlm(family), load(family, YARN)):
        with vlm.stream(mmkv.CacheConfig(window_frames=8)) as stream:
            stream.feed(clip(8), np.arange(8.0))
            kept.append(archived_kv(stream))
    assert (kept[0] - kept[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 2.0},
        {
            "rope_type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [2.0] * 8,
            "original_max_position_embeddings": 64,
        },
    ],
    ids=lambda r: r["rope_type"],
)
def test_a_rope_that_changes_as_the_sequence_grows_is_refused(rope: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"rope_type='{rope['rope_type']}'.*fixed RoPE"):
        load("llava_onevision", rope)


def test_deepstack_reaches_the_keys_of_the_layers_it_is_added_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vlm = small_vlm("qwen3_vl")
    seen, vision = [], vlm.adapter.vision

    def without(*args: Any) -> Any:
        features, deepstack = vision(*args)
        assert len(deepstack) == 2
        assert all(level.abs().sum() > 0 for level in deepstack)
        return features, tuple(torch.zeros_like(level) for level in deepstack)

    for change in (False, True):
        if change:
            monkeypatch.setattr(vlm.adapter, "vision", without)
        with vlm.stream() as stream:
            stream.feed(clip(4), np.arange(4.0))
            seen.append(archived_kv(stream))
    difference = (seen[0] - seen[1]).abs().amax(dim=(1, 2, 3, 4))
    assert difference[0] == 0
    assert (difference[1:] > 1e-3).all()


def test_each_deepstack_level_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = small_vlm("qwen3_vl")
    seen, vision = [], vlm.adapter.vision

    def swapped(*args: Any) -> Any:
        features, deepstack = vision(*args)
        return features, deepstack[::-1]

    for change in (False, True):
        if change:
            monkeypatch.setattr(vlm.adapter, "vision", swapped)
        with vlm.stream() as stream:
            stream.feed(clip(4), np.arange(4.0))
            seen.append(archived_kv(stream))
    assert (seen[0] - seen[1]).abs().max() > 1e-3
