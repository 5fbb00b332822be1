"""Short videos of drawn scenes, one a second, with what a right caption of each says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from video_files import write_video

from mmkv.models.tiny.questions import Clip, listing
from mmkv.models.tiny.sample import draw_scene, sample_clip


def scenes(first: int, count: int) -> Clip:
    """Some scenes of the sample video."""
    return Clip(sample_clip().scenes[first : first + count])


def write_clip(path: Path, clip: Clip) -> Path:
    """A video of it, a scene a second."""
    rng = np.random.default_rng(0)
    pictures = [picture for scene in clip.scenes for picture in [draw_scene(scene, rng)] * 4]
    times = [250 * i for i in range(len(pictures))]
    return write_video(path, times, size=(256, 256), frames=pictures, options={"crf": "18"})


def right(clip: Clip) -> list[str]:
    """What each scene shows, in the bundled model's words."""
    return [listing(scene) for scene in clip.scenes]
