"""Who watches and asks in a soak: frames, with a note of what they show, and questions."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import numpy as np

import mmkv
from benchmarks.soak_camera import FPS, pictures, shown
from mmkv.video import FrameSource, Reconnect, open_source

QUESTION = "what is at the top left now?"
KNOWN = 4000  # newest frames whose pictures are remembered


class Noted(FrameSource):
    """The camera's frames, with a note of what each showed.

    Attributes:
        seen: pairs of a time in the source and the object shown then, None where it is unclear.
    """

    name, live = "soak camera", True

    def __init__(self, address: str) -> None:
        policy = Reconnect(first_wait=0.2, max_wait=1.0)
        self.inner: Any = open_source(address, fps=FPS, timeout=2.0, reconnect=policy)
        self.seen: deque[tuple[float, str | None]] = deque(maxlen=KNOWN)
        self._known = pictures()

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        for seconds, frame in self.inner:
            self.seen.append((seconds, shown(frame, self._known)))
            yield seconds, frame

    def close(self) -> None:
        """Stop, and close the connection."""
        super().close()
        self.inner.close()


class Asker:
    """Asks in a thread, and counts what came of it.

    Attributes:
        counts: right, wrong, unclear (what the camera showed is not known), gone (no frames left
            of that moment), failed.
        failures: the first wrong answers and unexpected errors, in words.
    """

    def __init__(self, stream: mmkv.Stream, source: Noted, seed: int, pause: float) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stream, self._source, self._pause = stream, source, pause
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak asker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the question under way."""
        self._stop.set()
        self._thread.join(60)
        if self._thread.is_alive():
            self.fail("a question did not return within 60 s")

    def _run(self) -> None:
        while not self._stop.wait(self._pause * self._rng.random()):
            noted = list(self._source.seen)[:-1]  # the newest may not be encoded yet
            if not noted:
                continue
            back = min(len(noted), int(self._rng.expovariate(1 / 60)) + 1)
            seconds, truth = noted[-back]
            try:
                answer = self._stream.ask(QUESTION, until=seconds + 1e-6, max_new_tokens=6)
            except ValueError as error:
                self.counts["gone"] += 1
                if "no frames" not in str(error):
                    self.fail(f"{type(error).__name__}: {error}")
                continue
            except Exception as error:
                self.fail(f"{type(error).__name__}: {error}")
                continue
            if truth is None or abs(answer.as_of - seconds) > 1e-3:
                self.counts["unclear"] += 1
            elif answer.text == truth:
                self.counts["right"] += 1
            else:
                self.counts["wrong"] += 1
                self._note(f"at {seconds:.2f} s: {answer.text!r}, not {truth!r}")

    def fail(self, text: str) -> None:
        """Count what should not have happened, in words."""
        self.counts["failed"] += 1
        self._note(text)

    def _note(self, text: str) -> None:
        if len(self.failures) < 10:
            self.failures.append(text)
