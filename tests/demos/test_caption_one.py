"""One video's captions, by the bundled model and by small random ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from caption_clips import right, scenes, write_clip
from small_models import clip as noise
from small_models import small_vlm

import mmkv
from mmkv.demos.captioning import Captioning, caption
from mmkv.models.tiny import SAMPLE_VIDEO
from mmkv.video import FrameSource, VideoError


@pytest.fixture(scope="module")
def tiny() -> mmkv.VideoLM:
    return mmkv.load("mmkv-tiny")


def test_the_sample_videos_scenes_are_captioned_rightly(tiny: mmkv.VideoLM) -> None:
    class Beginning(FrameSource):
        def __iter__(self):  # type: ignore[no-untyped-def]
            with mmkv.video.open_source(SAMPLE_VIDEO, fps=1.0) as frames:
                for seconds, frame in frames:
                    if seconds >= 40:
                        return
                    yield seconds, frame

    found = caption(tiny, Beginning())
    wanted = right(scenes(0, 40))
    exact = sum(s.caption == text for s, text in zip(found.segments, wanted, strict=True))
    assert exact >= 38  # 149 of all 150


def test_segments_follow_each_other_to_the_end_of_the_video(
    tiny: mmkv.VideoLM, tmp_path: Path
) -> None:
    found = caption(tiny, write_clip(tmp_path / "a.mp4", scenes(20, 5)), Captioning(every=2))
    assert [s.start for s in found.segments] == [0.0, 2.0, 4.0]
    assert [s.end for s in found.segments][:2] == [2.0, 4.0]
    assert found.segments[-1].end == found.duration >= 4.5
    assert [s.frames for s in found.segments] == [2, 2, 1]


def test_a_short_videos_summary_is_right(tiny: mmkv.VideoLM, tmp_path: Path) -> None:
    exact = 0
    for number, first in enumerate((20, 33, 60, 90)):
        clip = scenes(first, 3)
        found = caption(tiny, write_clip(tmp_path / f"{number}.mp4", clip))
        exact += found.caption == " then ".join(right(clip))
    assert exact >= 2


def test_keys_and_values_are_packed_by_default(tiny: mmkv.VideoLM) -> None:
    frames = np.zeros((20, 64, 64, 3), np.uint8)
    found = caption(tiny, frames, Captioning(prompt="?", max_new_tokens=1))
    assert found.bits_per_element is not None
    assert 1.5 < found.bits_per_element < 2.5


def test_thumbnails_show_the_segment(tiny: mmkv.VideoLM) -> None:
    frames = np.stack([np.full((64, 64, 3), 60 * i, np.uint8) for i in range(4)])
    found = caption(tiny, frames, Captioning(every=2, max_new_tokens=1), thumbnails=True)
    assert all(segment.thumbnail for segment in found.segments)
    assert found.segments[0].thumbnail != found.segments[1].thumbnail
    assert found._repr_html_().count("<img") == 2


def test_captions_that_were_cut_off_are_told(tiny: mmkv.VideoLM) -> None:
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    found = caption(tiny, frames, Captioning(max_new_tokens=1))
    assert not all(segment.complete for segment in found.segments)
    assert any("cut off at 1 tokens" in warning for warning in found.warnings)


def test_progress_is_told_up_to_the_end(tiny: mmkv.VideoLM) -> None:
    seen: list[float] = []
    frames = np.zeros((9, 64, 64, 3), np.uint8)
    settings = Captioning(max_new_tokens=1, summary="")
    found = caption(tiny, frames, settings, on_progress=lambda at, _: seen.append(at))
    assert seen[-1] == 8.0
    assert found.caption == ""


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_every_family_captions_odd_numbers_of_frames(family: str) -> None:
    vlm = small_vlm(family)
    found = caption(vlm, noise(7).numpy(), Captioning(every=1, max_new_tokens=2, summary="all?"))
    assert sum(segment.frames for segment in found.segments) == 7
    assert all(s.frames % vlm.adapter.temporal_patch == 0 for s in found.segments[:-1])


def test_a_caption_sees_its_own_segment_only(tiny: mmkv.VideoLM) -> None:
    one, other, same = (noise(2, seed=seed, height=64, width=64).numpy() for seed in (1, 2, 3))
    settings = Captioning(every=2, summary="", prompt="What do you see now?")
    alone = caption(tiny, np.concatenate([one, same]), settings)
    later = caption(tiny, np.concatenate([one, same, other]), settings)
    assert [s.caption for s in later.segments[:2]] == [s.caption for s in alone.segments]


def test_a_source_without_an_end_is_refused(tiny: mmkv.VideoLM) -> None:
    class Camera(FrameSource):
        name, live = "camera", True

        def __iter__(self):  # type: ignore[no-untyped-def]
            yield 0.0, np.zeros((64, 64, 3), np.uint8)

    with pytest.raises(VideoError, match="has no end"):
        caption(tiny, Camera())


def test_a_video_without_frames_is_told(tiny: mmkv.VideoLM) -> None:
    class Nothing(FrameSource):
        name = "nothing"

        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(())

    with pytest.raises(VideoError, match="nothing: no frame could be read"):
        caption(tiny, Nothing())
