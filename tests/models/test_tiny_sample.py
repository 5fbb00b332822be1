"""The sample video shows what its notes say."""

from __future__ import annotations

import json
from typing import Any

import av
import numpy as np
import pytest

import mmkv
from mmkv.models.tiny import SAMPLE_NOTES, SAMPLE_VIDEO
from mmkv.models.tiny.sample import notes, sample_clip
from mmkv.models.tiny.world import COLOURS, PLACES


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return json.loads(SAMPLE_NOTES.read_text())


@pytest.fixture(scope="module")
def frames() -> dict[float, np.ndarray]:
    """The frame at every whole second."""
    found = {}
    with av.open(str(SAMPLE_VIDEO)) as container:
        for frame in container.decode(video=0):
            assert frame.time is not None
            if abs(frame.time - round(frame.time)) < 1e-6:
                found[round(frame.time)] = frame.to_ndarray(format="rgb24")
    return found


def test_the_video_is_small_and_minutes_long(written: dict[str, Any]) -> None:
    assert SAMPLE_VIDEO.stat().st_size < 2e6
    assert written["duration"] > 120
    assert len(written["scenes"]) >= 60


def test_the_notes_are_what_the_script_writes(written: dict[str, Any]) -> None:
    assert written == json.loads(json.dumps(notes(sample_clip())))


def test_every_scene_is_in_the_picture(
    written: dict[str, Any], frames: dict[float, np.ndarray]
) -> None:
    for scene in written["scenes"]:
        second = next(s for s in frames if scene["start"] <= s < scene["end"])
        picture = frames[second].astype(int)
        for i, place in enumerate(PLACES):
            row, column = i // 2 * 128, i % 2 * 128
            part = picture[row : row + 128, column : column + 128].reshape(-1, 3)
            painted = part[part.max(1) > 110]
            if place not in scene["objects"]:
                assert len(painted) < 20
                continue
            colour = np.median(painted, axis=0)
            nearest = min(COLOURS, key=lambda c: float(np.abs(colour - COLOURS[c]).sum()))
            assert nearest == scene["objects"][place].split()[0]


def test_questions_name_an_object_that_is_seen_in_one_scene(written: dict[str, Any]) -> None:
    objects = [o for scene in written["scenes"] for o in scene["objects"].values()]
    for question in written["questions"]:
        named = [o for o in set(objects) if o in question["question"].lower()]
        assert question["kind"] in ("now", "exists", "colour", "shape") or named
        assert all(objects.count(o) == 1 for o in named)


def test_the_demo_question_is_about_the_first_tenth(written: dict[str, Any]) -> None:
    assert written["questions"][0]["seconds"][1] <= written["duration"] / 10


def test_most_questions_about_the_video_are_answered_rightly(written: dict[str, Any]) -> None:
    right = {}
    with mmkv.load("mmkv-tiny").stream() as stream:
        stream.encode(SAMPLE_VIDEO, fps=1.0)
        for question in written["questions"]:
            right[question["question"]] = (
                stream.ask(question["question"]).text == question["answer"]
            )
    assert right[written["questions"][0]["question"]]  # the demo's
    assert sum(right.values()) >= 21
