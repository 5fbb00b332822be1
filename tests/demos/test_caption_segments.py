"""Where segments begin and end."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkv.demos.captioning import Captioning
from mmkv.demos.captioning.segments import Cutter, Every, Spans

BLACK = np.zeros((48, 64, 3), np.uint8)


def spans(cutter: Cutter, times: list[float], patch: int = 1) -> list[tuple[float, float, int]]:
    held = Spans(cutter, patch)
    found = [held.add(seconds, BLACK) for seconds in times]
    return [span for span in [*found, held.rest()] if span is not None]


def test_segments_have_the_length_asked_for_counted_from_the_first_frame() -> None:
    times = [0.5 + i for i in range(7)]
    assert spans(Every(3), times) == [(0.5, 2.5, 3), (3.5, 5.5, 3), (6.5, 6.5, 1)]


def test_a_gap_in_the_video_makes_no_empty_segment() -> None:
    assert spans(Every(2), [0.0, 1.0, 9.0]) == [(0.0, 1.0, 2), (9.0, 9.0, 1)]


def test_rounded_times_fall_into_the_segment_they_stand_for() -> None:
    assert [s[2] for s in spans(Every(0.1), [round(i / 30, 3) for i in range(30)])] == [3] * 10


@settings(deadline=None)
@given(
    gaps=st.lists(st.floats(0.04, 3), min_size=1, max_size=40),
    length=st.floats(0.1, 5),
    patch=st.sampled_from([1, 2]),
)
def test_every_frame_is_in_one_segment_and_pairs_stay_together(
    gaps: list[float], length: float, patch: int
) -> None:
    times = np.cumsum(gaps).tolist()
    found = spans(Every(length), times, patch)
    assert sum(count for *_, count in found) == len(times)
    assert all(first <= last for first, last, _ in found)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))
    assert all(count % patch == 0 for *_, count in found[:-1])


class Cuts(Cutter):
    def __init__(self, at: set[float]) -> None:
        self.at = at

    def begins(self, seconds: float, frame: np.ndarray) -> bool:
        return seconds in self.at


def test_a_cut_inside_a_pair_of_frames_waits_for_the_pair_to_end() -> None:
    times = [float(i) for i in range(6)]
    assert spans(Cuts({3.0}), times, patch=2) == [(0.0, 3.0, 4), (4.0, 5.0, 2)]


def test_scenes_are_cut_where_the_picture_changes() -> None:
    pytest.importorskip("scenedetect")
    from mmkv.demos.captioning.scenes import Scenes

    rng = np.random.default_rng(1)
    colours = [(30, 200, 30)] * 5 + [(20, 40, 220)] * 4 + [(220, 220, 30)] * 3
    held, found = Spans(Scenes(1.0), 1), []
    for second, colour in enumerate(colours):
        picture = np.clip(np.array(colour) + rng.normal(0, 4, (48, 64, 3)), 0, 255)
        found.append(held.add(float(second), picture.astype(np.uint8)))
    found.append(held.rest())
    assert [s for s in found if s] == [(0.0, 4.0, 5), (5.0, 8.0, 4), (9.0, 11.0, 3)]


def test_a_scene_without_a_cut_is_captioned_in_parts() -> None:
    pytest.importorskip("scenedetect")
    from mmkv.demos.captioning.scenes import MOST, Scenes

    held = Spans(Scenes(0.1), 1)
    found = [held.add(10.0 * i, BLACK) for i in range(14)] + [held.rest()]
    lengths = [last - first for first, last, _ in (s for s in found if s)]
    assert len(lengths) == 3
    assert max(lengths) < MOST


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"every": 0}, "every=0"),
        ({"fps": float("nan")}, "fps=nan"),
        ({"every": 2, "scenes": True}, "contradict"),
        ({"prompt": " "}, "prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Captioning(**wrong)  # type: ignore[arg-type]


def test_the_digest_differs_with_the_model_and_every_setting() -> None:
    ones = [Captioning(), Captioning(every=3), Captioning(prompt="What?"), Captioning(fps=2)]
    digests = {one.digest(model) for one in ones for model in ("a", "b")}
    assert len(digests) == 8
    assert Captioning(every=3).digest("a") == Captioning(every=3).digest("a")
