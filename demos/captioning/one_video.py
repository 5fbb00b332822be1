"""One video's captions: it is watched once; each segment is asked about while it is recent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from mmkv.config.cache import CacheConfig
from mmkv.demos.captioning.captions import Captions, Segment
from mmkv.demos.captioning.scenes import make_cutter
from mmkv.demos.captioning.segments import Spans
from mmkv.demos.captioning.settings import MEMORY, Captioning
from mmkv.encode.frames import chunks
from mmkv.session.stream import Stream
from mmkv.video import FrameSource, VideoError, open_source
from mmkv.video_lm import VideoLM

Report = Callable[[float, float | None], None]  # seconds reached, duration if known


def caption(
    vlm: VideoLM,
    video: Any,
    settings: Captioning | None = None,
    *,
    thumbnails: bool = False,
    on_progress: Report | None = None,
) -> Captions:
    """Caption a video: its segments, and then the whole.

    Args:
        vlm: the model.
        video: what `Stream.encode` takes, or an open `FrameSource`, which is closed. Sources
            without an end are refused.
        settings: None for the defaults.
        thumbnails: keep a small picture of each segment, for notebooks.
        on_progress: called with the seconds reached and the duration, at least once per token.

    Raises:
        VideoError: the video cannot be read, or has no end.
        ValueError: a setting is not allowed.
    """
    chosen = (settings or Captioning()).for_model(vlm.name)
    if isinstance(video, FrameSource):
        source = video
    else:
        source = open_source(video, fps=chosen.fps, reader=chosen.reader, live=chosen.live)
    with source:
        if source.live:
            raise VideoError(
                f"{source.name} has no end, so it cannot be captioned; "
                "`mmkv ask SOURCE QUESTION --every 5` watches it (--no-live: it does have an end)"
            )
        with vlm.stream(replace(memory_for(vlm, chosen), thumbnails=thumbnails)) as stream:
            return _Run(vlm, stream, source, chosen, on_progress).captions()


def memory_for(vlm: VideoLM, settings: Captioning) -> CacheConfig:
    """Choose the memory that captioning with this model uses.

    By default it is packed, unless the model's heads do not allow that.

    Raises:
        ValueError: the model cannot do what the settings ask for.
    """
    memory = settings.memory
    if memory == MEMORY and vlm.adapter.shape.head_dim % 16:
        memory = replace(memory, key_bits=None, value_bits=None)
    with vlm.stream(memory):
        return memory


class _Run:
    """The state of captioning one video."""

    def __init__(
        self,
        vlm: VideoLM,
        stream: Stream,
        source: FrameSource,
        settings: Captioning,
        report: Report | None,
    ) -> None:
        self._stream = stream
        self._source = source
        self._settings = settings
        self._report = report
        self._spans = Spans(make_cutter(settings), vlm.adapter.temporal_patch)
        self._done: list[tuple[tuple[float, float, int], str, bool, bytes | None]] = []
        self._timings = dict.fromkeys(("decode", "encode", "captions", "summary"), 0.0)
        self._at = 0.0

    def captions(self) -> Captions:
        began = time.perf_counter()
        count, times = 0, [0.0, 0.0]
        for chunk in self._timed(chunks(self._source, self._stream.config.chunk_frames)):
            started = time.perf_counter()
            self._stream.push(chunk)
            self._timings["encode"] += time.perf_counter() - started
            count, times = count + len(chunk), [*times, *(at for at, _ in chunk)][-2:]
            self._progress(times[-1])
            for seconds, frame in chunk:
                self._ask(self._spans.add(seconds, frame))
        if not count:
            raise VideoError(f"{self._source.name}: no frame could be read")
        self._ask(self._spans.rest())
        gap = times[1] - times[0] if count > 1 else 1.0 / self._settings.fps
        end = max(self._source.duration or 0.0, times[-1])
        end = end if end > times[-1] else times[-1] + gap
        summary = self._summary()
        self._timings["total"] = time.perf_counter() - began
        segments = self._segments(end)
        return Captions(
            name=self._source.name,
            caption=summary,
            segments=segments,
            duration=end,
            frames=count,
            bits_per_element=self._stream.stats().bits_per_element,
            warnings=tuple(self._warnings(segments)),
            timings=self._timings,
        )

    def _timed(self, frames: Iterator[Any]) -> Iterator[Any]:
        while True:
            started = time.perf_counter()
            item = next(frames, None)
            self._timings["decode"] += time.perf_counter() - started
            if item is None:
                return
            yield item

    def _ask(self, span: tuple[float, float, int] | None) -> None:
        """Caption a segment that has ended."""
        if span is None:
            return
        started = time.perf_counter()
        first, last, frames = span
        recent = min(frames, self._stream.config.window_frames)
        text, complete, thumbnail = self._answer(
            self._settings.prompt or "", since=first, until=last, recent_frames=recent
        )
        self._done.append((span, text, complete, thumbnail))
        self._timings["captions"] += time.perf_counter() - started

    def _summary(self) -> str:
        if not self._settings.summary:
            return ""
        started = time.perf_counter()
        text, self._whole, _ = self._answer(self._settings.summary, recent_frames=1)
        self._timings["summary"] = time.perf_counter() - started
        return text

    def _answer(self, question: str, **how: Any) -> tuple[str, bool, bytes | None]:
        reply = self._stream.ask_iter(question, max_new_tokens=self._settings.max_new_tokens, **how)
        with reply:
            for _ in reply:
                self._progress(self._at)
        answer = reply.answer
        seen = sorted(answer.frames, key=lambda frame: frame.index)
        thumbnail = seen[len(seen) // 2].thumbnail if seen else None
        return answer.text.strip(), answer.finish_reason != "length", thumbnail

    def _progress(self, seconds: float) -> None:
        self._at = seconds
        if self._report is not None:
            self._report(seconds, self._source.duration)

    def _segments(self, end: float) -> tuple[Segment, ...]:
        ends = [span[0] for span, *_ in self._done[1:]] + [end]
        return tuple(
            Segment(span[0], until, text, span[2], complete, thumbnail)
            for (span, text, complete, thumbnail), until in zip(self._done, ends, strict=True)
        )

    def _warnings(self, segments: tuple[Segment, ...]) -> Iterator[str]:
        yield from self._source.warnings
        cut = sum(not segment.complete for segment in segments)
        most = self._settings.max_new_tokens
        if cut:
            were = "caption was" if cut == 1 else "captions were"
            yield f"{cut} {were} cut off at {most} tokens (--max-new-tokens allows more)"
        if self._settings.summary and not self._whole:
            yield f"the summary was cut off at {most} tokens (--max-new-tokens allows more)"
