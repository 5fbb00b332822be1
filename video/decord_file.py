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
from typing import TYPE_CHECKING

import numpy as np

from mmkv.video.decord_worker import END, ERROR, HEAD
from mmkv.video.errors import VideoError
from mmkv.video.frames import check_size, shrink
from mmkv.video.queued import QueuedSource
from mmkv.video.readahead import ReadAhead
from mmkv.video.shown import Shown, ShownSampler, shown
from mmkv.video.source import Frame

if TYPE_CHECKING:
    from mmkv.video.expected import Expected

_WORKER = Path(__file__).with_name("decord_worker.py")


class DecordFile(QueuedSource):
    """A video file read by decord.

    Decord's frame count is never trusted: frames are read one after the other until there are no
    more, and the process is killed when none arrives for `watchdog` seconds. Where PyAV has looked
    at the file, times are those of its packets, and PyAV reads on where decord stops; elsewhere
    they are decord's own, counted from the first frame.

    Args:
        path: the file.
        name: what to call it in messages.
        fps: frames per second to choose; None for all.
        max_side: larger frames are scaled down to this many pixels a side.
        watchdog: seconds without a frame after which the process is killed.
        expected: what PyAV found in the file.

    Raises:
        VideoError: on opening, decord cannot read the file; while reading, it gives no frame.
        Unfit: it disagrees with what is expected.
    """

    def __init__(
        self,
        path: str,
        name: str,
        *,
        fps: float | None,
        max_side: int | None = None,
        watchdog: float = 30.0,
        expected: "Expected | None" = None,
    ) -> None:
        super().__init__(name)
        declared = until = None
        self._process = process = _Process(path, name, watchdog)
        try:
            times = process.times()
            if expected is not None:
                _check_index(times, expected)
                times, until = expected.times, expected.until
                declared = expected.header.duration
            pairs = zip(times.tolist(), range(len(times)), strict=True)
            chosen = list(shown(pairs, ShownSampler(fps, declared), lambda: until))
            process.ask([one.item for one in chosen])
            begun = None
            if expected is not None:
                begun = process.frame(0)
                if begun is None:
                    raise VideoError(f"{name}: decord decodes not a single frame of it")
                expected.check_first(begun)
        except BaseException:
            process.kill()
            raise
        gap = float(times[-1] - times[-2]) if len(times) > 1 else 0.0
        self.duration = float(times[-1]) + gap if expected is None else expected.end
        warnings, closing = self.warnings, self._closing
        show = shrink if expected is None else expected.show

        def produce() -> Iterator[tuple[float, Frame]]:
            count, last = 0, -np.inf
            try:
                for one, frame in process.frames(chosen, begun):
                    picture = show(frame, max_side)
                    count += 1
                    for last in one.times:
                        yield last, picture
                warnings.extend([] if expected is None else expected.ending())
                return
            except VideoError as error:
                if closing.is_set():
                    return
                if expected is None and not count:
                    raise
                cause = str(error).removeprefix(f"{name}: ")
            finally:
                process.kill()
            warnings.append(
                f"{name}: the file ends early at {last:.1f} s; {count} frames were read ({cause})"
                if expected is None
                else f"{name}: {cause}; PyAV read what comes after {max(last, 0):.1f} s"
            )
            if expected is not None:
                yield from expected.rest(last, fps, max_side, warnings, closing)

        self._start(ReadAhead(produce, name))

    def close(self) -> None:
        """Stop reading, and end decord's process."""
        self._closing.set()  # first, so that the end of the process is not reported
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
        if not np.isfinite(times).all() or not (np.diff(times) > 0).all():
            raise VideoError(
                f"{self.name}: decord does not know when its frames are shown; "
                'reader="pyav" finds out'
            )
        return times - times[0]

    def frames(
        self, chosen: list[Shown[int]], begun: Frame | None
    ) -> Iterator[tuple[Shown[int], Frame]]:
        """The chosen frames, in order; `begun` is the first where it has been read."""
        for number, one in enumerate(chosen):
            frame = begun if number == 0 and begun is not None else self.frame(one.item)
            if frame is None:
                raise VideoError(f"{self.name}: decord gives no more frames")
            yield one, frame

    def frame(self, index: int) -> Frame | None:
        """The next of the frames that were asked for, `index`; None if there are no more."""
        kind, height, width = self._head()
        if kind == ERROR:
            raise VideoError(f"{self.name}: decord stopped: {self._text(height)}")
        if kind == END:
            return None
        assert kind == index
        check_size(width, height, self.name)
        pixels = np.frombuffer(self._read(height * width * 3), dtype=np.uint8)
        return pixels.reshape(height, width, 3)

    def ask(self, indices: list[int]) -> None:
        """Have the frames with these indices, which rise, decoded and sent."""
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


def _check_index(times: np.ndarray, expected: "Expected") -> None:
    from mmkv.video.expected import Unfit

    if expected.header.leaps:
        raise Unfit("it has to seek to the first frame, which is a guess in this container")
    if expected.look.orientation != 1:
        raise Unfit("it would turn the pictures in its own way")
    if expected.hidden:
        raise Unfit("it knows no edit lists")
    expected.check_times(times)
