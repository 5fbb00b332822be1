"""What a stream has seen, for many threads: one at a time, in the order in which they came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmkv.answer.context import Context, capture
from mmkv.encode.frames import as_tensor, check_rising
from mmkv.encode.resume import Frame
from mmkv.encode.state import StreamState
from mmkv.engine import hooks
from mmkv.engine.fair_lock import FairLock
from mmkv.engine.runtime import ModelRuntime
from mmkv.session.stats import Stats, collect

if TYPE_CHECKING:
    from mmkv.store.retention import Limits


class LockedStreamState:
    """A `StreamState` while it is open; the model's hooks are in place meanwhile.

    Attributes:
        closed: whether `close` was called.
        last: the counters as they were then; None before.
    """

    def __init__(self, runtime: ModelRuntime, state: StreamState) -> None:
        self.closed = False
        self.last: Stats | None = None
        self._released = False
        self._runtime = runtime
        self._state = state
        self._lock = FairLock()
        self._hook = hooks.AttentionHook(runtime.adapter.language_model)

    def begin(self, limits: Limits | None) -> None:
        """Bring a store's past into the stream.

        Args:
            limits: continue writing the store within these; None: only read it.

        Raises:
            StoreError: the store cannot be read or written.
        """
        self.catch_up()
        if limits is not None:
            self._state.start_writing(limits)

    def push(self, frames: list[tuple[float, Any]]) -> None:
        """Encode `(seconds, uint8 [H, W, 3])` frames.

        Raises:
            ValueError: a time does not come after the last one, or the stream takes no frames.
        """
        self.check_writable()
        self._state.archive.make_room()  # unlocked: questions need not wait for a disk
        with self._lock.hold():
            self.check_open()
            span = self._state.span
            check_rising((seconds for seconds, _ in frames), None if span is None else span[1])
            ready: list[Frame] = [(s, as_tensor(f)) for s, f in frames]
            if ready:
                with self._runtime.lock.hold(), torch.inference_mode():
                    self._state.push(ready)

    def context(self, recent_frames: int, since: float | None, until: float | None) -> Context:
        """Return what a question asked now may see; arguments as in `capture`.

        Raises:
            ValueError: there is no frame in that span, or the stream is closed.
        """
        with self._lock.hold():
            self.check_open()
            with self._runtime.lock.hold(), torch.inference_mode():
                if self._state.reading:
                    self._state.catch_up()
                return capture(self._state, self._runtime.rotary, recent_frames, since, until)

    def catch_up(self) -> None:
        """Read what is in the store by now, unless this stream writes it.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._lock.hold():
            self.check_open()
            if self._state.reading:
                with self._runtime.lock.hold(), torch.inference_mode():
                    self._state.catch_up()

    def flush(self) -> None:
        """Pack what is waiting to be packed, and store it.

        Raises:
            StoreError: it cannot be stored.
        """
        with self._lock.hold():
            self.check_open()
            if not self._state.reading:
                self._state.flush()

    def close(self) -> None:
        """Flush, and release the model, the store and the past.

        A call that was interrupted may be repeated: it goes on where that one was.

        Raises:
            StoreError: not everything could be stored.
        """
        with self._lock.hold():
            if self._released:
                return
            try:
                if self._state.writing and not self.closed:
                    self._state.flush()
            finally:
                self.closed = True
                if self.last is None:
                    self.last = collect(self._state)
                self._state.close()
                self._hook.release()
                self._released = True

    def check_writable(self) -> None:
        """Raise ValueError if frames come from a store that another stream writes."""
        if self._state.reading:
            raise ValueError(
                "the stream was opened with mode='r' and takes no frames; open it with mode='a'"
            )

    def check_open(self) -> None:
        """Raise ValueError after `close`."""
        if self.closed:
            raise ValueError("the stream is closed; open a new one with VideoLM.stream()")
