"""`mmkv caption` killed at random moments: after a rerun every video has its row, once.

Killed are the command, its captioning process, or both at once; by SIGKILL, SIGTERM or SIGINT;
while it starts, loads, captions, writes or ends. What must hold each time: lines that were written
are whole but for the last, no process stays behind, and after the same command again there is one
row and one subtitle file per video and no temporary file. Who, how and when comes from a seed; a
few rounds run always, thirty in the slow tests.

Tried beside that: two commands on one output at the same time, and two parts at the same time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from caption_clips import scenes, write_clip
from waiting import PATIENCE, until

from mmkv.demos.captioning.job import Job
from mmkv.demos.captioning.listing import listed
from mmkv.demos.captioning.output import Output
from mmkv.demos.captioning.run import resumed
from mmkv.demos.captioning.settings import Captioning

ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
COMMAND = [sys.executable, "-m", "mmkv", "caption", "--summary", "", "--quiet", "--format", "srt"]
VIDEOS = 3
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDED = {0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM, 128 + signal.SIGINT}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos")
    for number in range(VIDEOS):
        write_clip(path / f"{number}.mp4", scenes(20 * number, 3))
    return path


def start(folder: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [*COMMAND, str(folder), "--out", str(out), *more]
    return subprocess.Popen(command, env=ENV, stderr=subprocess.PIPE, text=True)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The command, and the processes that it has started."""
    try:
        command = psutil.Process(process.pid)
        return [command, *command.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def at(process: subprocess.Popen[str], out: Path, moment: float) -> None:
    """Wait for a moment of a run: up to 0.4 while it starts, later while it captions.

    What takes how long depends on the machine, so only a part of it is waited for by the clock.
    """
    running = process.poll
    if moment > 0.4:
        until(lambda: running() is not None or len(family(process)) > 1)
    if moment > 0.5:
        rows = int((moment - 0.5) / 0.5 * (VIDEOS + 1))
        until(
            lambda: (
                running() is not None
                or (out.exists() and out.read_bytes().count(b"\n") >= min(rows, VIDEOS))
            )
        )
    time.sleep(moment if moment < 0.4 else (10 * moment) % 1 * 0.5)


def strike(process: subprocess.Popen[str], who: str, number: signal.Signals) -> bool:
    """Send a signal; returns whether the captioning process was there."""
    command, *others = family(process) or [None]
    hit = {"command": [command], "process": others or [command], "both": [*others, command]}[who]
    for one in hit:
        try:
            if one is not None:
                one.send_signal(number)
        except psutil.NoSuchProcess:
            pass
    return bool(others)


def whole(out: Path) -> int:
    """Check what a killed run left; returns how many rows."""
    if not out.exists():
        return 0
    written, end, torn = out.read_bytes().rpartition(b"\n")
    assert all("segments" in json.loads(line) for line in written.splitlines())
    assert not torn or torn.startswith(b"{")
    return (written + end).count(b"\n")


def one_round(folder: Path, out: Path, who: str, number: signal.Signals, moment: float) -> str:
    """Kill one run, and run again; returns what the first run came to."""
    first = start(folder, out)
    at(first, out, moment)
    relatives = family(first)
    was_captioning = strike(first, who, number)
    _, told = first.communicate(timeout=PATIENCE)
    if number != signal.SIGKILL and was_captioning:
        assert "Traceback" not in told
    assert first.returncode in ENDED, (first.returncode, told)
    until(lambda: not any(one.is_running() and one.status() != "zombie" for one in relatives))
    rows = whole(out)
    again = start(folder, out)
    _, told = again.communicate(timeout=PATIENCE)
    assert (again.returncode, told) == (0, "")
    complete(folder, out)
    return "not begun" if not rows else "complete" if rows == VIDEOS else "some rows"


def complete(folder: Path, out: Path) -> None:
    """Every video has one row and one subtitle file, and nothing else is left."""
    ids = [json.loads(line)["id"] for line in out.read_text(encoding="utf-8").splitlines()]
    assert sorted(ids) == sorted(video.id for video in listed([str(folder)], None))
    subtitles = out.with_name(f"{out.stem}-subtitles")
    found = {path.name for path in out.parent.rglob("*") if path.is_file()}
    errors = {f"{out.stem}.errors.jsonl"}  # a process that was killed twice leaves a failure
    assert found - errors == {out.name, *(path.name for path in subtitles.glob("[0-9]*.srt"))}
    assert len(list(subtitles.iterdir())) == VIDEOS


def drawn(count: int, seed: int) -> list[tuple[str, signal.Signals, float]]:
    draw = random.Random(seed)
    who = ("command", "process", "both")
    return [(draw.choice(who), draw.choice(SIGNALS), draw.random()) for _ in range(count)]


@pytest.mark.parametrize(
    ("who", "number", "moment"),
    [("command", signal.SIGTERM, 0.66), ("both", signal.SIGKILL, 0.8)],
)
def test_after_a_kill_a_rerun_leaves_one_row_per_video(
    folder: Path, tmp_path: Path, who: str, number: signal.Signals, moment: float
) -> None:
    one_round(folder, tmp_path / "rows.jsonl", who, number, moment)


@pytest.mark.slow
def test_after_thirty_kills_reruns_leave_one_row_per_video(folder: Path, tmp_path: Path) -> None:
    came: Counter[str] = Counter()
    for place, (who, number, moment) in enumerate(drawn(30, seed=20)):
        into = tmp_path / str(place)
        into.mkdir()
        ended = one_round(folder, into / "rows.jsonl", who, number, moment)
        came[f"{who}, {number.name}, {ended}"] += 1
        print(f"{place}: {who} {number.name} at {moment:.2f}: {ended}", flush=True)
    print(dict(came))
    assert len({key.rpartition(", ")[2] for key in came}) == 3  # the moments were different ones


def test_a_killed_captioning_process_costs_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    run = start(folder, out)
    at(run, out, 0.66)
    assert strike(run, "process", signal.SIGKILL)
    _, told = run.communicate(timeout=PATIENCE)
    assert (run.returncode, told) == (0, "")
    complete(folder, out)


def test_two_commands_on_one_output_write_every_row_once(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    first, second = (start(folder, out) for _ in range(2))
    told = [run.communicate(timeout=PATIENCE)[1] for run in (first, second)]
    for run, said in zip((first, second), told, strict=True):
        if run.returncode:
            assert run.returncode == 1
            assert said.startswith("error: another run is writing")
            assert said.count("\n") == 1
    assert 0 in (first.returncode, second.returncode)
    complete(folder, out)


def test_two_parts_at_the_same_time_share_the_videos(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    parts = [start(folder, out, "--num-shards", "2", "--shard-index", str(i)) for i in range(2)]
    assert [part.communicate(timeout=PATIENCE)[1] for part in parts] == ["", ""]
    files = [tmp_path / f"rows-{i}-of-2.jsonl" for i in range(2)]
    rows = [json.loads(line)["path"] for f in files for line in f.read_text().splitlines()]
    assert sorted(Path(row).name for row in rows) == [f"{n}.mp4" for n in range(VIDEOS)]


def test_while_one_run_holds_the_output_another_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with Output(out) as held:
        assert resumed(listed([str(folder)], None), Job(Captioning()), held, "refuse")
        other = start(folder, out)
        _, told = other.communicate(timeout=PATIENCE)
    assert other.returncode == 1
    assert told.startswith(f"error: another run is writing {out}; ")
