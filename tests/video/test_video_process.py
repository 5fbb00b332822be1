"""What a whole process does: imports, exit, threads left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from video_files import steady, write_video
from video_servers import Camera
from waiting import PATIENCE


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_importing_loads_no_decoder() -> None:
    out = run(
        "import sys, mmkv.video\n"
        "print([name for name in ('av', 'cv2', 'decord') if name in sys.modules])"
    )
    assert out == "[]"


@pytest.mark.parametrize("reader", ["pyav", "opencv", "decord"])
def test_leaving_a_file_open_does_not_keep_or_crash_the_process(
    tmp_path: Path, reader: str
) -> None:
    if reader == "decord":
        pytest.importorskip("decord")
    path = write_video(tmp_path / "clip.mp4", steady(200))
    out = run(
        "from mmkv.video import open_source\n"
        f"frames = open_source({str(path)!r}, fps=None, reader={reader!r})\n"
        "print(next(iter(frames))[0])"
    )
    assert out == "0.0"


def test_leaving_a_camera_open_does_not_keep_or_crash_the_process() -> None:
    with Camera(lambda handler, visit: camera.show(handler, 0, None)) as camera:
        out = run(
            "from mmkv.video import open_source\n"
            f"frames = open_source('http://127.0.0.1:{camera.port}/', fps=None, live=True)\n"
            "print(next(iter(frames))[0])"
        )
    assert float(out) >= 0.0
