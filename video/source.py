"""The contract between whatever makes frames and the engine that watches them."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # [H, W, 3], RGB, contiguous


class FrameSource(ABC):
    """Frames with their times, read once, in order.

    Iterating gives `(seconds, frame)`: a float that strictly increases, and a contiguous uint8
    RGB array `[H, W, 3]`. A source is read once; a second loop continues where the first stopped.

    Subclass it to bring frames from anywhere else::

        class Screen(FrameSource):
            name, live = "screen", True

            def __iter__(self):
                start = time.monotonic()
                while not self.closed:
                    yield time.monotonic() - start, grab_screen()

    `close` may be called from any thread while another one iterates: return from `__iter__` soon
    after `closed` turns true, and override `close` (calling `super().close()`) where there is
    something to release or to wake.

    Attributes:
        name: what to call the source in messages; never holds a password.
        duration: length in seconds as the source declares it; None where unknown. A hint, not a
            promise.
        live: True for sources that run in real time, whether or not anybody reads them.
        dropped: frames that a live source discarded because the reader was slower than the camera.
        warnings: one sentence for each thing that went wrong without stopping the reading.
    """

    name: str = "frames"
    duration: float | None = None
    live: bool = False
    dropped: int = 0
    warnings: list[str]
    _closing: threading.Event

    # In __new__, so that a subclass may leave out super().__init__().
    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self.warnings = []
        self._closing = threading.Event()
        return self

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        """Yield `(seconds, frame)` until the source ends or is closed."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing.is_set()

    def close(self) -> None:
        """Stop reading and release everything.

        May be called from any thread, any number of times.
        """
        self._closing.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        length = "live" if self.live else f"{self.duration:.3f} s" if self.duration else "?"
        return f"<{type(self).__name__} {self.name!r} {length}>"
