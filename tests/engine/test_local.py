"""Layers with a window of their own, and layers that read another layer's keys and values."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import archived_kv
from small_models import clip, small_vlm
from stock import QUESTION, Stock, teacher_forced

import mmkv
from mmkv.engine.carry import new_carry
from mmkv.kernels.window_attention import Chunk, window_attention

SIZES = ["gemma4", "gemma4_moe"]
FRAMES = 12
TIMES = [float(i) for i in range(FRAMES)]


def opened(vlm: mmkv.VideoLM, frames: int = FRAMES, **settings: Any) -> mmkv.Stream:
    settings = {"window_frames": 16, "recent_frames": 2, "retrieve_frames": 50, **settings}
    stream = vlm.stream(mmkv.CacheConfig(**settings))
    stream.feed(clip(frames, seed=3), [float(i) for i in range(frames)])
    return stream


def answer(stream: mmkv.Stream, steps: int = 5) -> torch.Tensor:
    """Logits `[steps, V]` of given tokens after a question."""
    with stream.ask_iter(QUESTION, max_new_tokens=steps) as reply:
        rows = [reply._generation.logits.clone()]
        for i in range(steps - 1):
            with torch.inference_mode():
                rows.append(reply._generation.step(70 + i).clone())
    return torch.stack(rows)


def state(stream: mmkv.Stream) -> list[torch.Tensor]:
    """What the stream's local layers keep."""
    window = stream._state.window
    assert window is not None
    assert window.carry is not None
    return [tensor.clone() for tensor in window.carry.tensors()]


@pytest.mark.parametrize("window", [1, 5, 40, 97])
@pytest.mark.parametrize("family", SIZES)
def test_a_window_of_any_size_is_the_stock_models(family: str, window: int) -> None:
    """Also one that is shorter than a frame, whose tokens see each other both ways."""
    vlm = small_vlm(family, sliding_window=window)
    with opened(vlm, chunk_frames=4) as stream:
        rows, ids = teacher_forced(stream, 5)
    with torch.inference_mode():
        expected = Stock(vlm, clip(FRAMES, seed=3), TIMES).logits(QUESTION, ids)
    for step, row in enumerate(rows[: len(ids)]):
        want = expected[-1 - len(ids) + step]
        assert (row - want).abs().max() <= 1e-4 * max(1.0, want.abs().max().item())


def test_another_window_gives_another_answer() -> None:
    rows = []
    for window in (40, 41):
        with opened(small_vlm("gemma4", sliding_window=window)) as stream:
            rows.append(answer(stream))
    assert (rows[0] - rows[1]).abs().max() > 1e-2


def test_frames_that_see_ahead_give_another_answer() -> None:
    rows = []
    for both in ("vision", None):
        with opened(small_vlm("gemma4", use_bidirectional_attention=both)) as stream:
            rows.append(answer(stream))
    assert (rows[0] - rows[1]).abs().max() > 1e-2


@pytest.mark.parametrize("chunk", [1, 2, 5, 12])
@pytest.mark.parametrize("family", SIZES)
def test_any_chunking_gives_the_same_answer(family: str, chunk: int) -> None:
    vlm = small_vlm(family)
    with opened(vlm, chunk_frames=3) as one, opened(vlm, chunk_frames=chunk) as other:
        torch.testing.assert_close(answer(one), answer(other), atol=3e-4, rtol=0)


@pytest.mark.parametrize("family", SIZES)
def test_a_second_answer_has_the_same_bits_and_leaves_no_trace(family: str) -> None:
    vlm = small_vlm(family)
    with opened(vlm, chunk_frames=4) as asked, opened(vlm, chunk_frames=4) as silent:
        first = answer(asked)
        assert torch.equal(answer(asked), first)
        asked.find("the door")
        for a, b in zip(state(asked), state(silent), strict=True):
            assert torch.equal(a, b)
        for stream in (asked, silent):
            stream.feed(clip(5, seed=9), np.arange(20.0, 25.0))
        assert torch.equal(archived_kv(asked), archived_kv(silent))
        assert torch.equal(answer(asked), answer(silent))


@pytest.mark.parametrize("family", SIZES)
def test_a_long_answer_keeps_to_its_window(family: str) -> None:
    """Generated tokens take the place of older ones until none of the clip's is left."""
    vlm, steps = small_vlm(family, sliding_window=6), 15
    with opened(vlm) as stream:
        rows = answer(stream, steps)
    given = [70 + i for i in range(steps - 1)]
    with torch.inference_mode():
        want = Stock(vlm, clip(FRAMES, seed=3), TIMES).logits(QUESTION, given)[-steps:]
    assert (rows - want).abs().max() <= 1e-4 * want.abs().max()


@pytest.mark.parametrize("family", SIZES)
def test_a_chunk_that_fails_leaves_the_windows_as_they_were(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(small_vlm(family)) as stream:
        before = state(stream)

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise KeyError("full")

        with monkeypatch.context() as patch:
            patch.setattr(stream._state.archive, "append", refuse)
            with pytest.raises(KeyError):
                stream.feed(clip(2), [20.0, 21.0])
        assert all(torch.equal(a, b) for a, b in zip(state(stream), before, strict=True))


@pytest.mark.parametrize("family", SIZES)
def test_windows_have_the_same_bytes_however_long_the_stream(family: str) -> None:
    vlm = small_vlm(family)
    local = [layer for layer in vlm.adapter.layers if layer.kind == "local"]
    want = sum(2 * 4 * x.window * x.kv_heads * x.head_dim + 8 for x in local)
    for frames in (1, FRAMES, 4 * FRAMES):
        with opened(vlm, frames) as stream:
            carry = stream._state.window.carry
            assert carry.nbytes == want
            tokens = len(stream._state.frame_encoder.prefix)
            tokens += sum(b.tokens for b in stream._state.archive.snapshot().blocks)
            assert {int(w.seen) for w in carry.windows.values()} == {tokens}


def test_a_state_taken_over_by_its_tensors_goes_on_the_same() -> None:
    vlm = small_vlm("gemma4")
    with opened(vlm) as stream:
        carry = stream._state.window.carry
        fresh = new_carry(vlm.adapter)
        assert fresh is not None
        taken = fresh.with_tensors(carry.tensors())
        want = answer(stream)
        stream._state.window.carry = taken
        assert torch.equal(answer(stream), want)


def test_only_global_layers_with_keys_of_their_own_are_archived() -> None:
    vlm = small_vlm("gemma4")
    kinds = [layer.kind for layer in vlm.adapter.layers]
    assert kinds == ["local", "global", "local", "global", "reuse", "reuse", "reuse"]
    assert [layer.owner for layer in vlm.adapter.layers][4:] == [2, 2, 3]
    with opened(vlm) as stream:
        assert archived_kv(stream).shape[:3] == (2, 2, 2)
        assert len(stream._state.window.layers) == 2
        assert set(stream._state.window.carry.windows) == {0, 2}


def test_keys_are_known_to_be_values_where_one_projection_makes_both() -> None:
    vlm = small_vlm("gemma4_moe")
    layers = vlm.adapter.layers
    assert [layer.keys_are_values for layer in layers] == [x.kind == "global" for x in layers]
    with opened(vlm) as stream:
        kv = archived_kv(stream)
    for at, number in enumerate(vlm.adapter.global_layers):
        weight = vlm.adapter.language_model.layers[number].self_attn.k_norm.weight
        torch.testing.assert_close(kv[at, 0], kv[at, 1] * weight)


@pytest.mark.parametrize("family", SIZES)
def test_a_plain_forward_over_a_clip_has_the_same_bits_beside_a_stream(family: str) -> None:
    vlm = small_vlm(family)
    plain = Stock(vlm, clip(6, seed=2), TIMES[:6])
    with torch.inference_mode():
        before = plain.logits(QUESTION, [])
        with opened(vlm) as stream:
            answer(stream)
            assert torch.equal(plain.logits(QUESTION, []), before)
        assert torch.equal(plain.logits(QUESTION, []), before)


@pytest.mark.parametrize("settings", [{"retrieve_frames": "all"}, {"answer_keep_ratio": 0.5}])
@pytest.mark.parametrize("family", SIZES)
def test_a_prompt_that_sees_all_is_the_stock_models_whatever_the_answer_sees(
    family: str, settings: dict[str, Any]
) -> None:
    vlm = small_vlm(family)
    recent = FRAMES if "retrieve_frames" in settings else 2
    with opened(vlm, recent_frames=recent, **settings) as stream:
        row = answer(stream)[0]
    with torch.inference_mode():
        want = Stock(vlm, clip(FRAMES, seed=3), TIMES).logits(QUESTION, [])[-1]
    assert (row - want).abs().max() <= 1e-4 * want.abs().max()


def test_layers_without_keys_see_one_token_while_frames_are_encoded() -> None:
    vlm, rows = small_vlm("gemma4"), dict[int, set[int]]()
    if "logits_to_keep" not in inspect.signature(vlm.adapter.language_model.forward).parameters:
        pytest.skip("transformers before 5.23 runs these layers for every token")

    def note(number: int) -> Any:
        def hook(module: Any, given: Any, out: torch.Tensor) -> None:
            rows.setdefault(number, set()).add(out.shape[1])

        return hook

    layers = vlm.adapter.language_model.layers
    handles = [layer.register_forward_hook(note(i)) for i, layer in enumerate(layers)]
    try:
        with opened(vlm, chunk_frames=4) as stream:
            kinds = [layer.kind for layer in vlm.adapter.layers]
            assert all(rows[i] == {1} for i, kind in enumerate(kinds) if kind == "reuse")
            assert all(min(rows[i]) > 1 for i, kind in enumerate(kinds) if kind != "reuse")
            rows.clear()
            answer(stream, 1)
            assert {len(seen) for seen in rows.values()} == {1}
            assert len(set.union(*rows.values())) == 1  # all of the prompt, in every layer
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_a_chunks_last_queries_alone_see_what_they_see_in_the_chunk(rows: int) -> None:
    n, start, local, heads = 7, 20, 9, 4
    angle = torch.rand(2, n, 4).repeat(1, 1, 2)
    near, far = ((a.cos(), a.sin()) for a in angle)
    last = start + torch.tensor([0, 3, 3, 3, 4, 6, 6])
    chunk = Chunk(start, n, local, 40, near, far, 3, last)
    query = torch.randn(1, heads, n, 8)
    key, value = torch.randn(2, 1, 2, 40, 8)
    sinks = tuple(torch.randn(2, 1, 2, 3, 8))
    whole = window_attention(query, key, value, chunk, sinks, 0.3)
    part = window_attention(query[:, :, -rows:], key, value, chunk.newest(rows), sinks, 0.3)
    torch.testing.assert_close(part, whole[:, -rows:])
