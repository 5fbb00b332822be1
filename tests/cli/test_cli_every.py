"""`mmkv ask SOURCE QUESTION --every SECONDS`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from caption_clips import scenes, write_clip
from video_servers import Camera
from waiting import PATIENCE, heeding_ctrl_c

ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "MMKV_MODEL": "mmkv-tiny", "OMP_NUM_THREADS": "1"}
ASK = [sys.executable, "-m", "mmkv", "ask"]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "a.mp4", scenes(0, 9))


def test_a_file_gives_one_json_line_per_moment_and_question(video: Path) -> None:
    questions = ["Was there a red circle?", "How many shapes are there now?"]
    command = [*ASK, str(video), *questions, "--every", "2", "--span", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    found = lines(done.stdout)
    assert [line["as_of"] for line in found[::2]] == [2.0, 4.0, 6.0, 8.0]
    assert [line["question"] for line in found[:2]] == questions
    assert [line["text"] for line in found[::2]] == ["no", "yes", "no", "no"]
    assert found[0]["skipped"] == 0


def test_a_file_gives_one_plain_line_per_moment(video: Path) -> None:
    command = [*ASK, str(video), "Was there a red circle?", "--every", "4", "--span", "4"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=PATIENCE)
    assert done.stdout == "0:04  yes\n0:08  no\n"


def test_a_camera_is_asked_until_ctrl_c() -> None:
    with Camera(lambda handler, visit: camera.show(handler, 0, None, 0.05)) as camera:
        address = f"http://me:s3cret@127.0.0.1:{camera.port}/live"
        command = [*ASK, address, "What is there now?", "--every", "1", "--json", "--quiet"]
        command += ["--max-new-tokens", "4", "--duration", "3600"]
        pipe = subprocess.PIPE
        with heeding_ctrl_c():
            process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=ENV)
        try:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())  # each line comes when it is answered
            process.send_signal(signal.SIGINT)
            rest, told = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 0, told
    assert "s3cret" not in json.dumps(first) + rest + told
    assert "times asked: 1" in told or rest
    assert first["text"]


def test_a_camera_is_asked_for_the_duration() -> None:
    with Camera(lambda handler, visit: camera.show(handler, 0, None, 0.05)) as camera:
        address = f"http://127.0.0.1:{camera.port}/live"
        command = [*ASK, address, "What is there now?", "--every", "0.5", "--json", "--quiet"]
        command += ["--max-new-tokens", "2", "--fps", "4", "--duration"]
        for seconds in ("3", "30", "90"):  # a busy machine may not get to an answer in three
            done = subprocess.run(
                [*command, seconds], capture_output=True, text=True, env=ENV, timeout=PATIENCE
            )
            assert done.returncode == 0, done.stderr
            if found := lines(done.stdout):
                break
    assert found
    assert [one["as_of"] for one in found] == sorted({one["as_of"] for one in found})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sample", "q", "--span", "3"], "--every"),
        (["sample", "q", "--every", "3", "--until", "5"], "--until"),
        (["sample", "q", "--every", "0"], "above 0"),
    ],
)
def test_options_that_contradict_each_other_are_told(arguments: list[str], told: str) -> None:
    done = subprocess.run([*ASK, *arguments], capture_output=True, text=True, env=ENV)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
