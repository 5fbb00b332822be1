"""Many videos through a process that may hang, crash and be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from caption_clips import right, scenes, write_clip
from waiting import PATIENCE, until

from mmkv.demos.captioning.job import CaptioningError, Failure, Job
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.settings import Captioning
from mmkv.demos.captioning.supervisor import Supervisor

ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
MMKV = [sys.executable, "-m", "mmkv", "caption"]
LENGTH = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos, and two files that are none."""
    path = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_clip(path / f"{number}.mp4", scenes(20 * number, LENGTH))
    (path / "empty.mp4").write_bytes(b"")
    (path / "text.mp4").write_text("no video")
    return path


def mmkv(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [*MMKV, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=300)
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    return done


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A run that was killed after its first row, and the same command again: the output, and what
    the second said.
    """
    out = tmp_path_factory.mktemp("out") / "captions.jsonl"
    command = [*MMKV, str(folder), "--out", str(out), "--format", "srt", "--strict"]
    first = subprocess.Popen(command, env=ENV, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until(lambda: first.poll() is not None or (out.exists() and b"\n" in out.read_bytes()))
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    with out.open("ab") as file:
        file.write(b'{"id": "torn", "pa')
    second = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=300)
    return out, second.stdout, second.stderr


def test_after_a_kill_a_rerun_leaves_every_row_once(
    done: tuple[Path, str, str], folder: Path
) -> None:
    rows = lines(done[0])
    names = sorted(Path(row["path"]).name for row in rows)
    assert names == [f"{number}.mp4" for number in range(4)]
    assert "were there already" in done[1]


def test_rows_say_what_was_seen_when_and_how(done: tuple[Path, str, str], folder: Path) -> None:
    exact = 0
    for row in lines(done[0]):
        assert set(row) >= {"id", "path", "caption", "segments", "model", "config_hash", "timings"}
        assert row["path"].startswith(str(folder))
        assert row["config"]["memory"]["key_bits"] == 1.5
        wanted = right(scenes(20 * int(Path(row["path"]).stem), LENGTH))
        assert [segment["start"] for segment in row["segments"]] == [0.0, 1.0, 2.0, 3.0]
        exact += sum(s["caption"] == w for s, w in zip(row["segments"], wanted, strict=True))
    assert exact >= 14  # of 16


def test_every_row_has_its_subtitles(done: tuple[Path, str, str]) -> None:
    files = list(done[0].with_name("captions-subtitles").glob("*.srt"))
    assert len(files) == 4
    assert all(file.read_text(encoding="utf-8").count(" --> ") == LENGTH for file in files)


def test_failures_have_their_reasons_and_strict_says_so(done: tuple[Path, str, str]) -> None:
    errors = {Path(e["path"]).name: e for e in lines(done[0].with_name("captions.errors.jsonl"))}
    assert set(errors) == {"empty.mp4", "text.mp4"}
    assert "the file is empty" in errors["empty.mp4"]["reason"]
    assert errors["empty.mp4"]["kind"] == "video"
    assert "warning: 2 videos failed: " in done[2]
    assert "empty.mp4: the file is empty" in done[2]  # the first reason
    assert "and 1 more; " in done[2]
    assert done[2].rstrip().endswith("captions.errors.jsonl says why")


def test_a_rerun_with_nothing_to_do_loads_no_model(
    done: tuple[Path, str, str], folder: Path
) -> None:
    good = [str(folder / f"{number}.mp4") for number in range(4)]
    before = done[0].read_bytes()
    again = mmkv(*good, "--out", done[0], "--quiet", "--strict")
    assert again.stderr == ""
    assert done[0].read_bytes() == before


def test_changed_settings_are_noticed(done: tuple[Path, str, str], folder: Path) -> None:
    refused = mmkv(folder, "--out", done[0], "--every", "2", "--quiet", code=1)
    assert refused.stderr.startswith("error: ")
    assert "--old redo" in refused.stderr


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    with Supervisor(Job(Captioning(every=1)), stall=PATIENCE) as one:
        yield one


def stopped(supervisor: Supervisor) -> int:
    """Let the process stand still; its number."""
    supervisor.start()
    assert supervisor._process is not None
    os.kill(supervisor._process.pid, signal.SIGSTOP)
    return supervisor._process.pid


def test_one_process_captions_several_videos(supervisor: Supervisor, folder: Path) -> None:
    one, two = Video.of(str(folder / "0.mp4")), Video.of(str(folder / "1.mp4"))
    first = supervisor.caption(one, following=two)
    assert supervisor._process is not None
    pid = supervisor._process.pid
    second = supervisor.caption(two)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["id"], second["id"]) == (one.id, two.id)
    assert supervisor._process.pid == pid


def test_a_process_that_hangs_is_ended_and_the_video_tried_once_more_alone(
    supervisor: Supervisor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, kill, ended = stopped(supervisor), supervisor._kill, []

    def patient_again() -> None:
        ended.append(supervisor._process.pid)  # type: ignore[union-attr]
        kill()
        supervisor._stall = PATIENCE

    monkeypatch.setattr(supervisor, "_kill", patient_again)
    supervisor._stall = 0.5
    one, two = (Video.of(str(folder / f"{n}.mp4")) for n in (0, 1))
    found = supervisor.caption(one, following=two)
    assert ended == [pid]
    assert isinstance(found, dict)
    assert found["id"] == one.id


def test_a_video_beyond_its_time_is_given_up(supervisor: Supervisor, folder: Path) -> None:
    stopped(supervisor)
    supervisor._timeout = 0.05
    try:
        failed = supervisor.caption(Video.of(str(folder / "2.mp4")))
    finally:
        supervisor._timeout = None
    assert isinstance(failed, Failure)
    assert failed.kind == "timeout"
    assert "not done after 0.05 s" in failed.reason


def test_a_model_that_is_not_there_ends_the_run_in_one_line(tmp_path: Path) -> None:
    with Supervisor(Job(Captioning(), model=str(tmp_path))) as one, pytest.raises(CaptioningError):
        one.start()


def test_without_ray_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmkv.demos.captioning import caption_on_ray
    from mmkv.demos.captioning.output import Output

    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        Output(tmp_path / "c.jsonl") as output,
        pytest.raises(CaptioningError, match="pip install"),
    ):
        caption_on_ray([Video("a", "/a.mp4")], Job(Captioning()), output)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gone.mp4"], "gone.mp4: no such file"),
        ([], "no videos given"),
        (["sample", "--every", "2", "--scenes"], "contradict"),
        (["sample", "--shard-index", "2", "--num-shards", "2"], "--num-shards 3"),
        (["sample", "--out", "no/such/folder/c.jsonl"], "no such folder"),
        (["sample", "--format", "doc"], "srt, vtt, parquet"),
        (["sample", "--actors", "2"], "--ray"),
        (["sample", "--key-bits", "3"], "key_bits=3"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mmkv.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mmkv", "caption", *arguments, "--quiet"])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert end.value.code in (1, 2)
    assert out == ""
    assert told in err
    assert err.count("\n") == 1
