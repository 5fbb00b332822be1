"""Every policy keeps what its description says: against loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
from eviction_reference import REFERENCES, blocks, budget, counts, kept, random_page
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkv.archive.thinning import Thinning
from mmkv.eviction import EVICTIONS, make_eviction
from mmkv.merging import make_merge

SHAPES = st.tuples(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.integers(3, 9), st.integers(0, 99)
)


def test_every_policy_has_a_reference() -> None:
    assert set(EVICTIONS) - {"random", "none"} == set(REFERENCES) - {"temporal+text-prior"}


@pytest.mark.parametrize("name", REFERENCES)
@given(shape=SHAPES, ratio=st.floats(0.02, 0.98))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_policy_keeps_what_its_description_says(
    name: str, shape: tuple[int, int, int, int, int], ratio: float
) -> None:
    layers, heads, frames, tokens, seed = shape
    states, mass = random_page(seed, layers, heads, frames, tokens)
    total = budget(ratio, frames, tokens)
    page = (layers * heads, frames, tokens)
    key, value = (states[:, i].double().numpy().reshape(*page, -1) for i in (0, 1))
    policy = make_eviction(name)
    scores = REFERENCES[name](key, value, mass.double().numpy().reshape(page))
    want = kept(scores, counts(scores, total, policy.across))
    held = blocks(states, frames, mass=mass)
    thinned = Thinning(policy, make_merge("none"), ratio).thin(held, [states])
    if total == frames * tokens:
        assert thinned is None
        return
    assert thinned is not None
    assert np.array_equal(thinned.kept.reshape(page), want)
    for layer, left in enumerate(thinned.states[0]):
        for h in range(heads):
            place = thinned.kept[layer, h]
            assert np.array_equal(left[:, h], states[layer, :, h, place])


@given(shape=SHAPES, ratio=st.floats(0.02, 0.98))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_page_keeps_its_budget_and_at_least_one_token_of_every_frame_and_head(
    shape: tuple[int, int, int, int, int], ratio: float
) -> None:
    layers, heads, frames, tokens, seed = shape
    states, mass = random_page(seed, layers, heads, frames, tokens)
    for name in (*REFERENCES, "random"):
        thinning = Thinning(make_eviction(name), make_merge("none"), ratio)
        held = blocks(states, frames, mass=mass)
        thinned = thinning.thin(held, [states])
        if thinned is None:
            continue
        each = thinned.kept.reshape(layers, heads, frames, tokens).sum(axis=3)
        assert (each == each[0, 0]).all()
        assert each[0, 0].tolist() == list(thinned.lengths)
        assert each.min() >= 1
        assert sum(thinned.lengths) == budget(ratio, frames, tokens) == thinning.tokens_left(held)


def test_random_keeps_the_same_of_the_same_page_and_other_tokens_in_other_heads() -> None:
    states, _ = random_page(0, 2, 2, 4, 16)
    thinning = Thinning(make_eviction("random"), make_merge("none"), 0.25)
    first, again = (thinning.thin(blocks(states, 4), [states]) for _ in range(2))
    assert first is not None
    assert again is not None
    assert np.array_equal(first.kept, again.kept)
    assert len({row.tobytes() for row in first.kept.reshape(4, -1)}) == 4
    assert set(first.lengths) == {4}


@pytest.mark.parametrize("name", [*REFERENCES, "random"])
def test_text_is_always_kept(name: str) -> None:
    states, mass = random_page(1, 2, 2, 4, 9)
    thinning = Thinning(make_eviction(name), make_merge("average"), 0.2)
    thinned = thinning.thin(blocks(states, 4, text=(3, 1), mass=mass), [states])
    assert thinned is not None
    each = thinned.kept.reshape(2, 2, 4, 9)
    assert each[..., :3].all()
    assert each[..., 8:].all()
    assert sum(thinned.lengths) == 4 * 4 + budget(0.2, 4, 5)
    text = np.flatnonzero(np.tile([1, 1, 1, 0, 0, 0, 0, 0, 1], 4))
    for layer, left in enumerate(thinned.states[0]):
        for h in range(2):
            spots = np.searchsorted(np.flatnonzero(thinned.kept[layer, h]), text)
            assert np.array_equal(left[:, h, spots], states[layer, :, h, text])


def test_temporal_evicts_what_is_as_in_the_keyframe_before_anything_new() -> None:
    states, _ = random_page(2, 1, 1, 4, 8)
    same = states.view(1, 2, 1, 4, 8, -1)
    same[:, :, :, 1:, :6] = same[:, :, :, :1, :6]  # but for each frame's last two tokens
    thinning = Thinning(make_eviction("temporal"), make_merge("none"), 0.5)
    thinned = thinning.thin(blocks(states, 4), [states])
    assert thinned is not None
    assert thinned.keyframe == 0
    left = thinned.kept.reshape(4, 8)
    assert left[1:, 6:].all()
    assert left[0].all()


def test_scores_of_the_wrong_shape_are_refused() -> None:
    class Wrong(type(make_eviction("random"))):  # type: ignore[misc]
        name = "wrong"

        def scores(self, frames):  # type: ignore[no-untyped-def]
            return frames.value.norm(dim=-1).flatten(1)

    states, _ = random_page(0, 1, 1, 2, 4)
    with pytest.raises(ValueError, match=r"eviction='wrong' gives scores \[1, 8\].*\[1, 2, 4\]"):
        Thinning(Wrong(), make_merge("none"), 0.5).thin(blocks(states, 2), [states])


def test_a_model_that_computes_no_numbers_is_told_from_a_policy_that_does() -> None:
    class Lost(type(make_eviction("random"))):  # type: ignore[misc]
        name = "lost"

        def scores(self, frames):  # type: ignore[no-untyped-def]
            return frames.value.norm(dim=-1) / 0

    states, _ = random_page(0, 1, 1, 2, 4)
    held = blocks(states, 2)
    with pytest.raises(ValueError, match="eviction='lost' gives scores that are NaN or infinite"):
        Thinning(Lost(), make_merge("none"), 0.5).thin(held, [states])
    states[0, 0, 0, 3] = float("nan")
    with pytest.raises(ValueError, match=r"keys or values of a frame are NaN.* wider dtype"):
        Thinning(make_eviction("diverse"), make_merge("none"), 0.5).thin(held, [states])
