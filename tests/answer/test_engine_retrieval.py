"""Each layer retrieves the blocks whose mean key matches the question's mean query best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import blocks_kv
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import FAMILIES, clip, small_vlm

import mmkv
from mmkv.archive import Archive, CachedBlock, PageSize, summaries
from mmkv.codecs import make_codec
from mmkv.engine import hooks
from mmkv.models.block import Layout
from mmkv.models.layers import Shape
from mmkv.retrieval.mean_key import MeanKey

LAYOUT = Layout((), (), np.arange(2)[None], (2,))


def block(index: int, layers: int = 1) -> CachedBlock:
    kv = torch.full((layers, 2, 1, 2, 4), float(index))
    return CachedBlock(
        index, 2 * index, index, 1, (float(index), float(index)), LAYOUT, np.array([0]), kv
    )


def small_archive(limit: int | None, page_tokens: int | None = None) -> Archive:
    shape = Shape(layers=1, heads=1, kv_heads=1, head_dim=4)
    codec = make_codec(None, shape, dtype=torch.float32)
    return Archive(codec, shape, torch.float32, limit, PageSize(page_tokens))


class Listener:
    """The engine's own pass, noting the queries of each layer."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.queries = inner, []

    def attend(self, layer: int, query: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.queries.append(query[0].double())
        return self.inner.attend(layer, query, *rest)

    def again(self, *given: Any) -> torch.Tensor:
        return self.inner.again(*given)


def reply_and_queries(
    stream: mmkv.Stream, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[Any, Any, list[torch.Tensor]]:
    heard: list[Listener] = []
    run = hooks.run

    def listening(model: Any, engine_pass: Any, *rest: Any, **extras: Any) -> Any:
        heard.append(Listener(engine_pass))
        return run(model, heard[-1], *rest, **extras)

    with monkeypatch.context() as patch:
        patch.setattr(hooks, "run", listening)
        reply = stream.ask_iter("Which?", max_new_tokens=1, **options)
    return reply, heard[-1].inner, heard[-1].queries


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_chooses_by_the_papers_score(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = small_vlm(family)
    config = mmkv.CacheConfig(
        window_frames=6, recent_frames=4, retrieve_frames=6, neighbours=0, score="mean-key"
    )
    with vlm.stream(config) as stream:
        stream.feed(clip(24), np.arange(24.0))
        blocks = stream._state.archive.snapshot().blocks
        _, engine_pass, queries = reply_and_queries(stream, monkeypatch)
        prompt = stream._template.prompt("Which?")
        patch = vlm.adapter.temporal_patch
        lead = queries[0].shape[1] - len(prompt.ids)
        asking = [lead + i for i, word in enumerate(prompt.words) if word]
        candidates = blocks[: -4 // patch]
        for layer, query in enumerate(queries):
            mean_query = query[:, asking].mean(dim=1)  # [H, D]
            scores = []
            for candidate in candidates:
                after = candidate.tokens - len(candidate.layout.after)
                start = len(candidate.layout.before)
                keys = blocks_kv(stream, [candidate])[layer, 0]
                mean_key = keys[:, start:after].double().mean(dim=1)  # [H_kv, D]
                group = mean_query.shape[0] // mean_key.shape[0]
                scores.append(
                    sum(mean_query[h] @ mean_key[h // group] for h in range(mean_query.shape[0]))
                )
            best = torch.stack(scores).topk(6 // patch).indices.sort().values.tolist()
            assert engine_pass.choices[layer].chosen == [candidates[i].index for i in best]
            got = engine_pass.choices[layer].scores[: len(candidates)]
            want = torch.stack(scores).numpy()
            assert np.corrcoef(got, want)[0, 1] > 0.9999


def test_frames_are_retrieved_in_runs_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = mmkv.CacheConfig(
        window_frames=6, recent_frames=2, retrieve_frames=6, neighbours=0, retrieve_run=3
    )
    with small_vlm("llava_onevision").stream(config) as stream:
        stream.feed(clip(26), np.arange(26.0))
        _, engine_pass, _ = reply_and_queries(stream, monkeypatch)
    for choice in engine_pass.choices:
        runs = [choice.chosen[:3], choice.chosen[3:]]
        assert all(run == list(range(run[0], run[0] + 3)) and run[0] % 3 == 0 for run in runs)


def test_the_frames_of_an_answer_name_the_layers_that_chose_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=5)
    with small_vlm("llava_onevision").stream(config) as stream:
        stream.feed(clip(24), np.arange(24.0))
        reply, engine_pass, _ = reply_and_queries(stream, monkeypatch)
    for frame in reply.frames:
        if not frame.recent:
            chose = [i for i, c in enumerate(engine_pass.choices) if frame.index in c.chosen]
            assert frame.layers == tuple(chose)
    chosen = {i for c in engine_pass.choices for i in c.chosen}
    assert {f.index for f in reply.frames if not f.recent} == chosen
    assert {f.index for f in reply.frames if f.recent} == {22, 23}


def test_best_frames_come_first() -> None:
    config = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=5)
    with small_vlm("llava_onevision").stream(config) as stream:
        stream.feed(clip(24), np.arange(24.0))
        frames = stream.ask("Which?", max_new_tokens=1).frames
    ranks = [(-f.score, -len(f.layers)) for f in frames]
    assert ranks == sorted(ranks)


def test_equal_scores_still_retrieve_as_many_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    config = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=5)
    with small_vlm("llava_onevision").stream(config) as stream:
        stream.feed(clip(16), np.arange(16.0))
        for pages in stream._state.archive._summaries.chunks:
            pages[0] = torch.zeros_like(pages[0])
        _, engine_pass, _ = reply_and_queries(stream, monkeypatch)
    assert all(len(set(c.chosen)) == 5 for c in engine_pass.choices)
    assert all(np.isfinite(c.scores).all() for c in engine_pass.choices)


def test_recent_frames_are_not_retrieved_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    config = mmkv.CacheConfig(window_frames=6, recent_frames=3, retrieve_frames=50)
    with small_vlm("llava_onevision").stream(config) as stream:
        stream.feed(clip(16), np.arange(16.0))
        _, engine_pass, _ = reply_and_queries(stream, monkeypatch)
    assert all(c.chosen == list(range(13)) for c in engine_pass.choices)


def test_retrieval_keeps_to_since_and_until(monkeypatch: pytest.MonkeyPatch) -> None:
    config = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=50)
    with small_vlm("llava_onevision").stream(config) as stream:
        stream.feed(clip(24), np.arange(24.0))
        _, engine_pass, _ = reply_and_queries(stream, monkeypatch, since=5.0, until=14.0)
    assert all(c.chosen == list(range(5, 13)) for c in engine_pass.choices)


@given(
    page=st.integers(1, 7),
    tokens=st.one_of(st.none(), st.integers(1, 20)),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    limit=st.one_of(st.none(), st.integers(1, 12)),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_scores_do_not_depend_on_pages_or_on_what_was_forgotten(
    page: int, tokens: int | None, sizes: list[int], limit: int | None, data: st.DataObject
) -> None:
    before, summaries.ROWS = summaries.ROWS, page
    try:
        bytes_each = block(0).kv.nbytes
        archive = small_archive(None if limit is None else limit * bytes_each, tokens)
        rows = torch.randn(sum(sizes), 1, 4)
        at = 0
        for size in sizes:
            archive.append([block(at + i) for i in range(size)], [rows[at : at + size]])
            at += size
        snapshot = archive.snapshot()
        kept = [b.index for b in snapshot.blocks]
        assert kept == list(range(at - min(at, limit or at), at))
        assert archive.nbytes == len(kept) * bytes_each
        assert (len(archive), archive.first) == (at, kept[0])
        first = data.draw(st.sampled_from(kept))
        probe = torch.randn(1, 4)
        parts, centre = list(snapshot.summary_parts(0, first, at)), snapshot.summary_centre(0)
        got = MeanKey().rows(probe[None], parts, centre)[0]
        want = ((rows[first:] - rows[0]).half().float() * probe).sum(dim=(1, 2))
        assert torch.allclose(got, want, atol=1e-5)
        whole = snapshot.summaries(0, first, at)[:, 0]
        assert torch.allclose(whole, rows[first:], atol=1e-3, rtol=1e-3)
        assert len(archive._summaries.chunks[0]) <= len(kept) // page + 2
    finally:
        summaries.ROWS = before


def test_a_snapshot_outlives_what_the_archive_forgets() -> None:
    archive = small_archive(4 * block(0).kv.nbytes)
    archive.append([block(i) for i in range(4)], [torch.ones(4, 1, 4)])
    snapshot = archive.snapshot()
    archive.append([block(i) for i in range(4, 12)], [torch.zeros(8, 1, 4)])
    assert [b.index for b in snapshot.blocks] == [0, 1, 2, 3]
    assert snapshot.load(0, snapshot.blocks[:1], torch.device("cpu")).sum() == 0
    assert snapshot.summaries(0, 0, 4).sum(dim=(1, 2, 3)).tolist() == [4.0] * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_that_forgot_answers_like_one_asked_since_then(family: str) -> None:
    vlm = small_vlm(family)
    config = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4)
    logits = []
    with vlm.stream(config) as whole:
        whole.feed(clip(40), np.arange(40.0))
        limit = whole.stats().archive_bytes // 2
        small = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4, max_ram=limit)
        with vlm.stream(small) as forgetful:
            forgetful.feed(clip(40), np.arange(40.0))
            stats = forgetful.stats()
            assert 0 < stats.archive_bytes <= limit
            assert stats.forgotten_frames + stats.archived_frames == 40
            since = forgetful._state.archive.oldest.seconds[0]
            logits.append(forgetful.ask_iter("Which?", max_new_tokens=1)._generation.logits)
        logits.append(whole.ask_iter("Which?", since=since, max_new_tokens=1)._generation.logits)
    assert torch.allclose(*logits, atol=1e-4)


def test_forgetting_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    archive = small_archive(2 * block(0).kv.nbytes)
    with caplog.at_level("WARNING", logger="mmkv"):
        for i in range(6):
            archive.append([block(i)], [torch.ones(1, 1, 4)])
    assert len([r for r in caplog.records if "forgotten" in r.message]) == 1
