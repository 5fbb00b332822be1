"""Numbers as the command prints them."""

from __future__ import annotations

import pytest

from mmkv.cli.messages import moments, stretch
from mmkv.cli.options import moment
from mmkv.config.units import clock, counted, size, took


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.9, "0:07"), (750, "12:30"), (3723, "1:02:03")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e7, "25 MB"), (3.2e12, "3.2 TB")],
)
def test_size(n: float, text: str) -> None:
    assert size(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0124, "12 ms"), (3.42, "3.4 s"), (125, "2 min 5 s"), (49000, "13 h 36 min")],
)
def test_took(seconds: float, text: str) -> None:
    assert took(seconds) == text


def test_moments_join_neighbours_and_keep_the_best_first() -> None:
    assert moments([43.0, 3.0, 42.0, 44.0], gap=1.5) == ["0:42-0:44", "0:03"]


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        (3.0, 3.0, "0:03"),
        (42.0, 45.0, "0:42-0:45"),
        (7.2, 7.5, "0:07.2-0:07.5"),
        (7.01, 7.05, "0:07.01-0:07.05"),
        (0.28, 0.29, "0:00.28-0:00.29"),
        (3601.2, 3601.9, "1:00:01.2-1:00:01.9"),
        (7.0, 7.000001, "0:07"),
    ],
)
def test_a_stretch_of_more_than_one_frame_is_never_shown_as_an_instant(
    start: float, end: float, text: str
) -> None:
    """Also where both ends are in one second, as with --fps 4; `ask` and `find` both print it."""
    assert stretch(start, end) == text
    assert moments([start, end], gap=5.0) == [text]


def test_one_is_not_many() -> None:
    assert [counted(n, "frame") for n in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1:30.5", 90.5), ("1:00:01", 3601)])
def test_a_moment_is_seconds_or_clock(text: str, seconds: float) -> None:
    assert moment(text) == seconds
