"""Minutes of what `python -m benchmarks.soak` does for half an hour, within the same bounds."""

from __future__ import annotations

import threading

import pytest

import mmkv
from benchmarks.soak import GROWTH, problems, run
from benchmarks.soak_camera import OBJECTS, pictures, shown


@pytest.mark.slow
def test_three_minutes_with_a_failing_camera_stay_within_all_bounds() -> None:
    result = run(mmkv.load("mmkv-tiny"), 3.0, every=10.0)
    assert result["problems"] == []
    assert result["reconnects"] >= 3
    assert result["frames"] > result["frames_kept"] > 0
    assert not [one.name for one in threading.enumerate() if one.name.startswith("soak")]


def test_the_bundled_model_knows_every_picture_of_the_camera() -> None:
    frames = pictures()
    assert [shown(frame, frames) for frame in frames] == list(OBJECTS)
    with mmkv.load("mmkv-tiny").stream() as stream:
        for number, frame in enumerate(frames):
            stream.feed(frame, float(number))
            assert stream.ask("what is at the top left now?").text == OBJECTS[number]


@pytest.mark.parametrize("name", GROWTH)
def test_what_grows_beyond_its_bound_is_named(name: str) -> None:
    steady = dict.fromkeys(GROWTH, 40.0) | {"store_mb": 7.0}
    result = {"questions": {"right": 5}, "failures": [], "files_left_open": 0}
    assert problems(result, [steady, steady]) == []
    grown = {**steady, name: steady[name] + GROWTH[name] + 1}
    (found,) = problems(result, [steady, grown])
    assert found.startswith(name)


def test_wrong_answers_and_open_files_are_named() -> None:
    steady = dict.fromkeys(GROWTH, 40.0) | {"store_mb": 7.0}
    result = {"questions": {"wrong": 1}, "failures": ["at 1 s"], "files_left_open": 5}
    found = problems(result, [steady])
    assert len(found) == 3
    assert "1 answers wrong: at 1 s" in found
