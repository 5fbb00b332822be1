"""The process in which one visitor's file is opened and decoded; started by `isolated`.

It ends when the server does, since nobody reads what it writes, or else by its bounds. (The signal
that Linux sends when a parent ends would come when the thread that started it does.)

On stdin: a JSON object with the path to import from, the file, its name, the rate, and the bounds.
On stdout, little endian: one head (length, JSON) once the file is open or has failed; then frames:
seconds (float64), height, width (int64), RGB bytes; and a last one of height -1, whose width is the
length of the JSON object after it.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from mmkv.demos.app.bounds import Bounds
    from mmkv.video.pyav_file import Job

HEAD = struct.Struct("<q")
FRAME = struct.Struct("<dqq")


def main(asked: dict[str, Any], out: BinaryIO) -> None:
    """Serve the frames of a file.

    Args:
        asked: `file`, `name`, `fps`, `side`, `formats` and `bounds`.
        out: where they go.
    """
    from mmkv.demos.app.bounds import Bounds
    from mmkv.video import VideoError
    from mmkv.video.pyav_file import Job, read

    bounds = Bounds(**asked["bounds"])
    bounds.begin()
    options = {"format_whitelist": asked["formats"], "max_streams": str(bounds.streams + 1)}
    name = asked["name"]
    job = Job(f"file:{asked['file']}", name, asked["fps"], asked["side"], options=options)
    error = ""
    told = False
    try:
        check(job, bounds)
        for seconds, frame in read(job):
            if not told:
                tell(out, {"duration": None if job.header is None else job.header.duration})
                told = True
            out.write(FRAME.pack(seconds, *frame.shape[:2]))
            out.write(frame.data)
            out.flush()
            bounds.extend()
    except VideoError as caught:
        error = str(caught)
    except MemoryError:
        error = f"{name}: it takes more memory than this server allows"
    if not told:
        told_error = str(job.error) if job.error is not None else error
        duration = None if job.header is None else job.header.duration
        tell(out, {"error": told_error} if told_error else {"duration": duration})
    text = json.dumps({"error": error, "warnings": job.warnings}).encode()
    out.write(FRAME.pack(0.0, -1, len(text)) + text)
    out.flush()


def check(job: Job, bounds: Bounds) -> None:
    """Refuse a file for what it declares, before anything is decoded.

    Raises:
        VideoError: it has too many streams, its frames are too large, or it cannot be opened.
    """
    from mmkv.video import VideoError
    from mmkv.video.container import open_container

    with open_container(
        job.address, job.name, protocols=job.protocols, options=job.options
    ) as container:
        count = len(container.streams)
        if count > bounds.streams:
            raise VideoError(
                f"{job.name}: it has {count} tracks or more; at most {bounds.streams} are read"
            )
        for stream in container.streams.video:
            width, height = stream.width or 0, stream.height or 0
            if width * height > bounds.pixels:
                raise VideoError(
                    f"{job.name}: a frame of {width}×{height} pixels is too large; at most "
                    f"{bounds.pixels // 10**6} million are read: scale the video down first"
                )


def tell(out: BinaryIO, head: dict[str, Any]) -> None:
    """Write the head."""
    text = json.dumps(head).encode()
    out.write(HEAD.pack(len(text)) + text)
    out.flush()


if __name__ == "__main__":
    given = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = given.pop("path")
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no frame
    try:
        main(given, pipe)
    except BrokenPipeError:
        os._exit(0)
