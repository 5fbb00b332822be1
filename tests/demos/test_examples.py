"""Every example runs on the bundled model; cameras are small servers on this machine."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from caption_clips import scenes, write_clip
from video_servers import Camera, RtspCamera
from waiting import PATIENCE

from mmkv.models.tiny.questions import Clip
from mmkv.models.tiny.world import object_name

FOLDER = Path(__file__).resolve().parents[2] / "demos" / "examples"


def run(name: str, *arguments: object) -> None:
    runpy.run_path(str(FOLDER / f"{name}.py"))["main"](*map(str, arguments))


@pytest.fixture
def mjpeg() -> Iterator[str]:
    with Camera(lambda handler, visit: camera.show(handler, 0, None, 0.05)) as camera:
        yield f"http://127.0.0.1:{camera.port}/live"


def test_ask_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    video = write_clip(tmp_path / "a.mp4", scenes(10, 6))
    run("ask_a_file", video)
    out = capsys.readouterr().out
    assert out.startswith("bottom left\n")
    assert "from 2.0 s" in out


def test_watch_a_webcam(capsys: pytest.CaptureFixture[str], mjpeg: str) -> None:
    run("watch_a_webcam", mjpeg, 6)
    out = capsys.readouterr().out
    assert " s  " in out
    assert "at the end: " in out


def test_alert_on_a_camera(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = scenes(0, 10)  # the red circle is in the third second
    assert "red circle" in [object_name(o) for o in clip.scenes[3]]
    run("alert_on_a_camera", write_clip(tmp_path / "a.mp4", clip))
    out = capsys.readouterr().out
    assert out.count("ALERT") == 1
    assert "(5 s into the stream): yes" in out
    assert "the source has ended" in out


def test_alert_on_an_rtsp_camera(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = write_clip(tmp_path / "a.ts", Clip(scenes(3, 1).scenes * 40))
    with RtspCamera(target.read_bytes(), "me:secret", interval=0.02) as camera:
        address = f"rtsp://me:secret@127.0.0.1:{camera.port}/live"
        command = [sys.executable, "-u", str(FOLDER / "alert_on_a_camera.py"), address]
        command += ["What is there now?", "red circle"]
        # cameras have no end: the example is stopped once it has told
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            timer = threading.Timer(PATIENCE, process.kill)
            timer.start()
            assert process.stdout is not None
            told = process.stdout.readline()
            timer.cancel()
            process.kill()
    assert told.startswith("ALERT at ")
    assert "red circle" in told


def test_caption_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", scenes(20, 2))
    run("caption_a_folder", tmp_path, tmp_path / "captions.jsonl")
    out = capsys.readouterr().out
    assert "1 captioned, 0 were there, 0 failed" in out
    assert "  0-1 s: " in out


def test_reopen_a_store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    video = write_clip(tmp_path / "a.mp4", scenes(10, 6))
    run("reopen_a_store", video, tmp_path / "a.kv")
    first = capsys.readouterr().out
    run("reopen_a_store", video, tmp_path / "a.kv")
    assert capsys.readouterr().out == first
    assert first.startswith("6 frames, ")
    assert first.endswith("bottom left\n")


def test_no_example_is_left_out() -> None:
    ran = set(
        re.findall(r'^    run\("(\w+)"', Path(__file__).read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert {path.stem for path in FOLDER.glob("*.py")} - {"__init__"} == ran
