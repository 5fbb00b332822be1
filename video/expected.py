"""What PyAV knows of a file, which another reader has to agree with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmkv.video.header import Header
from mmkv.video.picture import Look, show
from mmkv.video.pyav_file import Job, read
from mmkv.video.repair import ends_early
from mmkv.video.source import Frame

TOLERANCE = 2e-3  # seconds; readers round to milliseconds, as containers do
_CONTRAST = 5.0  # grey levels between two pictures on average; decoders differ by less than 1


class Unfit(Exception):
    """Why a reader would not give a file's frames at their times: a clause."""


@dataclass(frozen=True)
class Expected:
    """The frames that a file shows, found without decoding more than the first.

    Attributes:
        job: how PyAV reads the file.
        header: what the container declares.
        times: seconds of each frame on a player's clock, float64 `[N]`, rising.
        until: seconds until which the last frame is shown; None: not said.
        first: the first frame as PyAV shows it.
        look: how frames are to be shown.
        hidden: packets that are decoded and not shown, because of an edit list.
    """

    job: Job
    header: Header
    times: NDArray[np.float64]
    until: float | None
    first: Frame
    look: Look
    hidden: int

    @property
    def end(self) -> float:
        """Seconds at which the last frame is over."""
        return self.until or float(self.times[-1]) + self.header.interval

    def ending(self) -> list[str]:
        """Warn of a file that ends before its declared length."""
        declared = self.header.duration if self.header.exact else None
        if declared is None or not ends_early(self.end, declared, self.header.interval):
            return []
        return [
            f"{self.job.name}: the file ends early at {self.end:.1f} s; {len(self.times)} frames "
            f"were read (it declares {declared:.1f} s)"
        ]

    def show(self, frame: Frame, max_side: int | None = None) -> Frame:
        """Make a reader's frame, RGB as stored, what PyAV shows."""
        return show(frame, self.look, max_side)

    def check_first(self, frame: Frame) -> None:
        """Compare a reader's first frame with PyAV's.

        Args:
            frame: RGB, as stored.

        Raises:
            Unfit: it is another picture, or has another size.
        """
        frame = self.show(frame)
        if frame.shape != self.first.shape:
            (h, w), (height, width) = frame.shape[:2], self.first.shape[:2]
            raise Unfit(f"the first frame has {w}×{h} pixels instead of {width}×{height}")
        if np.abs(frame.astype(np.int16) - self.first).mean() > _CONTRAST:
            raise Unfit("the first frame is another picture")

    def check_times(self, times: NDArray[np.float64]) -> None:
        """Compare the times in a reader's index with those of the packets.

        Args:
            times: seconds of each frame from any zero, float `[N]`.

        Raises:
            Unfit: there are more or fewer, or they are other times.
        """
        if len(times) != len(self.times):
            raise Unfit(f"{len(times)} frames are counted instead of {len(self.times)}")
        ours = self.times - self.times[0]
        # indices hold single-precision numbers
        if not (np.abs(times - times[0] - ours) <= TOLERANCE + 1e-6 * ours).all():
            raise Unfit("the frames have other times in its index")

    def find(self, seconds: float) -> int | None:
        """Return the index of the frame at a time on a player's clock; None if there is none."""
        after = int(np.searchsorted(self.times, seconds))
        near = [k for k in (after - 1, after) if 0 <= k < len(self.times)]
        best = min(near, key=lambda k: abs(self.times[k] - seconds))
        return best if abs(self.times[best] - seconds) <= TOLERANCE else None

    def rest(
        self,
        after: float,
        fps: float | None,
        max_side: int | None,
        warnings: list[str],
        stopped: threading.Event,
    ) -> Iterator[tuple[float, Frame]]:
        """Read with PyAV what another reader has not given.

        Args:
            after: seconds of the last frame that it gave; -inf for none.
            fps: frames per second to choose; None for all.
            max_side: larger frames are scaled down to this many pixels a side.
            warnings: gets what goes wrong.
            stopped: set to end reading.

        Yields:
            `(seconds, frame)` of the later ones.
        """
        job = replace(
            self.job,
            fps=fps,
            max_side=max_side,
            warnings=warnings,
            stopped=stopped,
            opened=threading.Event(),
        )
        yield from ((seconds, frame) for seconds, frame in read(job) if seconds > after)
        if job.error is not None:
            raise job.error
