"""Every merge does what its description says: against loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from eviction_reference import blocks, folded, random_page
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkv.archive.thinning import Thinning
from mmkv.eviction import make_eviction
from mmkv.merging import MERGINGS, make_merge


@pytest.mark.parametrize("mode", [name for name in MERGINGS if name != "none"])
@given(
    heads=st.integers(1, 3), frames=st.integers(1, 4), tokens=st.integers(2, 9),
    ratio=st.floats(0.02, 0.98), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=30, deadline=None, derandomize=True)
def test_evicted_tokens_are_folded_as_described(
    mode: str, heads: int, frames: int, tokens: int, ratio: float, seed: int
) -> None:
    states, _ = random_page(seed, 2, heads, frames, tokens)
    thinning = Thinning(make_eviction("random"), make_merge(mode), ratio)
    thinned = thinning.thin(blocks(states, frames), [states])
    if thinned is None:
        return
    for layer, left in enumerate(thinned.states[0]):
        for h in range(heads):
            mask = thinned.kept[layer, h]
            key, value = states[layer, :, h].double().numpy()
            want = folded(key, value, np.flatnonzero(mask), np.flatnonzero(~mask), mode)
            np.testing.assert_allclose(left[:, h].numpy(), np.stack(want), rtol=1e-4, atol=1e-4)


def test_nothing_is_folded_unless_it_is_asked_for() -> None:
    states, _ = random_page(0, 1, 2, 3, 8)
    plain = Thinning(make_eviction("random"), make_merge("none"), 0.25)
    thinned = plain.thin(blocks(states, 3), [states])
    assert thinned is not None
    for h in range(2):
        assert torch.equal(thinned.states[0][0][:, h], states[0, :, h, thinned.kept[0, h]])


def test_text_takes_no_part() -> None:
    states, _ = random_page(3, 1, 1, 2, 6)
    thinning = Thinning(make_eviction("random"), make_merge("average"), 0.25)
    thinned = thinning.thin(blocks(states, 2, text=(2, 0)), [states])
    assert thinned is not None
    visual = np.tile([0, 0, 1, 1, 1, 1], 2).astype(bool)
    mask = thinned.kept[0, 0]
    key, value = states[0, :, 0].double().numpy()
    want = folded(key, value, np.flatnonzero(mask & visual), np.flatnonzero(~mask), "average")
    seen = visual[mask]
    left = thinned.states[0][0]
    np.testing.assert_allclose(left[:, 0, seen], np.stack(want), rtol=1e-4, atol=1e-5)
    assert torch.equal(left[:, 0, ~seen], states[0, :, 0, ~visual])
