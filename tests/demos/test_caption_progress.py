"""The line that says how far a run is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mmkv.cli.caption_report import Line, ended, failures
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.progress import Tally


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("mmkv.demos.captioning.progress.time", clock)


def tally(seconds: float, **counts: int) -> Tally:
    return Tally(began=-seconds, **counts)


def test_it_says_captioned_videos_per_hour_and_when_it_will_be_done() -> None:
    line = tally(60, total=100, before=20, done=9, failed=1).line("x.mp4 0:10")
    assert line == "29/100 videos, 1 failed, 540 videos/h, ETA 7 min 0 s; x.mp4 0:10"


def test_before_the_first_video_there_is_no_rate() -> None:
    assert tally(5, total=3).line() == "0/3 videos"


def test_at_the_end_there_is_nothing_to_wait_for() -> None:
    assert tally(3600, total=2, done=2).line() == "2/2 videos, 2 videos/h"


def on_a_terminal(show: bool) -> Line:
    line = Line(show=show)
    line._terminal, line._last = True, 0.0
    return line


def test_a_terminal_shows_one_line_and_no_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    line = on_a_terminal(True)
    line(tally(1, total=2), Video.of("http://me:secret@host/long-name.mp4?key=abc"), 61.0, 3600.0)
    line.clear()
    shown = capsys.readouterr().err
    assert "0/2 videos; long-name.mp4" in shown
    assert "1:01 of 1:00:00" in shown
    assert "secret" not in shown
    assert "abc" not in shown
    assert "\n" not in shown
    assert shown.endswith("\r\x1b[2K")


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    line = on_a_terminal(False)
    line(tally(1, total=2, done=1), None, 0.0, None)
    line.clear()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"done": 1}, "c.jsonl: 1 video captioned; 60.0 s, 60 videos/h"),
        ({"done": 2}, "c.jsonl: 2 videos captioned; 60.0 s, 120 videos/h"),
        ({"done": 0, "failed": 1}, "c.jsonl: 0 videos captioned, 1 failed"),
        ({"done": 1, "failed": 1, "before": 1}, "1 were there already, 1 failed; 60.0 s, 60 vid"),
    ],
)
def test_the_end_says_how_many_and_the_rate_of_those_captioned(
    counts: dict[str, int], told: str
) -> None:
    assert told in ended(tally(60, total=3, **counts), Path("c.jsonl"))


def test_start_up_is_told_apart_from_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("mmkv.demos.captioning.progress.time", clock)
    run = Tally(total=2, began=clock.now)
    clock.now += 30
    run.restart()
    clock.now += 10
    run.done = 2
    assert "; 10.0 s, 720 videos/h" in ended(run, Path("c.jsonl"))
    assert ended(run, Path("c.jsonl")).endswith(", after 30.0 s of start-up")


def test_where_start_up_is_not_known_it_is_said_to_be_in_the_rate() -> None:
    assert ended(tally(60, total=1, done=1), Path("c.jsonl")).endswith(" with start-up")


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        (1, "1 video failed: x.mp4: no picture; c.errors.jsonl says why"),
        (3, "3 videos failed: x.mp4: no picture, and 2 more; c.errors.jsonl says why"),
    ],
)
def test_the_first_reason_is_told(failed: int, told: str) -> None:
    run = Tally(total=5, failed=failed, first_failure="x.mp4: no picture")
    assert failures(run, Path("c.errors.jsonl")) == told


def test_a_terminal_that_is_gone_does_not_stop_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def gone(text: str) -> None:
        written.append(text)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("sys.stderr", SimpleNamespace(write=gone, isatty=lambda: True))
    line = on_a_terminal(True)
    line._last = -1e9
    for _ in range(2):
        line(tally(1, total=2), None, 0.0, None)
    line.clear()
    assert len(written) == 1
