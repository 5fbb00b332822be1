"""How fast an archive grows, in a unit that suits the video; and one thing is not "1 things"."""

from __future__ import annotations

import pytest

from mmkv.cli.messages import growth
from mmkv.config.units import counted


@pytest.mark.parametrize(
    ("gb_per_hour", "fps", "seconds", "told"),
    [
        (0.36, 1.0, 3600.0, "0.36 GB per hour of video"),
        (0.36, 1.0, 300.0, "0.36 GB per hour of video"),
        (0.36, 1.0, 299.0, "100 MB per 1,000 frames"),
        (0.36, 2.0, 9.0, "50 MB per 1,000 frames"),
        (0.00036, 1.0, 9.0, "100 kB per 1,000 frames"),
        (0.36, None, None, "0.36 GB per hour of video"),
        (None, None, 0.0, ""),
    ],
)
def test_a_short_video_is_measured_in_frames(
    gb_per_hour: float | None, fps: float | None, seconds: float | None, told: str
) -> None:
    assert growth(gb_per_hour, fps, seconds) == told


@pytest.mark.parametrize(("n", "told"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames")])
def test_one_is_singular(n: int, told: str) -> None:
    assert counted(n, "frame") == told
