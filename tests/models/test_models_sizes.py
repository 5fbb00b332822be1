"""Frames become as many tokens as a checkpoint or `max_pixels` says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from small_models import EVERY, PREPROCESS, small_vlm

from mmkv.models.internvl import InternVL
from mmkv.models.llava_onevision import LlavaOnevision
from mmkv.models.qwen2_5_vl import Qwen25VL
from mmkv.models.qwen3_vl import Qwen3VL
from mmkv.models.smolvlm import SmolVLM

REAL = {
    LlavaOnevision: lambda: transformers.LlavaOnevisionConfig(),
    Qwen25VL: lambda: transformers.Qwen2_5_VLConfig(),
    Qwen3VL: lambda: transformers.Qwen3VLConfig(),
    InternVL: lambda: transformers.InternVLConfig(),
    SmolVLM: lambda: transformers.SmolVLMConfig(
        vision_config={"image_size": 512, "patch_size": 16}, scale_factor=4
    ),
}


def real(family: Any, max_pixels: int | None = None) -> Any:
    """An adapter of the family's published sizes, without weights."""
    model = SimpleNamespace(config=REAL[family]())
    tokenizer = small_vlm("qwen3_vl").tokenizer
    return family(model, tokenizer, PREPROCESS, max_pixels)


@pytest.mark.parametrize("family", sorted({*REAL} - {InternVL}, key=str))  # it fixes 256
@pytest.mark.parametrize("size", [(1080, 1920), (1920, 1080), (2160, 3840), (480, 640)])
def test_a_frame_stays_under_two_hundred_tokens_by_default(
    family: Any, size: tuple[int, int]
) -> None:
    adapter = real(family)
    grid = adapter.grid(*size)
    assert grid.tokens < 200
    if adapter.temporal_patch == 2:
        side = adapter._factor
        assert (grid.height % side, grid.width % side) == (0, 0)
        assert abs(grid.height / grid.width / (size[0] / size[1]) - 1) < 0.15


def test_the_published_sizes_are_what_these_tests_stand_on() -> None:
    assert real(LlavaOnevision).grid(1080, 1920).tokens == 196
    assert real(InternVL).grid(1080, 1920).tokens == 256
    assert real(SmolVLM).grid(1080, 1920).tokens == 64
    assert real(Qwen25VL)._factor == 28
    assert real(Qwen3VL)._factor == 32


@pytest.mark.parametrize("family", [Qwen25VL, Qwen3VL])
@pytest.mark.parametrize("limit", [32 * 32, 100_000, 400_000])
@pytest.mark.parametrize("size", [(1080, 1920), (1, 1), (20, 3000), (3000, 20), (7, 9)])
def test_max_pixels_bounds_a_frame_of_any_shape(
    family: Any, limit: int, size: tuple[int, int]
) -> None:
    adapter = real(family, limit)
    grid = adapter.grid(*size)
    assert grid.tokens >= 1
    assert grid.tokens <= max(limit // adapter._factor**2, 3000 // 20)


@pytest.mark.parametrize("family", list(EVERY))
def test_max_pixels_too_small_says_what_is_allowed(family: str) -> None:
    with pytest.raises(ValueError, match="max_pixels=10 is"):
        small_vlm(family, max_pixels=10).tokens_per_frame()
