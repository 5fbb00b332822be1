"""Which frames are chosen: against a brute-force reading of the rule."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkv.video.sampling import LiveSampler, OnScreenSampler, check_fps, sample
from mmkv.video.shown import ShownSampler, shown

# Times on a 90 kHz clock and rates with awkward fractions; gaps from one tick to a minute.
TICKS = st.lists(
    st.one_of(st.integers(1, 9000), st.integers(3000, 3003), st.integers(1, 5_400_000)),
    min_size=1,
    max_size=60,
)
RATES = st.one_of(
    st.sampled_from([0.1, 0.5, 1.0, 2.0, 24000 / 1001, 25.0, 29.97, 30.0, 60.0]),
    st.floats(0.01, 200),
)


def brute_force(times: list[float], fps: float, end: float) -> list[float]:
    """Walk the grid: for each grid time the frame on screen, each frame once, in exact numbers."""
    edge = min(Fraction(1, 1000), Fraction(1, 10) / Fraction(fps))
    exact = [Fraction(value) for value in times]
    chosen = [times[0]]
    for index, start in enumerate(exact[1:], 1):
        until = exact[index + 1] if index + 1 < len(exact) else Fraction(end)
        # the first grid time that is not before this frame
        number = max(1, math.ceil((start - exact[0] - edge) * Fraction(fps)))
        if exact[0] + number / Fraction(fps) + edge < until:
            chosen.append(times[index])
    return chosen


@settings(max_examples=400, deadline=None)
@given(gaps=TICKS, start=st.integers(-9000, 10**9), fps=RATES)
def test_sampler_matches_brute_force_on_any_frame_times(
    gaps: list[int], start: int, fps: float
) -> None:
    ticks = [start]
    for gap in gaps:
        ticks.append(ticks[-1] + gap)
    times = [tick / 90000 for tick in ticks]
    end = times[-1] + (times[-1] - times[-2])
    got = [seconds for seconds, _ in sample(((time, None) for time in times), fps)]
    want = brute_force(times, fps, end)
    # frames within a nanosecond of the tolerance's edge may fall either way
    edge = min(1e-3, 0.1 / fps)
    for time in set(got) ^ set(want):
        index = times.index(time)
        until = times[index + 1] if index + 1 < len(times) else end
        bounds = [((bound - times[0] - edge) * fps) % 1.0 for bound in (time, until)]
        assert any(min(part, 1 - part) < 1e-6 for part in bounds), (time, got, want)


@settings(max_examples=100, deadline=None)
@given(gaps=TICKS, fps=RATES)
def test_times_rise_and_never_more_than_one_frame_per_grid_step(
    gaps: list[int], fps: float
) -> None:
    times = [0.0]
    for gap in gaps:
        times.append(times[-1] + gap / 90000)
    got = [seconds for seconds, _ in sample(((time, None) for time in times), fps)]
    assert got[0] == 0.0
    assert all(a < b for a, b in itertools.pairwise(got))
    assert len(got) <= math.floor((times[-1] + times[-1] - times[-2] + 1e-3) * fps) + 1


@pytest.mark.parametrize("fps", [1.0, 3.0, 30.0])
def test_steady_video_gives_exactly_fps_frames_per_second(fps: float) -> None:
    times = [(index / 30, index) for index in range(300)]
    got = list(sample(times, fps))
    assert [index for _, index in got] == list(range(0, 300, round(30 / fps)))


def test_millisecond_rounding_loses_no_frame_at_the_videos_own_rate() -> None:
    times = [(round(index * 1000 / 30) / 1000, index) for index in range(300)]
    assert len(list(sample(times, 30.0))) == 300


def test_slower_video_gives_each_frame_once_at_its_own_time() -> None:
    times = [(0.0, "a"), (7.3, "b"), (7.9, "c"), (31.0, "d")]
    assert list(sample(times, 2.0)) == times


def test_frame_on_screen_at_the_grid_time_wins_over_the_next_one() -> None:
    times = [(0.0, "a"), (0.9, "b"), (1.1, "c"), (1.2, "d")]
    assert [name for _, name in sample(times, 1.0)] == ["a", "b"]


def test_no_drift_after_a_million_seconds() -> None:
    frames = ((1e6 + index / 25, index) for index in range(25 * 200))
    got = [index for _, index in sample(frames, 1.0)]
    assert got == list(range(0, 25 * 200, 25))


def test_every_frame_without_fps() -> None:
    frames = [(index * 0.1, index) for index in range(7)]
    assert list(sample(frames, None)) == frames


def test_sampling_twice_at_one_rate_changes_nothing() -> None:
    once = list(sample([(index / 29.97, index) for index in range(900)], 2.0))
    assert list(sample(once, 2.0)) == once


def test_last_frame_is_shown_for_its_own_duration() -> None:
    sampler: OnScreenSampler[str] = OnScreenSampler(1.0)
    sampler.push(0.0, "a")
    sampler.push(0.5, "b")
    assert sampler.finish(2.0) == (0.5, "b")


def on_screen(
    times: list[float], fps: float | None, until: float | None = None, end: float | None = None
) -> list[tuple[float, int]]:
    """Seconds and index of what is given of a file with these frame times."""
    sampler: ShownSampler[int] = ShownSampler(fps, end)
    frames = ((seconds, index) for index, seconds in enumerate(times))
    return [
        (seconds, one.item)
        for one in shown(frames, sampler, lambda: until)
        for seconds in one.times
    ]


@settings(max_examples=400, deadline=None)
@given(gaps=TICKS, start=st.integers(-9000, 10**9), fps=st.sampled_from([0.1, 0.5, 1.0, 2.0, 25.0]))
def test_every_grid_time_of_a_file_has_the_frame_on_screen(
    gaps: list[int], start: int, fps: float
) -> None:
    times = [start / 90000]
    for gap in gaps:
        times.append(times[-1] + gap / 90000)
    until = times[-1] + 3.0
    got = on_screen(times, fps, until)
    assert all(a < b for (a, _), (b, _) in itertools.pairwise(got))
    edge = min(1e-3, 0.1 / fps)
    want: dict[int, list[float]] = {0: [times[0]]}
    for number in range(1, math.ceil((until - times[0] - edge) * fps)):
        at = times[0] + number / fps
        index = sum(time <= at + edge for time in times) - 1
        # the first grid time of a frame is moved to the frame's own time
        given_at = want.setdefault(index, [])
        given_at.append(at if given_at else times[index])
    flat = [(seconds, index) for index, all_of in want.items() for seconds in all_of]
    for seconds, index in set(flat) ^ set(got):  # on the tolerance's edge it may fall either way
        bounds = [*times[index : index + 2], seconds]
        parts = [((bound - times[0] - edge) * fps) % 1.0 for bound in bounds]
        parts += [((bound - times[0] + edge) * fps) % 1.0 for bound in bounds]
        assert any(min(part, 1 - part) < 1e-5 for part in parts), (seconds, index)


def test_a_picture_that_stays_is_given_at_each_grid_time() -> None:
    got = on_screen([0.0, 2.3, 2.6, 5.5], 1.0, until=8.0)
    assert got == [(0, 0), (1, 0), (2, 0), (2.6, 2), (4, 2), (5, 2), (5.5, 3), (7, 3)]
    assert on_screen([0.0, 2.3, 2.6, 5.5], None, until=8.0) == [
        (0, 0), (2.3, 1), (2.6, 2), (5.5, 3)
    ]  # fmt: skip


def test_the_last_picture_stays_for_the_interval_before_it_where_nothing_is_said() -> None:
    assert on_screen([0.0, 3.0], 1.0) == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]
    assert on_screen([4.0], 1.0) == [(4.0, 0)]


@pytest.mark.parametrize(("end", "longest"), [(10.0, 70), (None, 3600)])
def test_a_picture_that_stays_absurdly_long_is_cut(end: float | None, longest: int) -> None:
    sampler: ShownSampler[int] = ShownSampler(1.0, end)
    frames = [(0.0, 0), (1e9, 1)]
    found = [(one.item, len(list(one.times))) for one in shown(frames, sampler, lambda: None)]
    assert found[0][0] == 0
    assert abs(found[0][1] - longest) <= 1
    assert sampler.cut == 0.0


def test_times_are_made_one_by_one() -> None:
    """A picture of an hour at 10⁹ grid times a second is not a list."""
    sampler: ShownSampler[int] = ShownSampler(1e9)
    one = next(shown([(0.0, 0), (3600.0, 1)], sampler, lambda: None))
    assert list(itertools.islice(one.times, 3)) == pytest.approx([0.0, 1e-9, 2e-9])


def test_live_sampler_takes_the_first_frame_after_each_grid_time() -> None:
    live = LiveSampler(1.0)
    times = [10.0, 10.4, 10.9, 11.2, 11.5, 12.0, 14.7, 14.9, 15.0]
    assert [time for time in times if live.wants(time)] == [10.0, 11.2, 12.0, 14.7, 15.0]


@pytest.mark.parametrize("fps", [0, -1.0, math.nan, math.inf, "fast", True, [1]])
def test_bad_rate_is_refused_with_its_value(fps: object) -> None:
    with pytest.raises(ValueError, match="fps must be a finite number"):
        check_fps(fps)  # type: ignore[arg-type]
