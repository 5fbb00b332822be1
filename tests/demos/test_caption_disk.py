"""Output that cannot be written: one sentence, and what was written before stays whole.

A full disk is a limit on the size of files, which the system enforces in the same way. Tried:
rows, failures, rows that are replaced, subtitles, Parquet, and the whole command; an output that
is a folder, a device, a pipe; a folder that is read-only; a file system without locks; a file
that its holder replaces while another run opens it; what a killed run left half written.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmkv.demos.captioning import disk
from mmkv.demos.captioning.job import Failure, Job
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.output import Output, OutputError
from mmkv.demos.captioning.parquet import available
from mmkv.demos.captioning.progress import Tally
from mmkv.demos.captioning.run import Result, resumed, written
from mmkv.demos.captioning.settings import Captioning

JOB = Job(Captioning(every=2))
VIDEOS = [Video(f"v{i}", f"/{i}.mp4") for i in range(6)]


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def row(number: int, words: str = "a caption") -> dict[str, Any]:
    segments = [{"start": 0.0, "end": 2.0, "caption": words}]
    return {
        "id": f"v{number}", "path": f"/{number}.mp4", "config_hash": JOB.digest,
        "segments": segments, "duration": 2.0,
    }  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(path: Path) -> list[str]:
    return [row["id"] for row in lines(path)]


def run(out: Path, formats: tuple[str, ...] = (), words: str = "a caption") -> Tally:
    """Caption what is left, with a model that needs no time."""
    with Output(out) as output:
        todo = resumed(VIDEOS, JOB, output, "refuse")

        def results(tally: Tally) -> Iterator[Result]:
            for video in todo:
                yield video, row(int(video.id[1:]), words)

        return written(results, VIDEOS, todo, JOB, output, formats, None)


def left_over(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name.endswith(".new")]


def test_a_full_disk_leaves_whole_rows_and_a_rerun_continues(tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    with full_after(500), pytest.raises(OutputError, match=r"file too large.*free some space"):
        run(out)
    before = ids(out)
    assert 0 < len(before) < len(VIDEOS)
    assert out.read_bytes().endswith(b"\n")
    tally = run(out)
    assert tally.before == len(before)
    assert ids(out) == [video.id for video in VIDEOS]


def test_failures_on_a_full_disk_are_whole_lines(tmp_path: Path) -> None:
    failure = JOB.failure(VIDEOS[0], Failure("video", "x" * 200))
    with Output(tmp_path / "c.jsonl") as output:
        output.fail(failure)
        with full_after(700), pytest.raises(OutputError, match=r"c.errors.jsonl cannot be written"):
            output.fail({**failure, "reason": "x" * 700})
        assert lines(output.errors) == [failure]
        output.fail(failure)
        assert lines(output.errors) == [failure, failure]


def test_rows_that_cannot_be_replaced_stay(tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    run(out)
    with Output(out) as output:
        with full_after(300), pytest.raises(OutputError, match=r"c.jsonl cannot be written"):
            output.drop({"v0"})
        output.drop({"v1"})
    assert ids(out) == ["v0", "v2", "v3", "v4", "v5"]
    assert not left_over(tmp_path)


def test_subtitles_on_a_full_disk_come_with_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "c.jsonl"
    text = "demos.captioning.subtitles.subtitles"
    with monkeypatch.context() as within, full_after(2000):
        within.setattr(f"mmkv.{text}", lambda *_: "long " * 1000)  # longer than their rows
        with pytest.raises(OutputError, match=r"c-subtitles cannot be written"):
            run(out, ("srt",))
    assert len(ids(out)) == 1
    run(out, ("srt",))
    assert len(list((tmp_path / "c-subtitles").glob("*.srt"))) == len(ids(out)) == len(VIDEOS)
    assert not left_over(tmp_path)


@pytest.mark.skipif(not available(), reason="pyarrow is not installed")
def test_parquet_on_a_full_disk_leaves_the_rows_and_no_half_file(tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    run(out)
    with full_after(100), pytest.raises(OutputError, match=r"c.parquet cannot be written"):
        run(out, ("parquet",))
    assert ids(out) == [video.id for video in VIDEOS]
    assert not left_over(tmp_path)
    run(out, ("parquet",))
    assert (tmp_path / "c.parquet").exists()


def test_rows_and_parquet_need_two_files(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"both rows and Parquet"):
        run(tmp_path / "c.parquet", ("parquet",))


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    out, subtitles = tmp_path / "c.jsonl", tmp_path / "c-subtitles"
    subtitles.mkdir()
    ours = [
        tmp_path / ".c.jsonl.new", tmp_path / ".c.parquet.new", subtitles / ".0.12345678.srt.new",
        subtitles / ".gone.12345678.vtt.new",
    ]  # fmt: skip
    others = [tmp_path / ".d.jsonl.new", subtitles / ".note.new"]
    for path in [*ours, *others]:
        path.write_text("half")
    run(out)
    assert [path for path in [*ours, *others] if path.exists()] == others


@pytest.mark.parametrize("name", ["/dev/full", "/dev/null", "pipe", "folder"])
def test_only_a_file_that_can_be_read_back_is_taken(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"is no ordinary file|is a folder"):
        Output(tmp_path / name)


@pytest.mark.parametrize("target", ["/dev/full", "folder"])
def test_failures_too_need_an_ordinary_file(target: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "c.errors.jsonl").symlink_to(tmp_path / target)
    with (
        Output(tmp_path / "c.jsonl") as output,
        pytest.raises(OutputError, match=r"is no ordinary file|is a folder"),
    ):
        output.fail({"id": "v0"})


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_is_read_only_is_told(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, *how: Any) -> int:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(disk.os, "open", refused)
    with pytest.raises(OutputError, match=r"cannot be written.*make it writable") as told:
        Output(tmp_path / "c.jsonl")
    assert os.strerror(number).lower() in str(told.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match=r"permission denied"):
            Output(tmp_path / "c.jsonl")
    finally:
        tmp_path.chmod(0o755)


def test_a_file_system_without_locks_is_not_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(disk.fcntl, "flock", refused)
    with pytest.raises(OutputError, match=r"cannot be locked"):
        Output(tmp_path / "c.jsonl")


def test_a_file_that_is_replaced_while_it_is_opened_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "c.jsonl"
    run(out)
    flock, replaced = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not replaced:  # the run before ends here, having dropped a row
            replaced.append(True)
            kept = out.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
            (tmp_path / "new").write_text("".join(kept), encoding="utf-8")
            os.replace(tmp_path / "new", out)
        flock(descriptor, how)

    monkeypatch.setattr(disk.fcntl, "flock", late)
    run(out)
    assert sorted(ids(out)) == [video.id for video in VIDEOS]
