"""Preprocessing follows the checkpoint's own configuration."""

from __future__ import annotations

import pytest
import torch
from small_models import clip
from transformers.models.smolvlm.video_processing_smolvlm import get_resize_output_image_size

from mmkv.models.fit import fit_frames
from mmkv.models.grid import Grid
from mmkv.models.preprocess import Preprocess

SMOLVLM2 = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 1,
    "size": {"longest_edge": 2048},
    "max_image_size": {"longest_edge": 512},
}


def test_smolvlm_frames_become_squares_by_way_of_their_longer_side() -> None:
    read = Preprocess.from_dict(SMOLVLM2)
    assert (read.longest_edge, read.height, read.width) == (2048, 512, 512)
    assert (read.min_pixels, read.max_pixels) == (None, None)


def test_the_size_of_sampled_videos_comes_before_that_of_images() -> None:
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}}
    assert Preprocess.from_dict({**SMOLVLM2, "video_sampling": sampling}).longest_edge == 512


@pytest.mark.parametrize("size", [(1080, 1920), (1920, 1080), (35, 64), (64, 35), (7, 900), (5, 5)])
def test_the_first_of_two_sizes_is_the_stock_processors(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    sizes, resize = [], torch.nn.functional.interpolate

    def noted(pixels: torch.Tensor, size: tuple[int, int], **more: object) -> torch.Tensor:
        sizes.append(size)
        return resize(pixels, size=size, **more)

    monkeypatch.setattr("mmkv.models.fit.F.interpolate", noted)
    config = Preprocess((0.5,) * 3, (0.5,) * 3, longest_edge=96)
    frames = clip(1, height=size[0], width=size[1])
    fit_frames(frames, Grid(48, 48, 3, 3, *size), config)
    assert sizes == [get_resize_output_image_size(frames.permute(0, 3, 1, 2), 96), (48, 48)]
