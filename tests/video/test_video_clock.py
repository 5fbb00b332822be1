"""Times of a file that are absent, wrong, swapped, or come from a clock that was set anew."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkv.video.repair import FileClock

STEP = 0.1


def times_of(stamps: list[float | None], **options: object) -> tuple[list[float], FileClock]:
    """The seconds of frames with these stamps, all of which have to come out in order."""
    clock = FileClock(stamps[0] or 0.0, STEP, **options)  # type: ignore[arg-type]
    got = list(clock.timed((stamp, index) for index, stamp in enumerate(stamps)))
    assert [index for _, index in got] == list(range(len(stamps)))
    times = [seconds for seconds, _ in got]
    assert all(a < b for a, b in itertools.pairwise(times))
    return times, clock


def film(begin: float, count: int, step: float = STEP) -> list[float | None]:
    """Stamps of a steady recording."""
    return [begin + index * step for index in range(count)]


STEADY = film(0.0, 40)


@pytest.mark.parametrize("leaps", [False, True])
@pytest.mark.parametrize(
    "stamps",
    [
        pytest.param(film(100.0, 20) + film(1.4, 20), id="back 100 s"),
        pytest.param(film(0.0, 10) * 4, id="pieces of a second"),
        pytest.param(film(0.0, 4) * 10, id="pieces of 0.4 s"),
        pytest.param(
            film(2**33 / 9e4 - 2, 20) + film(0.0, 20), id="a counter of 33 bits runs over"
        ),
        pytest.param(film(50.0, 20) + film(0.0, 10) + film(20.0, 10), id="back, then ahead"),
    ],
)
def test_recordings_that_were_joined_go_on_without_a_gap(
    stamps: list[float | None], leaps: bool
) -> None:
    """Siblings: clock back by much or little, many short pieces, an overflow, a clock that stands.

    In a format whose clock does not leap, a gap ahead is a picture that stays.
    """
    times, clock = times_of(stamps, leaps=leaps)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    held = [gap for gap in gaps if gap > 5]
    assert len(held) == (0 if leaps else stamps.count(20.0))
    assert [gap for gap in gaps if gap < 5] == pytest.approx([STEP] * (39 - len(held)))
    assert "time continues without a gap" in clock.warnings()[0]
    assert len(clock.warnings()) == 1


def test_a_clock_that_stands_still() -> None:
    times, clock = times_of([5.0] * 40)
    assert times == pytest.approx(STEADY)
    assert "time continues" in clock.warnings()[0]


@pytest.mark.parametrize("leap", [5.5, 100.0, 40_000.0, 95_443.7])
def test_a_leap_ahead_is_closed_only_where_the_clock_may_leap(leap: float) -> None:
    stamps = film(0.0, 20) + film(2.0 + leap, 20)
    times, clock = times_of(stamps, leaps=True)
    assert times == pytest.approx(STEADY)
    assert clock.restarts == 1
    times, clock = times_of(stamps, leaps=False)
    assert times == pytest.approx(stamps)
    assert clock.warnings() == []


def test_a_leap_far_behind_the_declared_end_is_closed() -> None:
    times, clock = times_of(film(0.0, 20) + film(40_000.0, 20), end=4.0)
    assert times == pytest.approx(STEADY)
    assert clock.restarts == 1


@pytest.mark.parametrize("leaps", [False, True])
@pytest.mark.parametrize("place", [3, 20, 37])
@pytest.mark.parametrize("bad", [-1000.0, -0.35, 0.0, 1.8, 95_443.7])
def test_one_wrong_time_moves_no_other_frame(bad: float, place: int, leaps: bool) -> None:
    stamps = [*STEADY]
    stamps[place] = bad
    times, clock = times_of(stamps, leaps=leaps)
    others = [index for index in range(40) if index != place]
    assert [times[index] for index in others] == pytest.approx([0.1 * index for index in others])
    assert abs(times[place] - 0.1 * place) < 0.11
    if 0 < bad < 5 and place > 20:
        assert clock.replaced == 1


def test_two_wrong_times_in_a_row_move_no_other_frame() -> None:
    stamps = [*STEADY]
    stamps[20:22] = [40_000.0, 40_000.1]
    times, clock = times_of(stamps, leaps=True)
    assert times == pytest.approx(STEADY)
    assert clock.replaced == 2


def test_swapped_and_absent_times() -> None:
    """Times in the order of decoding, as of files that number their packets only."""
    stamps: list[float | None] = [0.0, 0.1, 0.3, 0.2, 0.4, None, math.nan, 0.7, 0.8, None]
    times, clock = times_of(stamps)
    assert times == pytest.approx([0.1 * index for index in range(10)], abs=0.11)
    assert times[4:] == pytest.approx([0.1 * index for index in range(4, 10)])
    assert clock.warnings() == [
        "frames without a time: 3; an average interval was assumed",
        "frames whose time is wrong: 1; they are shown between the frames around them",
    ]


@settings(max_examples=300, deadline=None)
@given(
    stamps=st.lists(
        st.one_of(
            st.none(),
            st.sampled_from([math.nan, math.inf, 0.0, 5.0, 95_443.7]),
            st.floats(-1e6, 1e6),
        ),
        min_size=1,
        max_size=40,
    ),
    leaps=st.booleans(),
)
def test_whatever_the_times_every_frame_comes_out_and_time_rises(
    stamps: list[float | None], leaps: bool
) -> None:
    clock = FileClock(0.0, 0.04, leaps=leaps)
    got = list(clock.timed((stamp, index) for index, stamp in enumerate(stamps)))
    assert [index for _, index in got] == list(range(len(stamps)))
    assert all(math.isfinite(seconds) for seconds, _ in got)
    assert all(a < b for (a, _), (b, _) in itertools.pairwise(got))
    assert clock.count == len(stamps)
