"""What layers carry, and how times reach a family, as the engine and the adapters have it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import EVERY, small_vlm

from mmkv.engine.carry import new_carry
from mmkv.models.layers import Carried, Layer, carried


@torch.no_grad()
def test_the_state_of_gated_deltanet_has_as_many_bytes_as_foretold() -> None:
    adapter = small_vlm("qwen3_5").adapter
    carry = new_carry(adapter)
    assert carry is not None
    embeds = adapter.embed_text(range(7))[None]
    adapter.language_model(inputs_embeds=embeds, past_key_values=carry.cache, use_cache=True)
    told = carried(adapter.text_config, adapter.layers, torch.finfo(adapter.dtype).bits // 8)
    assert told is not None
    assert told.recurrent + told.convolution == told.total == carry.nbytes
    assert told.recurrent == sum(t.nbytes for t in carry.tensors() if t.ndim == 4)


def test_a_window_holds_keys_and_values() -> None:
    local = Layer("local", "sliding_attention", 8, 2, 16, 100)
    layers = (local, local, Layer("global", heads=8, kv_heads=2, head_dim=16), Layer("reuse"))
    assert carried(object(), layers, 2) == Carried(0, 0, 2 * 100 * 2 * 2 * 16 * 2)


@pytest.mark.parametrize("kind", ["mamba", "conv", "linear_attention"])
def test_another_state_is_not_known(kind: str) -> None:
    assert carried(object(), (Layer("carry", kind),), 2) is None


@pytest.mark.parametrize("family", EVERY)
def test_times_reach_a_model_as_its_family_says(family: str) -> None:
    adapter = small_vlm(family).adapter
    grid, patch = adapter.grid(48, 64), adapter.temporal_patch
    early, late = (adapter.layout(grid, [t] * patch) for t in (1.0, 50.0))
    first = np.zeros(adapter.axes, dtype=np.int64)
    near, far = (adapter.origin(first, early.advance, first, t) for t in (1.0, 50.0))
    in_text, by_position = early.before != late.before, not np.array_equal(near, far)
    wanted = "text" if in_text else "position" if by_position else "none"
    assert adapter.time == wanted
