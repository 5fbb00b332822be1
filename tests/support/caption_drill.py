"""Kills `mmkv caption` at random moments: python caption_drill.py FOLDER OUT ROUNDS SEED.

FOLDER has the videos; each round has its own output in OUT. The command and its captioning process
are forks of this one, which has imported everything and loaded the model, so that a round takes
seconds; everything else of them is real. After each kill the same command runs again, and what it
leaves is checked. Prints a line per round.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import psutil
import torch
from waiting import until

import mmkv
from mmkv import loading
from mmkv.demos.captioning import one_video, run, supervisor, worker  # noqa: F401
from mmkv.demos.captioning.listing import listed

WHO = ("command", "process", "both")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDED = {0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM, 128 + signal.SIGINT}


class Forked:
    """What the supervisor uses of `subprocess.Popen`, without loading everything again."""

    def __init__(self, command: list[str], *, pass_fds: tuple[int, ...], **_: Any) -> None:
        parent, self._code = os.getpid(), None
        self.pid = os.fork()
        if not self.pid:
            only((0, 1, 2, *pass_fds))
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a program that is executed
            to_the_end(lambda: worker.main(pass_fds[0], parent))

    def kill(self) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while self._code is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self._code = os.waitstatus_to_exitcode(status)
            elif end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("worker", timeout or 0.0)
            else:
                time.sleep(0.002)
        return self._code


def only(kept: tuple[int, ...]) -> None:
    """Close every other file, as a program that is executed does; a lock goes with its file."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:  # the folder's own
                continue


def to_the_end(work: Any) -> NoReturn:
    """Run to the end of this fork's life."""
    code = 0
    try:
        work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    os._exit(code)


def start(folder: Path, out: Path) -> int:
    """Start the command, its errors going to a file beside OUT's folder; its number."""
    pid = os.fork()
    if not pid:
        errors = os.open(told(out), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        only((0, 1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & had it ignored
        sys.argv = ["mmkv", "caption", str(folder), "--out", str(out), "--quiet"]
        sys.argv += ["--summary", "", "--format", "srt"]
        from mmkv.cli import main

        to_the_end(main)
    return pid


def told(out: Path) -> Path:
    return out.parent.with_suffix(".txt")


def family(pid: int) -> list[psutil.Process]:
    """The command, and its captioning process if there is one."""
    try:
        command = psutil.Process(pid)
        return [command, *command.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def strike(pid: int, who: str, number: signal.Signals) -> list[psutil.Process]:
    """Send a signal; returns the processes that were there."""
    there = family(pid)
    command, others = there[:1], there[1:]
    for one in {"command": command, "process": others, "both": [*others, *command]}[who]:
        try:
            one.send_signal(number)
        except psutil.NoSuchProcess:
            continue
    return there


def one_round(folder: Path, out: Path, draw: random.Random, usual: float) -> tuple[str, float]:
    """Kill a run and run again; returns what the kill left, and the second run's seconds."""
    who, number, moment = draw.choice(WHO), draw.choice(SIGNALS), draw.random() * usual
    first = start(folder, out)
    time.sleep(moment)
    there = strike(first, who, number)
    code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    said = told(out).read_text(encoding="utf-8")
    assert code in ENDED, (code, said)
    assert "Traceback" not in said, said
    until(lambda: not any(one.is_running() and one.status() != "zombie" for one in there))
    rows = whole(out)
    began = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(start(folder, out), 0)[1])
    assert code == 0, (code, told(out).read_text(encoding="utf-8"))
    complete(folder, out)
    left = "no row" if not rows else f"{rows} rows"
    return f"{who} {number.name} at {moment:.2f} of {usual:.2f} s: {left}", time.monotonic() - began


def whole(out: Path) -> int:
    """Check that what a killed run left is rows, the last one perhaps cut off; how many."""
    if not out.exists():
        return 0
    written, end, torn = out.read_bytes().rpartition(b"\n")
    assert all("segments" in json.loads(line) for line in written.splitlines())
    assert not torn or torn.startswith(b"{")
    return (written + end).count(b"\n")


def complete(folder: Path, out: Path) -> None:
    """Check that every video has one row and one subtitle file, and that nothing else is left."""
    wanted = sorted(video.id for video in listed([str(folder)], None))
    assert sorted(json.loads(line)["id"] for line in out.read_bytes().splitlines()) == wanted
    subtitles = out.with_name(f"{out.stem}-subtitles")
    found = {path for path in out.parent.rglob("*") if path.is_file()}
    others = found - {out, *subtitles.glob("[0-9]*.srt")}
    # a process that was killed twice leaves a failure, and its video is tried again
    assert others <= {out.with_name(f"{out.stem}.errors.jsonl")}, others
    assert len(list(subtitles.iterdir())) == len(wanted)


def main(folder: Path, out: Path, rounds: int, seed: int) -> None:
    """Kill so many runs."""
    torch.set_num_threads(1)
    model = mmkv.load("mmkv-tiny")
    loading.load = lambda *_, **__: model
    supervisor.subprocess = SimpleNamespace(  # type: ignore[attr-defined]
        Popen=Forked, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
    )
    draw, usual = random.Random(seed), 2.0
    for place in range(rounds):
        into = out / str(place)
        into.mkdir()
        line, usual = one_round(folder, into / "rows.jsonl", draw, usual)
        print(line, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
