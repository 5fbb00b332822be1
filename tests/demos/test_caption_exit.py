"""What `mmkv caption` exits with, without a model: all failed, some failed, some were there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmkv.cli import main
from mmkv.demos.captioning.job import Failure
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.supervisor import Supervisor

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Caption files of which those that begin with "bad" fail; returns the exit code."""

    def caption(self: Supervisor, video: Video, *_: Any) -> dict[str, Any] | Failure:
        if Path(video.path).name.startswith("bad"):
            return Failure("video", f"{video.path}: no picture in it.")
        return {**self._job.row(video, captions()), "duration": 1.0}

    monkeypatch.setattr(Supervisor, "start", lambda self: None)
    monkeypatch.setattr(Supervisor, "caption", caption)
    monkeypatch.chdir(tmp_path)

    def one(*arguments: str) -> int:
        for name in arguments:
            if name.endswith(".mp4"):
                Path(name).touch()
        monkeypatch.setattr(sys, "argv", ["mmkv", "caption", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return one


def captions() -> Any:
    from mmkv.demos.captioning.captions import Captions

    return Captions("x", "", (), duration=1.0, frames=1)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["good.mp4"], 0),
        (["good.mp4", "bad.mp4"], 0),
        (["good.mp4", "bad.mp4", "--strict"], 1),
        (["bad.mp4"], 1),
        (["bad.mp4", "bad2.mp4"], 1),
        (["bad.mp4", "--quiet"], 1),
    ],
)
def test_it_is_1_if_every_video_failed_or_any_if_strict(
    run: Run, arguments: list[str], code: int
) -> None:
    assert run(*arguments) == code


def test_a_rerun_that_adds_nothing_to_what_is_there_is_0(run: Run) -> None:
    run("good.mp4")
    assert run("good.mp4", "bad.mp4") == 0
    assert run("good.mp4", "bad.mp4", "--strict") == 1


def test_the_terminal_has_counts_and_the_first_reason(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run("good.mp4", "bad.mp4", "bad2.mp4", "--out", "rows.jsonl")
    out, err = capsys.readouterr()
    assert out.startswith("rows.jsonl: 1 video captioned, 2 failed; ")
    assert err.splitlines()[-1] == (
        f"warning: 2 videos failed: {tmp_path}/bad.mp4: no picture in it, and 1 more; "
        "rows.errors.jsonl says why"
    )
