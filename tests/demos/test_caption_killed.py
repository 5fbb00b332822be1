"""`mmkv caption` killed at random moments: after a rerun every video has its row, once.

Killed are the command, its captioning process, or both at once; by SIGKILL, SIGTERM or SIGINT; at
any moment between start and end. What must hold each time: lines that were written are whole but
for the last, no process stays behind, and after the same command again there is one row and one
subtitle file per video and no temporary file (`caption_drill.py`, whose commands are forks). Who,
how and when comes from a seed; a few rounds run always, thirty in the slow tests.

Tried beside that: commands that are started from nothing, killed while they caption; two on one
output at the same time; two parts at the same time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from caption_clips import scenes, write_clip
from waiting import PATIENCE, until

import mmkv
from mmkv.demos.captioning.listing import listed
from mmkv.demos.captioning.output import Output

DRILL = Path(__file__).parent.parent / "support" / "caption_drill.py"
ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
COMMAND = [sys.executable, "-m", "mmkv", "caption", "--summary", "", "--quiet", "--format", "srt"]
VIDEOS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos")
    for number in range(VIDEOS):
        write_clip(path / f"{number}.mp4", scenes(20 * number, 3))
    return path


def drill(folder: Path, out: Path, rounds: int, seed: int) -> list[str]:
    """What each round says it did, and what the kill left."""
    paths = [str(Path(mmkv.__file__).parent.parent), str(DRILL.parent)]
    done = subprocess.run(
        [sys.executable, str(DRILL), str(folder), str(out), str(rounds), str(seed)],
        env={**ENV, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_after_a_few_kills_reruns_leave_one_row_per_video(folder: Path, tmp_path: Path) -> None:
    assert len(drill(folder, tmp_path, rounds=4, seed=1)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20, 21])
def test_after_thirty_kills_reruns_leave_one_row_per_video(
    folder: Path, tmp_path: Path, seed: int
) -> None:
    rounds = drill(folder, tmp_path, rounds=15, seed=seed)
    print("\n".join(rounds))
    assert len(rounds) == 15
    assert len({said.rpartition(": ")[2] for said in rounds}) > 1  # the moments were different


def start(folder: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [*COMMAND, str(folder), "--out", str(out), *more]
    return subprocess.Popen(command, env=ENV, stderr=subprocess.PIPE, text=True)


def rows(out: Path) -> list[str]:
    return [json.loads(line)["id"] for line in out.read_text(encoding="utf-8").splitlines()]


def wanted(folder: Path) -> list[str]:
    return sorted(video.id for video in listed([str(folder)], None))


def captioning(run: subprocess.Popen[str], out: Path) -> list[psutil.Process]:
    """Wait for the first row; the run's captioning process."""
    until(lambda: run.poll() is not None or (out.exists() and b"\n" in out.read_bytes()))
    return psutil.Process(run.pid).children(recursive=True)


@pytest.mark.slow
def test_a_killed_captioning_process_costs_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    run = start(folder, out)
    (process,) = captioning(run, out)
    process.kill()
    _, said = run.communicate(timeout=PATIENCE)
    assert (run.returncode, said) == (0, "")
    assert sorted(rows(out)) == wanted(folder)


@pytest.mark.slow
def test_a_command_that_is_asked_to_end_says_so_and_leaves_no_process(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    run = start(folder, out)
    (process,) = captioning(run, out)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 128 + signal.SIGTERM
    assert said.endswith("run the same command to resume\nstopped\n")
    assert said.count("\n") == 2
    until(lambda: not process.is_running())
    assert set(rows(out)) < set(wanted(folder))


def test_two_commands_on_one_output_write_every_row_once(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    both = [start(folder, out) for _ in range(2)]
    for run in both:
        _, said = run.communicate(timeout=PATIENCE)
        if run.returncode:
            assert run.returncode == 1
            assert said.startswith("error: another run is writing")
            assert said.count("\n") == 1
    assert 0 in [run.returncode for run in both]
    assert sorted(rows(out)) == wanted(folder)


@pytest.mark.slow
def test_two_parts_at_the_same_time_share_the_videos(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    parts = [start(folder, out, "--num-shards", "2", "--shard-index", str(i)) for i in range(2)]
    assert [part.communicate(timeout=PATIENCE)[1] for part in parts] == ["", ""]
    found = [id for i in range(2) for id in rows(tmp_path / f"rows-{i}-of-2.jsonl")]
    assert sorted(found) == wanted(folder)


def test_while_one_run_holds_the_output_another_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with Output(out):
        other = start(folder, out)
        _, said = other.communicate(timeout=PATIENCE)
    assert other.returncode == 1
    assert said.startswith(f"error: another run is writing {out}; ")
