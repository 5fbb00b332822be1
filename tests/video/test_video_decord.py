"""Decord in its own process: killed when it hangs, named when it dies."""

from __future__ import annotations

import selectors
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from video_files import number_of, steady, write_video
from waiting import PATIENCE, by_itself, until

from mmkv.video import VideoError, decord_file, open_source
from mmkv.video.decord_file import DecordFile

HEADER = """
import os, struct, sys, time
pipe = int(sys.argv[2])
head = struct.Struct("<qqq")
def frame(index):
    os.write(pipe, head.pack(index, 4, 4) + bytes([index]) * 48)
os.write(pipe, head.pack(0, 100, 0) + struct.pack("<100d", *[k / 10 for k in range(100)]))
sys.stdin.buffer.read(8)
"""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    pytest.importorskip("decord")
    return write_video(tmp_path / "clip.mp4", steady(50))


def fake(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> str:
    """Put a worker in place of the real one that says 100 frames and then does `body`."""
    worker = folder / "worker.py"
    worker.write_text(HEADER + body)
    monkeypatch.setattr(decord_file, "_WORKER", worker)
    return str(folder / "clip.mp4")


def hanging(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> str:
    """A worker that hangs after `body`; nobody loses patience before it is there."""
    hung = folder / "hung"

    class Patient(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
        def select(self, timeout: float | None = None) -> Any:
            until(lambda: hung.exists() or super(Patient, self).select(0))
            return super().select(timeout)

    stand_in = SimpleNamespace(DefaultSelector=Patient, EVENT_READ=selectors.EVENT_READ)
    monkeypatch.setattr(decord_file, "selectors", stand_in)
    return fake(
        monkeypatch, folder, f"{body}\nopen({str(hung)!r}, 'w')\nwhile True: time.sleep(60)"
    )


def test_a_worker_that_hangs_is_killed_and_what_came_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = hanging(monkeypatch, tmp_path, "frame(0); frame(1)")
    with DecordFile(path, path, fps=None, watchdog=0.5) as frames:
        assert [int(frame[0, 0, 0]) for _, frame in frames] == [0, 1]
        assert frames.warnings == [
            f"{path}: the file ends early at 0.1 s; 2 frames were read (decord gave no frame for "
            '0.5 s and was stopped; reader="pyav" reads more files)'
        ]
        assert frames._process._worker.returncode is not None


def test_a_worker_that_hangs_before_its_first_frame_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = hanging(monkeypatch, tmp_path, "")
    with (
        DecordFile(path, path, fps=None, watchdog=0.3) as frames,
        pytest.raises(VideoError, match=r"clip.mp4: decord gave no frame for 0.3 s"),
    ):
        list(frames)


def test_a_worker_that_dies_is_an_error_or_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = fake(monkeypatch, tmp_path, "os._exit(1)")
    with (
        DecordFile(path, path, fps=None) as frames,
        pytest.raises(VideoError, match=r"clip.mp4: decord died on it"),
    ):
        list(frames)
    path = fake(monkeypatch, tmp_path, "frame(0); os.abort()")
    with DecordFile(path, path, fps=None) as frames:
        assert len(list(frames)) == 1
        assert "1 frames were read (decord died on it" in frames.warnings[0]


def test_a_frame_count_that_lies_is_never_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = fake(
        monkeypatch, tmp_path, "for k in range(7): frame(k)\nos.write(pipe, head.pack(-1, 0, 0))"
    )
    with DecordFile(path, path, fps=None) as frames:
        assert len(list(frames)) == 7
        assert "ends early at 0.6 s; 7 frames were read" in frames.warnings[0]


def test_close_kills_the_worker_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = fake(monkeypatch, tmp_path, "frame(0)\nwhile True: time.sleep(60)")
    frames = DecordFile(path, path, fps=None, watchdog=10 * PATIENCE)
    next(iter(frames))
    by_itself(frames.close)
    assert frames._process._worker.returncode is not None
    assert list(frames) == []
    assert frames.warnings == []


def test_frames_after_a_long_skip_are_the_right_ones(clip: Path) -> None:
    with open_source(clip, fps=0.9, reader="decord") as frames:
        assert [number_of(frame) for _, frame in frames] == [0, 27]


def test_the_script_of_the_caller_is_not_run_again(clip: Path, tmp_path: Path) -> None:
    """A spawned process of multiprocessing would import the caller's main module."""
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(
        "from mmkv.video import open_source\n"
        "print('once')\n"
        f"print(len(list(open_source({str(clip)!r}, fps=None, reader='decord'))))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.split() == ["once", "50"]
