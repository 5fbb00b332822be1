"""Settings of thinning are checked before a frame is seen."""

from __future__ import annotations

from typing import Any

import pytest
from small_models import clip, small_vlm

import mmkv


@pytest.mark.parametrize("focus", ["", "  \n", 3])
def test_an_empty_standing_instruction_is_refused(focus: Any) -> None:
    with pytest.raises(ValueError, match=r"focus=.*says nothing.*leave it out"):
        mmkv.CacheConfig(focus=focus)


def test_a_store_knows_the_standing_instruction(tmp_path: Any) -> None:
    vlm = small_vlm("llava_onevision")
    with vlm.stream(mmkv.CacheConfig(focus="watch the door"), store=tmp_path / "kv"):
        pass
    with vlm.open(tmp_path / "kv") as again:
        assert again.config.focus == "watch the door"


@pytest.mark.parametrize("name", ["keep_ratio", "answer_keep_ratio"])
@pytest.mark.parametrize("ratio", [0, -0.5, 1.01, float("nan"), "half", True])
def test_a_share_that_is_none_is_refused(name: str, ratio: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.* use a share above 0 and up to 1"):
        mmkv.CacheConfig(**{name: ratio})


@pytest.mark.parametrize("eviction", ["lookm", "temporal+", "temporal+temporal", "a+b", 3, ""])
def test_an_unknown_policy_lists_the_known_ones(eviction: Any) -> None:
    with pytest.raises(ValueError, match=r"eviction=.*'text-prior', 'temporal', 'snapkv'.*own"):
        mmkv.CacheConfig(eviction=eviction)


@pytest.mark.parametrize("merging", ["mean", "", 0])
def test_an_unknown_merging_lists_the_known_ones(merging: Any) -> None:
    with pytest.raises(ValueError, match=r"merging=.*'none', 'average', 'pivot', 'weighted'.*own"):
        mmkv.CacheConfig(merging=merging)


def test_keeping_everything_and_evicting_contradict_each_other() -> None:
    with pytest.raises(ValueError, match=r"keep_ratio=0\.5 evicts .* eviction='none' keeps all"):
        mmkv.CacheConfig(keep_ratio=0.5, eviction="none")
    mmkv.CacheConfig(eviction="none")


def test_nothing_is_retrieved_that_a_question_could_thin_in_resident_mode() -> None:
    with pytest.raises(ValueError, match=r"answer_keep_ratio=0\.5 .* retrieve_frames='all'"):
        mmkv.CacheConfig(retrieve_frames="all", answer_keep_ratio=0.5)


def test_a_budget_under_one_token_per_frame_is_one_and_is_told() -> None:
    vlm = small_vlm("llava_onevision")
    with vlm.stream(mmkv.CacheConfig(keep_ratio=0.001, eviction="random")) as stream:
        stream.feed(clip(12), [float(i) for i in range(12)])
        assert stream.stats().keep_ratio is None
        stream.flush()
        assert stream.stats().keep_ratio == 1 / vlm.tokens_per_frame()
        assert stream.stats().tokens_per_frame == vlm.tokens_per_frame()


def test_a_standing_instruction_that_no_prompt_can_hold_is_refused() -> None:
    vlm = small_vlm("llava_onevision")
    with pytest.raises(ValueError, match=r"the focus has .* tokens; at most 4096 are allowed"):
        vlm.stream(mmkv.CacheConfig(keep_ratio=0.5, eviction="text-prior", focus="door " * 2000))
