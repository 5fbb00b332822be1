"""Slides of 20 s in a file with a frame for each are watched like the same film at a steady rate.

Siblings: `since` and `until` in the middle of a slide, `ask_every`, captions' segments, `find`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import steady, write_video

import mmkv
from mmkv.demos.captioning.one_video import caption
from mmkv.demos.captioning.settings import Captioning
from mmkv.models.tiny import SAMPLE_VIDEO

STAY = 20  # seconds
QUESTION = "What is there now?"


def slides() -> list[np.ndarray]:
    """Four pictures of the bundled video."""
    with av.open(str(SAMPLE_VIDEO)) as container:
        shown = {round(f.time, 3): f.to_ndarray(format="rgb24") for f in container.decode(video=0)}
    return [shown[second] for second in (1.0, 3.0, 5.0, 6.0)]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The film with a frame for each slide, and at 2 frames per second."""
    folder, pictures = tmp_path_factory.mktemp("slides"), slides()
    size = pictures[0].shape[1], pictures[0].shape[0]
    rare = [1000 * STAY * index for index in range(4)]
    steadily = steady(8 * STAY, 2)
    many = [pictures[index // (2 * STAY)] for index in range(8 * STAY)]
    sharp = {"crf": "4", "bf": "0"}
    return (
        # the last slide is repeated at the end, as screen recorders do
        write_video(
            folder / "rare.mkv",
            [*rare, 4 * 1000 * STAY - 500],
            frames=[*pictures, pictures[-1]],
            size=size,
            options=sharp,
        ),
        write_video(folder / "steady.mkv", steadily, frames=many, size=size, options=sharp),
    )


@pytest.fixture(scope="module")
def vlm() -> mmkv.VideoLM:
    return mmkv.load("mmkv-tiny")


@pytest.fixture(scope="module")
def watched(vlm: mmkv.VideoLM, films: tuple[Path, Path]) -> Iterator[list[mmkv.Stream]]:
    """A stream of each film."""
    with vlm.stream() as rare, vlm.stream() as steadily:
        rare.encode(films[0])
        steadily.encode(films[1])
        yield [rare, steadily]


def test_a_question_about_the_middle_of_a_slide(watched: list[mmkv.Stream]) -> None:
    answers = [s.ask(QUESTION, since=25, until=35, max_new_tokens=16) for s in watched]
    assert all(25 <= frame.seconds <= 35 for answer in answers for frame in answer.frames)
    assert answers[0].text == answers[1].text != ""


def test_asking_again_and_again(vlm: mmkv.VideoLM, films: tuple[Path, Path]) -> None:
    answers = []
    for film in films:
        with vlm.stream() as stream:
            feed = stream.start(film)
            every = stream.ask_every(QUESTION, 10, span=10, max_new_tokens=16)
            answers.append([(answer.as_of, answer.text) for answer in every])
            feed.stop()
    assert len(answers[0]) == 8
    assert answers[0] == answers[1]


def test_captions_have_the_same_segments(vlm: mmkv.VideoLM, films: tuple[Path, Path]) -> None:
    settings = Captioning(every=8.0, max_new_tokens=16)
    rare, steadily = [caption(vlm, film, settings) for film in films]
    assert len(rare.segments) == 10
    assert [(s.start, s.caption) for s in rare.segments] == [
        (s.start, s.caption) for s in steadily.segments
    ]
    assert rare.duration == pytest.approx(80.0, abs=0.6)


def test_find_gives_a_stretch_and_not_an_instant(watched: list[mmkv.Stream]) -> None:
    rare, steadily = [stream.find("red circle", 1)[0] for stream in watched]
    assert rare.start == steadily.start == 20.0
    assert rare.end == pytest.approx(steadily.end, abs=1.5)
    assert 23.0 < rare.end < 40.0
