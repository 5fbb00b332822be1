"""The process in which decord runs; started by `decord_file` by path, so it imports nothing here.

Decord can hang forever inside C, and its memory grows: a process of its own can be killed.

On the pipe, little endian: the number of frames (int64) and their times (float64 each). Then for
each frame asked for on stdin (a count, then indices, int64): index, height, width (int64 each) and
the RGB bytes; index -1 is the end, index -2 an error whose text has `height` bytes.
"""

import struct
import sys
from typing import Any, BinaryIO

HEAD = struct.Struct("<qqq")
END, ERROR = -1, -2


def main(path: str, descriptor: int) -> None:
    """Serve the frames of the file `path` on a pipe.

    Args:
        path: the file.
        descriptor: the pipe's file descriptor, open for writing.
    """
    _die_with_parent()
    with open(descriptor, "wb", buffering=0) as pipe:
        try:
            _serve(path, pipe)
        except BrokenPipeError:
            return
        except BaseException as error:  # the parent turns it into a sentence
            lines = str(error).strip().splitlines() or [type(error).__name__]
            if type(error).__name__ == "DECORDLimitReachedError":
                lines = ["it would show a frame again in place of one that it lost"]
            text = lines[-1].encode()[:500]
            _write(pipe, HEAD.pack(ERROR, len(text), 0) + text)


def _serve(path: str, pipe: BinaryIO) -> None:
    import decord
    import numpy as np

    # a tolerance just above 0: decord stops where it would repeat a frame in place of a lost one
    reader: Any = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1, fault_tol=1e-9)
    reader.get_frame_timestamp([0])
    times = np.ascontiguousarray(reader._frame_pts[:, 0], dtype="<f8")
    height, width = len(times), 0
    _write(pipe, HEAD.pack(0, height, width) + times.tobytes())
    (count,) = struct.unpack("<q", sys.stdin.buffer.read(8))
    chosen = np.frombuffer(sys.stdin.buffer.read(8 * count), dtype="<i8")
    position = -1
    for index in chosen.tolist():
        try:
            while position < index:  # not skip_frames: past a keyframe it skips too many
                frame = reader.next()
                position += 1
        except StopIteration:
            break
        frame = np.ascontiguousarray(frame.asnumpy(), dtype=np.uint8)
        if frame.shape[2] != 3:
            raise ValueError(f"its frames have {frame.shape[2]} channels instead of 3")
        _write(pipe, HEAD.pack(index, frame.shape[0], frame.shape[1]))
        _write(pipe, frame.data)
    _write(pipe, HEAD.pack(END, 0, 0))


def _write(pipe: BinaryIO, data: Any) -> None:
    left = memoryview(data).cast("B")
    while left:
        left = left[pipe.write(left) :]


def _die_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
