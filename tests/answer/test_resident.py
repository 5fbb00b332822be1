"""retrieve_frames="all": every answer attends to the whole packed past, at one fixed distance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import clip, small_vlm
from torch import Tensor

import mmkv
from mmkv.answer.context import Context
from mmkv.answer.generation import prompt_input
from mmkv.answer.resident_pass import Resident
from mmkv.answer.retrieval_pass import RetrievalPass
from mmkv.engine import hooks
from mmkv.engine.decode_buffers import LayerBuffer
from mmkv.engine.decode_step import Decoding
from mmkv.kernels.common.naive import rotate
from mmkv.models.prompt import Prompt

FRAMES = 24


def opened(vlm: mmkv.VideoLM, frames: int = FRAMES, store: Any = None, **settings: Any) -> Any:
    config = mmkv.CacheConfig(
        window_frames=6, recent_frames=2, chunk_frames=4, retrieve_frames="all", **settings
    )
    stream = vlm.stream(config, store=store)
    stream.feed(clip(frames), [float(i) for i in range(frames)])
    return stream


class SlowResident(Resident):
    """The same from its description, in float64: decoded keys, one softmax over everything."""

    def __init__(self, fast: Resident, context: Context) -> None:
        super().__init__(fast.far, fast._rotary, fast._axes)
        self._context = context

    def attend(
        self, layer: int, query: Tensor, buffer: LayerBuffer, at: int | Tensor,
        table: tuple[Tensor, Tensor], scaling: float,
    ) -> Tensor:  # fmt: skip
        n, context = query.shape[2], self._context
        length, group = int(at) + n, query.shape[1] // buffer.key.shape[1]
        position = np.full((len(context.anchor), 1), self.far.distance)
        far_query = rotate(query, self._rotary(position, query.device, query.dtype))
        far = context.past.load(layer, context.candidates, query.device).double()
        scores, values = [], []
        for q, k, v in (
            (far_query[0], far[0], far[1]),
            (rotate(query, table)[0], buffer.key[0, :, :length], buffer.value[0, :, :length]),
        ):  # fmt: skip
            scores.append(
                scaling * q.double() @ k.double().repeat_interleave(group, 0).transpose(1, 2)
            )
            values.append(v.double().repeat_interleave(group, 0))
        hidden = torch.ones(n, length, dtype=torch.bool).triu(length - n + 1)
        scores[1] = scores[1].masked_fill(hidden, float("-inf"))
        weights = torch.cat(scores, dim=2).softmax(dim=2)
        return (weights @ torch.cat(values, dim=1)).to(query.dtype).transpose(0, 1)[None]


@torch.inference_mode()
def logits(stream: Any, slow: bool, **span: Any) -> Tensor:
    """Logits after every token of a prompt and of two tokens that follow it."""
    adapter = stream._runtime.adapter
    prompt: Prompt = stream._template.fitting("What is it?")
    context = stream._context(span.get("since"), span.get("until"))
    past = stream._past(context)
    embeds, words = prompt_input(adapter, prompt)
    vlm = stream._runtime
    retriever = stream._retriever(context, "What is it?")
    if slow:
        past = SlowResident(past, context)
    buffers = vlm.buffers.acquire()
    one_pass = RetrievalPass(context, vlm.rotary, words, retriever, past, 8, buffers)
    decoding = Decoding(adapter, vlm.rotary, one_pass, None)
    with hooks.attached(adapter.language_model):
        rows = adapter.lm_head(hooks.run(adapter, one_pass, embeds))
        return torch.cat([rows, *(decoding.step(token)[None] for token in (5, 9))])


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"key_bits": 1.5, "value_bits": 1.58},
        {"key_bits": 4, "value_bits": 4},
        {"codec": "vidkv", "group_size": 24},
        {"codec": "fitted", "protected_layers": [1], "transform": "fft"},
    ],
    ids=str,
)
def test_logits_are_those_of_decoded_keys_under_one_softmax(
    family: str, settings: dict[str, Any]
) -> None:
    with opened(small_vlm(family), **settings) as stream:
        torch.testing.assert_close(
            logits(stream, slow=False), logits(stream, slow=True), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl"])
@pytest.mark.parametrize("frames", [1, 5, FRAMES])
def test_the_past_stands_in_the_middle_between_the_recent_frames_and_the_windows_end(
    family: str, frames: int
) -> None:
    with opened(small_vlm(family), frames) as stream:
        context = stream._context(None, None)
        blocks = [*context.candidates, *context.recent]
        near = sum(int(block.layout.advance[0]) for block in context.recent)
        window = 6 // max(block.frames for block in blocks)
        beyond = min(len(context.candidates), window - len(context.recent))
        far = near + beyond * int(blocks[0].layout.advance[0])
        assert abs(stream._past(context).far.distance - (near + far) / 2) <= 1


@pytest.mark.parametrize("span", [{"until": 13.0}, {"since": 5.0, "until": 17.0}, {"since": 21.0}])
def test_since_and_until_hide_parts_of_pages(span: dict[str, float]) -> None:
    with opened(small_vlm("llava_onevision"), page_tokens=40) as stream:
        torch.testing.assert_close(
            logits(stream, slow=False, **span),
            logits(stream, slow=True, **span),
            atol=1e-4,
            rtol=1e-4,
        )


def test_frames_that_no_page_holds_yet_are_seen_too() -> None:
    vlm = small_vlm("llava_onevision")
    with opened(vlm, page_tokens=10_000, page_seconds=1e6) as stream:
        assert not stream._state.archive.snapshot().pages
        assert stream.stats().resident_bytes == 0
        torch.testing.assert_close(
            logits(stream, slow=False), logits(stream, slow=True), atol=1e-4, rtol=1e-4
        )


def test_the_past_grows_while_it_is_asked_about() -> None:
    vlm = small_vlm("llava_onevision")
    with opened(vlm) as stream:
        sizes = []
        for i in range(4):
            stream.feed(clip(8, seed=i), [FRAMES + 8.0 * i + j for j in range(8)])
            fast, slow = logits(stream, slow=False), logits(stream, slow=True)
            torch.testing.assert_close(fast, slow, atol=1e-4, rtol=1e-4)
            sizes.append(stream.stats().resident_bytes)
        assert sizes == sorted(sizes)
        assert sizes[0] > 0


def test_an_answer_under_way_sees_the_past_as_it_was() -> None:
    vlm = small_vlm("llava_onevision")
    with opened(vlm) as stream:
        alone = stream.ask("What is it?", max_new_tokens=8).token_ids
        reply = stream.ask_iter("What is it?", max_new_tokens=8)
        next(reply, None)
        stream.feed(clip(16, seed=9), [FRAMES + float(j) for j in range(16)])
        stream.ask("What is it?", max_new_tokens=1)  # brings the new pages over
        assert reply.finish().token_ids == alone


def test_what_the_archive_forgets_leaves_the_device() -> None:
    vlm = small_vlm("llava_onevision")
    with opened(vlm, max_ram=60_000) as stream:
        sizes = []
        for i in range(12):
            stream.feed(clip(16, seed=i), [FRAMES + 16.0 * i + j for j in range(16)])
            stream.ask("What is it?", max_new_tokens=1)
            sizes.append(stream.stats().resident_bytes)
        assert stream.stats().forgotten_frames > FRAMES
        assert max(sizes[6:]) <= 2 * max(sizes[:6])
        torch.testing.assert_close(
            logits(stream, slow=False), logits(stream, slow=True), atol=1e-4, rtol=1e-4
        )


def test_old_frames_change_the_answer_and_are_named() -> None:
    vlm = small_vlm("llava_onevision")
    config = {"window_frames": 6, "recent_frames": 2, "chunk_frames": 4}
    other = clip(FRAMES)
    other[:8] = 255 - other[:8]  # out of the window by the end, so seen through the past alone
    found = []
    for frames in (clip(FRAMES), other):
        with vlm.stream(mmkv.CacheConfig(retrieve_frames="all", **config)) as stream:
            stream.feed(frames, [float(i) for i in range(FRAMES)])
            found.append(logits(stream, slow=False))
            named = stream.ask("What is it?", max_new_tokens=1).frames
            assert {frame.recent for frame in named} == {True, False}
    assert not torch.allclose(*found, atol=1e-4)


@pytest.mark.parametrize("codec", ["fp16", "stp", "kivi"])
def test_codecs_that_cannot_be_attended_packed_are_refused(codec: str) -> None:
    with pytest.raises(ValueError, match=rf"retrieve_frames='all'.*'fitted' or 'vidkv'.*{codec}"):
        small_vlm("llava_onevision").stream(mmkv.CacheConfig(retrieve_frames="all", codec=codec))


def test_a_stored_stream_is_asked_the_same_way_again(tmp_path: Any) -> None:
    vlm = small_vlm("llava_onevision")
    with opened(vlm, store=tmp_path / "kv") as stream:
        told = stream.ask("What is it?", max_new_tokens=4, until=12.0).token_ids
    with vlm.open(tmp_path / "kv") as again:
        assert again.config.resident
        assert again.ask("What is it?", max_new_tokens=4, until=12.0).token_ids == told
