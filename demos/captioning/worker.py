"""The process that holds the model and captions one video after the other.

It is started by `supervisor` with a connection's descriptor, and may be killed at any moment. It
looks after its parent before it imports anything that takes time.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from logging import ERROR, getLogger
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from mmkv.demos.captioning.ahead import Ahead
from mmkv.demos.captioning.job import TINY, Failure, Job
from mmkv.demos.captioning.listing import Video
from mmkv.video import FrameSource, VideoError, open_source

if TYPE_CHECKING:
    from mmkv.demos.captioning.one_video import Report
    from mmkv.video_lm import VideoLM

OUT_OF_MEMORY = (
    "this machine's memory ran out; try a smaller --max-pixels or --window-frames, or fewer runs "
    "at once"
)
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "can't start new thread")
_REPORT_SECONDS = 0.25  # between reports of progress


def main(descriptor: int, parent: int) -> None:
    """Serve what arrives on the connection until it ends.

    Args:
        descriptor: the connection's file descriptor.
        parent: id of the process that started this one; this one ends with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run to handle
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    connection = Connection(descriptor)
    try:
        job: Job = connection.recv()
        vlm = _load(job, connection)
        if vlm is not None:
            _serve(vlm, job, connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # the run was killed: nobody wants the captions


def _load(job: Job, connection: Connection) -> VideoLM | None:
    from mmkv.cli.errors import in_words

    try:
        import torch
        from transformers.utils import logging

        from mmkv.demos.captioning.one_video import memory_for
        from mmkv.loading import load

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        if job.threads is not None:
            torch.set_num_threads(job.threads)
        elif job.model == TINY:  # so small that threads only cost time
            torch.set_num_threads(1)
        vlm = load(job.model, **job.loading)
        memory_for(vlm, job.settings)  # raises once, not for each video, if something is wrong
        if not job.debug:
            getLogger("mmkv").setLevel(ERROR)
            warnings.simplefilter("ignore")
    except Exception as error:
        if job.debug:
            traceback.print_exc()
        connection.send(("unfit", in_words(error, job.model)))
        return None
    connection.send(("ready", str(vlm.device)))
    return vlm


def _serve(vlm: VideoLM, job: Job, connection: Connection) -> None:
    ahead: Ahead | None = None
    while True:
        video, following = connection.recv()
        if ahead is not None and ahead.video != video:
            ahead.close()
            ahead = None
        taken, ahead = ahead, None
        if following is not None:
            with suppress(RuntimeError, MemoryError):  # no room for a thread
                ahead = Ahead(following, job.settings)
        connection.send(_one(vlm, job, video, taken, connection))


def _one(
    vlm: VideoLM, job: Job, video: Video, taken: Ahead | None, connection: Connection
) -> tuple[str, object]:
    from mmkv.cli.errors import in_words

    reported = 0.0

    def report(seconds: float, duration: float | None) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported >= _REPORT_SECONDS:
            reported = now
            connection.send(("at", (seconds, duration)))

    try:
        return "row", _row(vlm, job, video, _source(job, video, taken), report)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        if job.debug:
            traceback.print_exc()
        if host_memory_ran_out(error):
            return "failed", Failure("memory", OUT_OF_MEMORY)
        kind = "video" if isinstance(error, (VideoError, OSError)) else "error"
        _let_go(vlm)
        return "failed", Failure(kind, in_words(error))
    finally:
        if taken is not None:
            taken.close()


def _row(
    vlm: VideoLM, job: Job, video: Video, source: FrameSource, report: Report
) -> dict[str, Any]:
    from mmkv.demos.captioning.one_video import caption

    return job.row(video, caption(vlm, source, job.settings, on_progress=report))


def host_memory_ran_out(error: BaseException) -> bool:
    """Return whether an error, or what caused it, says that the host has no memory left.

    Args:
        error: as Python, torch's CPU allocator, the system or FFmpeg raise it.
    """
    from mmkv.cli.errors import chain

    for cause in chain(error):
        if isinstance(cause, MemoryError):
            return True
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return True
        text = str(cause).lower()
        if isinstance(cause, (RuntimeError, ValueError)) and any(t in text for t in _NO_MEMORY):
            return True
    return False


def _source(job: Job, video: Video, taken: Ahead | None) -> FrameSource:
    if taken is not None:
        return taken.take()
    settings = job.settings
    return open_source(video.path, fps=settings.fps, reader=settings.reader, live=settings.live)


def _let_go(vlm: VideoLM) -> None:
    """After an error that may have been a full device."""
    if vlm.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
