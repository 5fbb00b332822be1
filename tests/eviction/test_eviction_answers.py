"""What answers see of a thinned past: kept tokens where they were, in every family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import FAMILIES
from thinned import FRAMES, QUESTION, buffers, opened

import mmkv
from mmkv.archive.thinning import is_visual


def kept_places(stream: mmkv.Stream, layer: int, blocks: Any) -> torch.Tensor:
    _, left = stream._state.archive.snapshot().read(layer, blocks, torch.device("cpu"))
    assert left is not None
    return left


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_sees_every_kept_token_where_the_whole_stream_has_it(family: str) -> None:
    with opened(family) as thin, opened(family, keep_ratio=1.0) as whole:
        blocks = thin._state.archive.snapshot().blocks[: -2 // thin._runtime.adapter.temporal_patch]
        old = sum(block.tokens for block in blocks)
        sinks = len(thin._state.frame_encoder.prefix)
        for layer, (got, want) in enumerate(zip(buffers(thin), buffers(whole), strict=True)):
            left = kept_places(thin, layer, blocks)
            assert left.shape[1] < 0.8 * old
            head = torch.arange(sinks).expand(len(left), -1)
            tail = torch.arange(sinks + old, want[0].shape[2]).expand(len(left), -1)
            rows = torch.cat([head, left + sinks, tail], dim=1)[None, :, :, None]
            for a, b in zip(got, want, strict=True):
                picked = b.gather(2, rows.expand(-1, -1, -1, b.shape[3]))
                torch.testing.assert_close(a, picked, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_text_around_frames_is_seen_and_heads_keep_tokens_of_their_own(family: str) -> None:
    with opened(family) as stream:
        blocks = stream._state.archive.snapshot().blocks
        left = kept_places(stream, 1, blocks)
        visual = is_visual(blocks)
        for head in left.numpy():
            assert set(np.flatnonzero(~visual)) <= set(head)
        assert not torch.equal(left[0], left[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_window_and_recent_frames_stay_whole(family: str) -> None:
    with opened(family) as thin, opened(family, keep_ratio=1.0) as whole:
        for a, b in zip(thin._state.window.layers, whole._state.window.layers, strict=True):
            assert torch.equal(a.key, b.key)
            assert torch.equal(a.value, b.value)
        recent = sum(b.tokens for b in thin._state.archive.snapshot().blocks[-2:])
        recent = recent if thin._runtime.adapter.temporal_patch == 1 else recent // 2
        for a, b in zip(buffers(thin), buffers(whole), strict=True):
            assert torch.equal(a[0][:, :, -recent:], b[0][:, :, -recent:])


def test_frames_are_found_by_summaries_of_all_their_tokens() -> None:
    with opened(eviction="random") as thin, opened(keep_ratio=1.0) as whole:
        past, other = (s._state.archive.snapshot() for s in (thin, whole))
        for layer in range(thin._runtime.adapter.shape.layers):
            assert torch.equal(past.summaries(layer, 0, FRAMES), other.summaries(layer, 0, FRAMES))


def test_a_moment_in_the_past_is_answered_from_what_is_kept_of_it() -> None:
    with opened() as thin, opened(keep_ratio=1.0) as whole:
        got, want = buffers(thin, until=9.0)[0], buffers(whole, until=9.0)[0]
        blocks = thin._state.archive.snapshot().blocks[8:10]
        left = kept_places(thin, 0, blocks)
        recent = want[0][:, :, -sum(b.tokens for b in blocks) :]
        rows = left[None, :, :, None].expand(-1, -1, -1, recent.shape[3])
        torch.testing.assert_close(got[0][:, :, -left.shape[1] :], recent.gather(2, rows))


def test_a_retrieved_frame_brings_its_keyframe() -> None:
    with opened(eviction="temporal", retrieve_frames=1, neighbours=0, page_tokens=32) as stream:
        pages = stream._state.archive.snapshot().pages
        assert all(page.keyframe == page.first for page in pages)
        reply = stream.ask_iter(QUESTION, max_new_tokens=1)
        for layer, choice in enumerate(reply._generation.engine_pass.choices):
            (chosen,) = choice.chosen
            page = next(p for p in pages if p.first <= chosen < p.stop)
            shown = {chosen, page.keyframe}
            tokens = sum(page.lengths[i - page.first] for i in shown)
            recent = sum(b.tokens for b in stream._state.archive.snapshot().blocks[-2:])
            sinks = len(stream._state.frame_encoder.prefix)
            assert reply._generation.engine_pass.before[layer] == sinks + tokens + recent
        reply.finish()


def test_a_keyframe_before_since_is_not_shown() -> None:
    with opened(eviction="temporal", retrieve_frames=1, neighbours=0, page_tokens=4096) as stream:
        past = stream._state.archive.snapshot()
        among = past.blocks[5:9]
        assert past.with_keyframes(among[1:2], among) == among[1:2]
        assert past.with_keyframes(among[1:2], past.blocks)[0].index == 0


def test_a_keyframe_is_found_behind_frames_that_a_store_lost() -> None:
    with opened(eviction="temporal", retrieve_frames=1, neighbours=0, page_tokens=16) as stream:
        past = stream._state.archive.snapshot()
        first, lost, later = past.pages[0], past.pages[1], past.pages[2]
        among = [b for b in past.blocks if not lost.first <= b.index < lost.stop]
        chosen = [block for block in among if block.index == later.first + 1]
        shown = [block.index for block in past.with_keyframes(chosen, among)]
        assert shown == [later.keyframe, later.first + 1]
        chosen = [block for block in past.blocks if block.index == lost.first + 1]
        among = [b for b in past.blocks if b.index not in (first.first, lost.keyframe)]
        assert past.with_keyframes(chosen, among) == chosen


@pytest.mark.parametrize("eviction", ["text-prior", "temporal", "snapkv", "diverse"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_policy_answers_and_follows_up(family: str, eviction: str) -> None:
    with opened(family, eviction=eviction, merging="pivot", retrieve_frames=4) as stream:
        chat = stream.chat()
        first = chat.ask(QUESTION, max_new_tokens=3)
        assert [f for f in first.frames if not f.recent]
        assert chat.ask("And then?", max_new_tokens=3).finish_reason in ("stop", "length")
        assert stream.ask(QUESTION, max_new_tokens=3).token_ids == first.token_ids


@pytest.mark.parametrize("codec", ["fitted", "vidkv", "kivi", "stp"])
def test_what_is_left_is_packed(codec: str) -> None:
    settings = {"codec": codec, "page_tokens": 48}
    with opened(**settings) as thin, opened(**settings, keep_ratio=1.0) as whole:
        assert thin.stats().bits_per_element == pytest.approx(
            whole.stats().bits_per_element, rel=0.35
        )
        assert thin.stats().archive_bytes < 0.5 * whole.stats().archive_bytes
        assert thin.stats().keep_ratio == pytest.approx(0.3, abs=0.02)
        assert thin.stats().gb_per_hour < 0.5 * whole.stats().gb_per_hour
        assert thin.ask(QUESTION, max_new_tokens=2).text is not None


def test_resident_answers_attend_to_what_is_kept() -> None:
    settings = {"retrieve_frames": "all", "codec": "fitted", "key_bits": 4, "value_bits": 4}
    with opened(**settings) as thin, opened(**settings, keep_ratio=1.0) as whole:
        assert thin.ask(QUESTION, max_new_tokens=3).text is not None
        assert whole.ask(QUESTION, max_new_tokens=3).text is not None
        rows = [sum(r.stop - r.first for s in stream._resident._segments for r in s.rows)
                for stream in (thin, whole)]  # fmt: skip
        assert rows[0] == pytest.approx(0.3 * rows[1], rel=0.1)


def test_the_question_thins_what_it_retrieved_before_it_is_answered() -> None:
    with opened(keep_ratio=1.0, answer_keep_ratio=0.25) as thin, opened(keep_ratio=1.0) as whole:
        replies = [s.ask_iter(QUESTION, max_new_tokens=2) for s in (thin, whole)]
        # the prompt saw everything: the first token is the same
        assert torch.equal(replies[0]._generation.logits, replies[1]._generation.logits)
        blocks = whole._state.archive.snapshot().blocks[:-2]
        visual = sum(block.tokens for block in blocks)
        sizes = [reply._generation.engine_pass.before for reply in replies]
        assert all(b - a == visual - round(0.25 * visual) for a, b in zip(*sizes, strict=True))
        for reply in replies:
            assert len(reply.finish().token_ids) <= 2


def test_an_answer_from_thinned_frames_is_thinned_again() -> None:
    with opened("qwen3_vl", answer_keep_ratio=0.5) as stream:
        assert len(stream.ask(QUESTION, max_new_tokens=3).token_ids) <= 3
