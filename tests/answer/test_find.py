"""Moments are found by the scores of retrieval, joined where they touch; nothing is generated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import FAMILIES, clip, small_vlm

import mmkv
from mmkv.answer.find import moments
from mmkv.archive import CachedBlock
from mmkv.models.block import Layout

CONFIG = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4)
VLM = small_vlm("llava_onevision")
LAYOUT = Layout((), (), np.arange(2)[None], (2,))


def blocks(n: int) -> list[CachedBlock]:
    return [
        CachedBlock(i, 2 * i, 2 * i, 2, (10.0 * i, 10.0 * i + 5), LAYOUT, np.array([0]))
        for i in range(n)
    ]


def spans(scores: list[float], k: int) -> list[tuple[int, int, int]]:
    """First, best and last block of each moment."""
    found = moments(blocks(len(scores)), np.array(scores), k)
    return [(int(m.start) // 10, m.index // 2, int(m.end) // 10) for m in found]


def test_a_moment_goes_on_while_the_score_is_above_half_its_peak() -> None:
    assert spans([0.0, 1.4, 3.0, 1.6, 1.5, 1.4, 0.0], 1) == [(2, 2, 4)]


def test_moments_come_best_first_and_do_not_overlap() -> None:
    assert spans([2.0, 3.0, 2.9, 0.1, 4.0, 1.9], 5) == [(4, 4, 4), (0, 1, 2), (5, 5, 5), (3, 3, 3)]


def test_frames_no_better_than_the_ordinary_are_no_moment() -> None:
    assert spans([-1.0, 0.0, 1.0, -0.5], 5) == [(2, 2, 2)]
    assert spans([0.0, 0.0], 5) == []
    assert spans([], 5) == []


def test_a_moment_tells_its_times_and_its_score() -> None:
    (found,) = moments(blocks(3), np.array([0.0, 2.0, 1.5]), 1)
    assert found == mmkv.Moment(start=10.0, end=25.0, seconds=10.0, index=2, score=2.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_found_is_what_a_question_scores_best(family: str) -> None:
    with small_vlm(family).stream(CONFIG) as stream:
        stream.feed(clip(24), np.arange(24.0))
        best = stream.find("Which?", 1)[0]
        frames = stream.ask("Which?", max_new_tokens=1).frames
    # the frames of an answer are those some layer chose: the best one on average is among them
    scores = {frame.index: frame.score for frame in frames}
    assert best.score == pytest.approx(max(scores.values()))
    assert scores[best.index] == max(scores.values())


def test_nothing_is_generated_and_the_stream_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with VLM.stream(CONFIG) as stream:
        stream.feed(clip(16), np.arange(16.0))
        before = stream.ask("What?", max_new_tokens=4)
        head = VLM.adapter.lm_head
        calls: list[Any] = []
        hook = head.register_forward_hook(lambda *_: calls.append(1))
        try:
            found = stream.find("something red", k=3)
        finally:
            hook.remove()
        assert calls == []
        assert 1 <= len(found) <= 3
        assert stream.ask("What?", max_new_tokens=4).token_ids == before.token_ids


def test_only_frames_in_between_are_found() -> None:
    with VLM.stream(CONFIG) as stream:
        stream.feed(clip(24), np.arange(24.0))
        found = stream.find("something", k=50, since=5.0, until=14.0)
    assert found
    assert all(5.0 <= m.start <= m.seconds <= m.end <= 14.0 for m in found)


def test_a_stream_that_retrieves_nothing_finds_all_the_same() -> None:
    with VLM.stream(mmkv.CacheConfig(window_frames=6, retrieve_frames=0)) as stream:
        stream.feed(clip(24), np.arange(24.0))
        assert any(m.seconds < 18 for m in stream.find("something", k=24))


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_a_wrong_number_of_moments_is_refused(k: Any) -> None:
    with VLM.stream(CONFIG) as stream:
        stream.feed(clip(2), [0.0, 1.0])
        with pytest.raises(ValueError, match=rf"k={k!r} is not allowed"):
            stream.find("something", k)


def test_an_empty_text_is_refused() -> None:
    with VLM.stream(CONFIG) as stream:
        stream.feed(clip(2), [0.0, 1.0])
        with pytest.raises(ValueError, match="text=' ' is empty"):
            stream.find(" ")


def test_there_has_to_be_something_to_search() -> None:
    with VLM.stream(CONFIG) as stream, pytest.raises(ValueError, match="no frames yet"):
        stream.find("something")


def test_an_odd_frame_that_waits_for_its_partner_does_not_disturb() -> None:
    with small_vlm("qwen2_5_vl").stream(CONFIG) as stream:
        stream.feed(clip(9), np.arange(9.0))
        found = stream.find("something", k=9)
    assert all(torch.isfinite(torch.tensor(m.score)) for m in found)


def test_a_score_that_compares_nothing_is_refused_with_those_that_find() -> None:
    with VLM.stream(mmkv.CacheConfig(score="uniform", landmarks=0)) as stream:
        stream.feed(clip(8), np.arange(8.0))
        able = r"'mean-key', 'cosine', 'attention' or 'external'"
        with pytest.raises(ValueError, match=rf"^score='uniform' .* finds nothing; .*{able}$"):
            stream.find("something")
