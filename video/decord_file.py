"""Video files through decord, in a process that is killed when it hangs."""

import os
import re
import selectors
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmkv.video.decord_worker import END, ERROR, HEAD
from mmkv.video.errors import VideoError
from mmkv.video.frames import check_size, shrink
from mmkv.video.queued import QueuedSource
from mmkv.video.readahead import ReadAhead
from mmkv.video.shown import Shown, ShownSampler, shown
from mmkv.video.source import Frame

_WORKER = Path(__file__).with_name("decord_worker.py")


class DecordFile(QueuedSource):
    """A video file read by decord; times are decord's own, counted from the first frame.

    Decord's frame count is never trusted: frames are read one after the other until there are no
    more, and the process is killed when none arrives for `watchdog` seconds.

    Args:
        path: the file.
        name: what to call it in messages.
        fps: frames per second to choose; None for all.
        max_side: larger frames are scaled down to this many pixels a side.
        watchdog: seconds without a frame after which the process is killed.

    Raises:
        VideoError: on opening, decord cannot read the file; while reading, it gives no frame.
    """

    def __init__(
        self,
        path: str,
        name: str,
        *,
        fps: float | None,
        max_side: int | None = None,
        watchdog: float = 30.0,
    ) -> None:
        super().__init__(name)
        self._process = process = _Process(path, name, watchdog)
        try:
            times = process.times()
        except BaseException:
            process.kill()
            raise
        self.duration = float(times[-1]) + (float(times[-1] - times[-2]) if len(times) > 1 else 0)
        warnings = self.warnings

        def produce() -> Iterator[tuple[float, Frame]]:
            try:
                for seconds, frame in process.frames(times, fps, warnings):
                    yield seconds, shrink(frame, max_side)
            finally:
                process.kill()

        self._start(ReadAhead(produce, name))

    def close(self) -> None:
        """Stop reading, and end decord's process."""
        self._process.kill()
        super().close()


class _Process:
    """The worker and the pipe from it."""

    def __init__(self, path: str, name: str, watchdog: float) -> None:
        self.name = name
        self._path = path
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._killed = False
        self._pipe, theirs = os.pipe()
        try:
            self._worker = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER), path, str(theirs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs,),
            )
        finally:
            os.close(theirs)

    def kill(self) -> None:
        """End the worker now; from any thread, any number of times."""
        with self._lock:
            if self._killed:
                return
            self._killed = True
            self._worker.kill()
            self._worker.wait()
            if self._worker.stdin is not None:
                self._worker.stdin.close()

    def times(self) -> np.ndarray:
        """Each frame's time in seconds from the first one, as decord's index has them."""
        kind, count, _ = self._head()
        if kind == ERROR:
            raise VideoError(f"{self.name}: decord cannot read it: {self._text(count)}")
        if count <= 0:
            raise VideoError(f"{self.name}: decord finds no frames in it")
        times = np.frombuffer(self._read(8 * count), dtype="<f8")
        return times - times[0]

    def frames(
        self, times: np.ndarray, fps: float | None, warnings: list[str]
    ) -> Iterator[tuple[float, Frame]]:
        """The chosen frames, for as long as they arrive."""
        chosen = _choose(times, fps)
        self._ask([one.item for one in chosen])
        count, cause, last = 0, "", 0.0
        for one in chosen:
            try:
                frame = self._frame(one.item)
            except VideoError as error:
                cause = str(error).removeprefix(f"{self.name}: ")
                break
            if frame is None:
                break
            count += 1
            for seconds in one.times:
                last = seconds
                yield seconds, frame
        if self._killed or count == len(chosen):
            return
        if not count:
            cause = cause or "decord decodes not a single frame of it"
            raise VideoError(f"{self.name}: {cause}")
        warnings.append(
            f"{self.name}: the file ends early at {last:.1f} s; "
            f"{count} frames were read" + (f" ({cause})" if cause else "")
        )

    def _frame(self, index: int) -> Frame | None:
        kind, height, width = self._head()
        if kind == ERROR:
            raise VideoError(f"{self.name}: decord stopped: {self._text(height)}")
        if kind == END:
            return None
        assert kind == index
        check_size(width, height, self.name)
        pixels = np.frombuffer(self._read(height * width * 3), dtype=np.uint8)
        return pixels.reshape(height, width, 3)

    def _ask(self, indices: list[int]) -> None:
        stdin = self._worker.stdin
        assert stdin is not None
        try:
            stdin.write(struct.pack(f"<q{len(indices)}q", len(indices), *indices))
            stdin.flush()
        except (OSError, ValueError):  # the worker is gone: reading will say so
            return

    def _head(self) -> tuple[int, int, int]:
        kind, first, second = HEAD.unpack(self._read(HEAD.size))
        return int(kind), int(first), int(second)

    def _text(self, size: int) -> str:
        """What decord says, without its time stamps, source lines and repeated path."""
        text = self._read(size).decode(errors="replace").replace(self._path, "the file")
        parts = re.split(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", text)
        return parts[-1].strip() or "no reason given"

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._pipe, selectors.EVENT_READ)
            while view:
                if not waiting.select(self._watchdog):
                    raise VideoError(
                        f"{self.name}: decord gave no frame for {self._watchdog:g} s and was "
                        'stopped; reader="pyav" reads more files'
                    )
                got = os.readv(self._pipe, [view])
                if got == 0:
                    raise VideoError(f'{self.name}: decord died on it; try reader="pyav"')
                view = view[got:]
        return data

    def __del__(self) -> None:
        if hasattr(self, "_worker"):
            self.kill()
        os.close(self._pipe)


def _choose(times: np.ndarray, fps: float | None) -> list[Shown[int]]:
    """Indices of the frames that the sampling rule picks, with the times that they stand for."""
    sampler: ShownSampler[int] = ShownSampler(fps)
    return list(shown(_rising(times), sampler, lambda: None))


def _rising(times: np.ndarray) -> Iterator[tuple[float, int]]:
    last = -np.inf
    for index, seconds in enumerate(times.tolist()):
        if seconds > last:  # also leaves out NaN
            last = seconds
            yield seconds, index
