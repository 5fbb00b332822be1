"""The line that says how far a run is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mmkv.cli.caption import Line
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.progress import Tally


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("mmkv.demos.captioning.progress.time", clock)


def tally(seconds: float, **counts: int) -> Tally:
    return Tally(began=-seconds, **counts)


def test_it_says_videos_per_hour_and_when_it_will_be_done() -> None:
    line = tally(60, total=100, before=20, done=9, failed=1).line("x.mp4 0:10")
    assert line == "29/100 videos, 1 failed, 600 videos/h, ETA 7 min 0 s; x.mp4 0:10"


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
