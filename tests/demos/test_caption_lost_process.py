"""A captioning process that is killed, dies or runs out of memory; each costs at most its video.

Tried: killed once while it captions, every time, while it loads the model, every time then, and
between two videos; no memory left (an address-space limit); what out of memory looks like where it
is Python's, torch's, the system's, a thread's or only an effect of that; a progress report that
fails, which is not the process's fault.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from caption_clips import scenes, write_clip
from waiting import PATIENCE

from mmkv.demos.captioning.job import CaptioningError, Failure, Job
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.settings import Captioning
from mmkv.demos.captioning.supervisor import TRIES, Supervisor
from mmkv.demos.captioning.worker import host_memory_ran_out


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Video]:
    folder = tmp_path_factory.mktemp("videos")
    return [
        Video.of(str(write_clip(folder / f"{n}.mp4", scenes(20 * n, 2)))) for n in range(2)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def kept() -> Iterator[Supervisor]:
    with Supervisor(Job(Captioning(every=1, summary="")), stall=PATIENCE) as one:
        yield one


def number(supervisor: Supervisor) -> int:
    assert supervisor._process is not None
    return supervisor._process.pid


def killing(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, times: float) -> list[int]:
    """Kill so many of the processes that a video is given to; their numbers, as they are killed."""
    start, killed = supervisor.start, []

    def deadly() -> None:
        start()
        if len(killed) < times:
            killed.append(number(supervisor))
            os.kill(killed[-1], signal.SIGKILL)

    monkeypatch.setattr(supervisor, "start", deadly)
    return killed


def test_a_video_whose_process_is_killed_is_tried_again(
    kept: Supervisor, videos: list[Video], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = killing(kept, monkeypatch, times=1)
    found = kept.caption(videos[0])
    assert len(killed) == 1
    assert isinstance(found, dict)
    assert found["id"] == videos[0].id


def test_a_video_that_kills_every_process_is_given_up_and_the_next_one_works(
    kept: Supervisor, videos: list[Video], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as within:
        killed = killing(kept, within, times=float("inf"))
        failed = kept.caption(videos[0], following=videos[1])
    assert len(set(killed)) == TRIES
    assert isinstance(failed, Failure)
    assert failed.kind == "died"
    assert "was killed" in failed.reason
    assert isinstance(kept.caption(videos[1]), dict)


def test_a_process_that_is_killed_while_it_loads_is_started_again(
    kept: Supervisor, videos: list[Video], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.close()
    launched = dying_at_birth(kept, monkeypatch, times=1)
    assert isinstance(kept.caption(videos[0]), dict)
    assert len(launched) == 2


def test_a_process_that_is_killed_whenever_it_loads_ends_the_run(
    kept: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.close()
    launched = dying_at_birth(kept, monkeypatch, times=float("inf"))
    with pytest.raises(CaptioningError, match=r"was killed.* while loading it"):
        kept.start()
    assert len(launched) == TRIES
    assert not any(map(psutil.pid_exists, launched))


def dying_at_birth(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, times: float
) -> list[int]:
    """Kill so many processes before they have loaded anything."""
    import subprocess

    launched: list[int] = []

    class Dying(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            launched.append(self.pid)
            if len(launched) <= times:
                self.send_signal(signal.SIGKILL)

    monkeypatch.setattr("mmkv.demos.captioning.supervisor.subprocess.Popen", Dying)
    return launched


def test_without_memory_a_video_fails_with_that_reason_and_the_next_one_works(
    kept: Supervisor, videos: list[Video]
) -> None:
    kept.start()
    first = number(kept)
    room = psutil.Process(first).memory_info().vms + 2 * 2**20
    resource.prlimit(first, resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
    failed = kept.caption(videos[0])
    assert isinstance(failed, Failure)
    assert failed.kind == "memory", failed
    assert "memory ran out" in failed.reason
    assert isinstance(kept.caption(videos[1]), dict)
    assert number(kept) != first  # a process without memory is not kept


def chained(cause: Exception) -> Exception:
    error = ValueError("it could not be read")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("can't start new thread"), True),
        (chained(MemoryError()), True),
        (OSError(errno.ENOENT, "No such file or directory"), False),
        (RuntimeError("shape mismatch"), False),
        (RuntimeError("CUDA out of memory"), False),  # the device's, which is emptied
    ],
)
def test_out_of_memory_is_recognised(error: Exception, memory: bool) -> None:
    assert host_memory_ran_out(error) is memory


def test_a_report_that_fails_is_not_the_processs_fault(
    kept: Supervisor, videos: list[Video]
) -> None:
    def closed_terminal(seconds: float, duration: float | None) -> None:
        raise BrokenPipeError("nobody reads")

    report: Callable[[float, float | None], None] = closed_terminal
    with pytest.raises(BrokenPipeError):
        kept.caption(videos[0], report=report)
    kept.close()
