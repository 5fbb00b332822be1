"""Cuts between scenes, by PySceneDetect's content detector on the frames that are looked at.

The detector compares hue, saturation and brightness of neighbouring frames, averaged over the
picture; a mean change above 27 (of 255) is a cut, PySceneDetect's own default. A scene lasts at
least two frames, and one longer than a minute is captioned in parts.
"""

from __future__ import annotations

import numpy as np

from mmkv.demos.captioning.segments import Cutter, Every
from mmkv.demos.captioning.settings import Captioning
from mmkv.video import Frame, VideoError

THRESHOLD, LEAST, MOST = 27.0, 2, 60.0  # mean change of 255, frames, seconds
_SIDE = 256  # pixels; more detail says nothing about cuts


class Scenes(Cutter):
    """Cuts found in the frames as they arrive.

    Args:
        fps: frames looked at per second of video.

    Raises:
        VideoError: PySceneDetect is not installed.
    """

    def __init__(self, fps: float) -> None:
        try:
            from scenedetect import FrameTimecode
            from scenedetect.detectors import ContentDetector
        except ImportError:
            raise VideoError(
                "cutting into scenes needs PySceneDetect: pip install 'mmkv-video[scenes]', or "
                "use --every SECONDS"
            ) from None
        self._timecode, self._fps = FrameTimecode, fps
        self._detector = ContentDetector(threshold=THRESHOLD, min_scene_len=0)
        self._seen = self._held = 0
        self._first = 0.0

    def begins(self, seconds: float, frame: Frame) -> bool:
        """Return whether a scene, or a further part of a long one, begins with this frame."""
        step = max(1, max(frame.shape[:2]) // _SIDE)
        small = np.ascontiguousarray(frame[::step, ::step, ::-1])  # BGR
        cuts = self._detector.process_frame(self._timecode(self._seen, self._fps), small)
        self._seen += 1
        new = bool(cuts) and self._held >= LEAST
        if self._seen == 1 or new or seconds - self._first >= MOST:
            self._first, self._held = seconds, 1
            return self._seen > 1
        self._held += 1
        return False


def make_cutter(settings: Captioning) -> Cutter:
    """Make the cutter for settings whose defaults are decided (`Captioning.for_model`)."""
    if settings.scenes:
        return Scenes(settings.fps)
    assert settings.every is not None
    return Every(settings.every)
