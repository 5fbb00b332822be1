"""Families that take frames in pairs, given an odd number of frames or a single one.

The stock processor doubles the last frame and its time. It raises for a single frame, by a check
of sizes; the functions behind that check would double it too, as mmkv does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import clip, small_vlm
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

# earlier releases of transformers import torchvision here, which the tests do without
video_processing = pytest.importorskip("transformers.models.qwen3_vl.video_processing_qwen3_vl")
FPS = 2.0


def watched(
    family: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[torch.Tensor, torch.Tensor, list[str], Any]:
    """Normalised frames that enter the tower, the rows cut from them, and the texts of pairs."""
    vlm = small_vlm(family)
    adapter = vlm.adapter
    patches, layout = adapter.patches, adapter.layout
    pixels, rows, texts = [], [], []

    def noted_patches(frames: torch.Tensor, grid: Any) -> Any:
        cut, thw = patches(frames, grid)
        pixels.append(frames)
        rows.append(cut)
        return cut, thw

    def noted_layout(*arguments: Any) -> Any:
        found = layout(*arguments)
        if pixels:  # before, a stream only measures how long such a text is
            texts.append(vlm.tokenizer.decode(list(found.before)))
        return found

    monkeypatch.setattr(adapter, "patches", noted_patches)
    monkeypatch.setattr(adapter, "layout", noted_layout)
    with vlm.stream() as stream:
        stream.feed(clip(count), np.arange(count) / FPS)
        answer = stream.ask("What?", max_new_tokens=1)
    assert answer.as_of == (count - 1) / FPS
    return torch.cat(pixels), torch.cat(rows), texts, adapter.config.vision_config


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_pixels_are_the_stock_processors(
    family: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = video_processing.Qwen3VLVideoProcessor
    if not hasattr(processor, "patchify"):
        pytest.skip("this transformers cuts patches within a longer function")
    pixels, rows, _, vision = watched(family, count, monkeypatch)
    assert len(pixels) == count + count % 2
    stock, *_ = processor.patchify(
        None, pixels[None, :count], vision.patch_size, vision.spatial_merge_size, 2
    )
    assert torch.equal(rows, stock.reshape(rows.shape))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
def test_times_are_the_stock_processors(
    family: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pair shows the mean of its frames' times, a frame without a partner its own."""
    _, _, texts, _ = watched(family, count, monkeypatch)
    stamps = Qwen3VLProcessor._calculate_timestamps(None, list(range(count)), FPS)
    assert texts == [f"<{seconds:.1f} seconds><|vision_start|>" for seconds in stamps]


def test_the_stock_processor_takes_no_single_frame() -> None:
    with pytest.raises(ValueError, match="t:1 must be larger"):
        video_processing.smart_resize(1, 480, 640)
