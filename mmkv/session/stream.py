"""A stream: frames in, questions answered at any moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmkv.answer.answer import Answer, unknown_words
from mmkv.answer.context import Context
from mmkv.answer.generation import Generation
from mmkv.answer.make_retriever import make_retriever
from mmkv.answer.past import Past, Retrieved
from mmkv.answer.reply import Reply
from mmkv.answer.resident_pass import Resident
from mmkv.answer.resident_past import ResidentPast
from mmkv.answer.retriever import Retriever
from mmkv.codecs.salience import salience_of
from mmkv.config.resolved import ResolvedConfig
from mmkv.config.rules import check_span, check_whole, checked_recent
from mmkv.encode.frame_encoder import FrameEncoder
from mmkv.encode.frames import as_frames, as_times, check_rising
from mmkv.encode.proxy import proxy_of
from mmkv.encode.state import StreamState
from mmkv.engine.devices import layer_devices
from mmkv.engine.runtime import ModelRuntime
from mmkv.engine.sampling import Sampling
from mmkv.models.prompt import Template, Turn
from mmkv.retrieval.text_image import TextImage
from mmkv.session.locked_state import LockedStreamState
from mmkv.session.stats import Stats

if TYPE_CHECKING:
    from mmkv.answer.find import Moment
    from mmkv.codecs import Codec
    from mmkv.session.ask_every import AskEvery
    from mmkv.session.chat import Chat
    from mmkv.session.encode_source import Progress
    from mmkv.session.feed import Feed
    from mmkv.store import Store
    from mmkv.store.retention import Limits

log = logging.getLogger("mmkv")


class Stream:
    """One video stream on one model. `ask` and `stats` may be called from any thread.

    Made by `VideoLM.stream` or `VideoLM.open`; use it in a `with` block, or call `close`.
    """

    def __init__(
        self,
        runtime: ModelRuntime,
        config: ResolvedConfig,
        template: Template,
        codec: Codec,
        store: Store | None = None,
        encoder: TextImage | None = None,
    ) -> None:
        self._runtime = runtime
        self.config = config
        self._template = template
        self._encoder = encoder
        self._vectors: dict[int, Tensor] = {}  # of blocks, by the encoder
        proxy = proxy_of(config, runtime.adapter, template)
        salience = salience_of(codec, runtime.adapter, template, config.focus)
        frame_encoder = FrameEncoder(
            runtime.adapter, runtime.rotary, template.prefix, config, encoder, proxy, salience
        )
        self._state = StreamState(frame_encoder, config, codec, store)
        self._resident = None
        if config.resident:
            self._resident = ResidentPast(
                codec, runtime.adapter.shape, layer_devices(runtime.adapter)
            )
        self._locked = LockedStreamState(runtime, self._state)
        self._feeds: list[Feed] = []

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        last = self.seconds
        at = "no frames yet" if last is None else f"{self._state.frames} frames to {last:.1f} s"
        return f"<Stream of {self._runtime.name}: {at}, {state}>"

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop feeds, flush, and release the model and the store; answers under way still finish.

        Raises:
            StoreError: not everything could be stored.
        """
        for feed in self.feeds:
            feed.stop()
        self._locked.close()
        self._resident = None
        self._vectors.clear()

    def flush(self) -> None:
        """Return when everything seen so far is stored and would survive a power cut.

        Without a store: pack what is waiting to be packed.

        Raises:
            StoreError: it cannot be stored.
        """
        self._locked.flush()

    def encode(
        self,
        source: Any,
        *,
        fps: float | None = 1.0,
        reader: str = "auto",
        live: bool | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Progress:
        """Encode a source to its end. Its times continue the stream's.

        Args:
            source: a file, a folder of images, an address, an array, an iterator of frames or of
                `(seconds, frame)`, or a `FrameSource`.
            fps: frames per second taken, by presentation time; None takes every frame.
            reader: "auto", "pyav", "decord" or "opencv".
            live: whether an address is a live stream; None finds out (`mmkv.video.recording`).
            on_progress: called after every chunk.

        Returns:
            what was encoded.

        Raises:
            ValueError: the source cannot be read; frames read before stay in the stream.
        """
        from mmkv.session.encode_source import encode

        return encode(self, source, fps, reader, on_progress, live)

    def feed(
        self,
        frames: np.ndarray | Tensor,
        times: float | Sequence[float],
        *,
        channels: Literal["rgb", "bgr"] = "rgb",
    ) -> None:
        """Encode frames that are already in memory.

        Args:
            frames: uint8 `[N, H, W, 3]`, or one `[H, W, 3]`.
            times: of each, in seconds.
            channels: their order.

        Raises:
            ValueError: shape, type or times are wrong, or a time does not come after the last one.
        """
        stack = as_frames(frames, channels)
        seconds = as_times(times, len(stack))
        check_rising(seconds)  # all of them, before the first chunk is encoded
        pairs = list(zip(seconds, stack, strict=True))
        for at in range(0, len(pairs), self.config.chunk_frames):
            self.push(pairs[at : at + self.config.chunk_frames])

    def start(
        self,
        source: Any,
        *,
        fps: float | None = 1.0,
        reader: str = "auto",
        live: bool | None = None,
    ) -> Feed:
        """Encode a source, live or not, in a thread of its own; arguments as in `encode`.

        Returns:
            the feed, at once.

        Raises:
            ValueError: the source cannot be read, or the stream is closed or takes no frames.
        """
        from mmkv.session.feed import Feed

        self._locked.check_open()
        self._locked.check_writable()
        feed = Feed(self, source, fps=fps, reader=reader, live=live)
        self._feeds = [*(one for one in self._feeds if one.running), feed]
        return feed

    def ask(self, question: str, **options: Any) -> Answer:
        """Answer a question from what has been seen so far. The question leaves no trace.

        Args:
            question: any text.
            options: `max_new_tokens`, `temperature`, `top_p` and `seed` as in `Sampling`; `since`
                and `until`, seconds: only frames in between are used (where a model takes frames
                in pairs, the second frame decides); `recent_frames`, how many of the newest of
                these frames every layer sees, by default as configured.

        Raises:
            ValueError: no frames to answer from, or an option is out of range.
        """
        return self.ask_iter(question, **options).finish()

    def ask_iter(
        self,
        question: str,
        *,
        since: float | None = None,
        until: float | None = None,
        recent_frames: int | None = None,
        history: Sequence[Turn] = (),
        **sampling: Any,
    ) -> Reply:
        """Like `ask`, but yield the text as it is generated."""
        asked = time.perf_counter()
        options = Sampling(**sampling)
        prompt = self._template.fitting(question, history)
        context = self._context(since, until, recent_frames)
        retriever, past = self._retriever(context, question), self._past(context)
        room = options.max_new_tokens
        generation = Generation(self._runtime, context, prompt, retriever, past, room)
        return Reply(generation, options, asked).start()

    def find(
        self, text: str, k: int = 5, *, since: float | None = None, until: float | None = None
    ) -> tuple[Moment, ...]:
        """Find the moments that match a text best, best first, without generating anything.

        Args:
            text: what to look for, such as "a person at the door".
            k: most moments to return.
            since: seconds; only frames from here on are looked at.
            until: seconds; only frames up to here are looked at.

        Raises:
            ValueError: there are no frames, an option is out of range, or the stream's score
                does not compare frames with a text.
        """
        from mmkv.answer.find import check_can_find, find

        check_can_find(self.config.score)
        check_whole("k", k, 1)
        prompt = self._template.fitting(text, name="text")
        context = self._context(since, until)
        if prompt.unknown:
            log.warning("%s", unknown_words(prompt.unknown))
        retriever = self._retriever(context, text)
        return find(Generation(self._runtime, context, prompt, retriever, Retrieved()), k)

    def ask_every(
        self, question: str, seconds: float, *, span: float | None = None, **options: Any
    ) -> AskEvery:
        """Answer one question again and again, while a source is watched or frames are fed.

        Args:
            question: any text.
            seconds: of the stream's time between two answers.
            span: an answer looks back this many seconds; None: at everything.
            options: see `ask`, without `since` and `until`.

        Returns:
            an iterator that waits for each answer and ends with the source, or when its `close` is
            called, from any thread. It counts the moments that a slow model made it skip.

        Raises:
            ValueError: an option is out of range.
        """
        from mmkv.session.ask_every import AskEvery

        return AskEvery(self, question, seconds, span=span, **options)

    def chat(self, *, max_turns: int = 8) -> Chat:
        """Begin a conversation about this stream; several may be held at once."""
        from mmkv.session.chat import Chat

        return Chat(self, max_turns=max_turns)

    def stats(self) -> Stats:
        """Return the counters as they are now; after `close`, as they were at its end."""
        from mmkv.session.stats import collect

        answers, resident = self._runtime.buffers.nbytes, self._resident
        held = 0 if resident is None else resident.nbytes
        counted = self._locked.last or collect(self._state)
        return replace(counted, resident_bytes=held, answer_bytes=answers)

    @property
    def feeds(self) -> list[Feed]:
        """Sources that are being watched in the background, or the last one that was."""
        return list(self._feeds)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._locked.closed

    @property
    def seconds(self) -> float | None:
        """Time of the newest frame; None before the first."""
        span = self._state.span
        return None if span is None else span[1]

    def push(self, frames: Iterable[tuple[float, np.ndarray]]) -> None:
        """Encode checked `(seconds, uint8 [H, W, 3])` frames as one chunk."""
        self._locked.push(list(frames))

    def continue_from(self, seconds: float, fps: float | None) -> float:
        """Return what to add to the times of a source that begins at `seconds`, to follow on."""
        last = self.seconds
        if last is None or seconds > last:
            return 0.0
        return last - seconds + (1.0 / fps if fps else 1.0)

    def _context(
        self, since: float | None, until: float | None, recent_frames: int | None = None
    ) -> Context:
        """Return what a question asked now may see."""
        recent = checked_recent(recent_frames, self.config)
        check_span(since, until)
        return self._locked.context(recent, since, until)

    def _past(self, context: Context) -> Past:
        """Return how an answer reaches what is older than its recent frames."""
        resident = self._resident  # once: another thread may close the stream
        if resident is None:
            if self.config.resident:
                self._locked.check_open()
            return Retrieved(self.config.answer_keep_ratio)
        window, runtime = self._state.window, self._runtime
        with runtime.lock.hold(), torch.inference_mode():
            far = resident.see(context, None if window is None else window.far_distance)
        return Resident(far, runtime.rotary, runtime.adapter.axes)

    def _retriever(self, context: Context, text: str) -> Retriever:
        patch = self._runtime.adapter.temporal_patch
        return make_retriever(self.config, context, patch, text, self._encoder, self._vectors)

    def begin(self, limits: Limits | None) -> None:
        """Bring a store's past into the stream; with `limits`, continue writing it within them."""
        self._locked.begin(limits)

    def catch_up(self) -> None:
        """Read what the process that writes the store has flushed by now; questions do so anyway.

        Raises:
            StoreError: the store cannot be read.
        """
        self._locked.catch_up()
