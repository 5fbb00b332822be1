"""A visitor's file, decoded in a process of its own, which has limits and can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmkv.demos.app.bounds import Bounds
from mmkv.demos.app.decoder import FRAME, HEAD
from mmkv.video import Frame, VideoError
from mmkv.video.frames import check_size
from mmkv.video.queued import QueuedSource
from mmkv.video.readahead import ReadAhead

PROGRAM = Path(__file__).with_name("decoder.py")
KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")  # no passwords

LONGEST = 1_000_000  # bytes of what it tells besides frames


class IsolatedFile(QueuedSource):
    """A video file whose decoding cannot take the server down.

    Args:
        path: where it is.
        name: what to call it in messages.
        fps: frames per second to choose; None for all.
        side: larger frames are scaled down to this many pixels a side.
        formats: containers that FFmpeg may read it as, separated by commas.
        bounds: what the decoding may take.

    Raises:
        VideoError: it cannot be opened within these bounds.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        fps: float | None,
        side: int,
        formats: str,
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__(name)
        self.warnings: list[str] = []
        asked = {"file": str(path), "name": name, "fps": fps, "side": side, "formats": formats}
        self._process = Decoder({**asked, "bounds": asdict(bounds or Bounds())}, name)
        try:
            self.duration = self._process.opened()
        except BaseException:
            self._process.kill()
            raise
        decoder, warnings = self._process, self.warnings
        self._start(ReadAhead(lambda: decoder.frames(warnings), name))

    def close(self) -> None:
        """Stop decoding, and end the process."""
        self._process.kill()
        super().close()


class Decoder:
    """A running process of `decoder.py`.

    Args:
        asked: what it is told.
        name: what to call the file in messages.
    """

    def __init__(self, asked: dict[str, Any], name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._out: Any = self._process.stdout
        given = {**asked, "path": [one or os.getcwd() for one in sys.path]}
        try:
            with self._process.stdin as told:
                told.write(json.dumps(given).encode() + b"\n")
        except OSError:  # it has ended already, as `opened` finds out
            return

    def opened(self) -> float | None:
        """Wait until the file is open.

        Returns:
            its declared length in seconds; None if unknown.

        Raises:
            VideoError: it cannot be opened.
        """
        (length,) = HEAD.unpack(self._exactly(HEAD.size))
        head = json.loads(self._exactly(min(length, LONGEST)))
        if head.get("error"):
            raise VideoError(head["error"])
        duration: float | None = head["duration"]
        return duration

    def frames(self, warnings: list[str]) -> Iterator[tuple[float, Frame]]:
        """Read what it decodes.

        Args:
            warnings: takes what went wrong without stopping the reading.

        Yields:
            `(seconds, frame)`.

        Raises:
            VideoError: it cannot go on.
        """
        try:
            while True:
                seconds, height, width = FRAME.unpack(self._exactly(FRAME.size))
                if height < 0:
                    last = json.loads(self._exactly(min(width, LONGEST)))
                    warnings.extend(last["warnings"])
                    if last["error"]:
                        raise VideoError(last["error"])
                    return
                check_size(width, height, self._name)
                pixels = np.frombuffer(self._exactly(height * width * 3), dtype=np.uint8)
                yield seconds, pixels.reshape(height, width, 3)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it, if it has not ended."""
        with self._lock:
            self._process.kill()
            self._process.wait()
        self._out.close()  # whoever reads it has seen its end

    def _exactly(self, size: int) -> bytearray:
        """Read so many bytes.

        Raises:
            VideoError: the process ended before.
        """
        data = bytearray(size)
        view, got = memoryview(data), 0
        stream: BinaryIO = self._out
        while got < size:
            try:
                count = stream.readinto(view[got:])  # type: ignore[attr-defined]
            except ValueError:  # closed
                count = 0
            if not count:
                raise VideoError(f"{self._name}: {self._why()}")
            got += count
        return data

    def _why(self) -> str:
        with self._lock:
            code = self._process.wait(5)
        if code == -signal.SIGXCPU:
            return "it takes more computing time than this server allows"
        return "it cannot be decoded within the memory that this server allows, or is damaged"
