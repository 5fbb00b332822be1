"""Frames to normalised pixels on the model's device, from the checkpoint's own configuration.

The stock video processors need torchvision; this reads the same files and does the same steps:
resize with antialiasing, round and clamp to 0..255, rescale, normalise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkv.models.grid import Grid

# PIL's numbering, which preprocessor configurations use
_RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What a checkpoint's preprocessor configuration says about one frame.

    Attributes:
        mean: per channel, of values in 0..1.
        std: standard deviation, the same way.
        rescale: factor from 0..255 to 0..1.
        resample: interpolation mode.
        height: a fixed size in pixels, or None.
        width: the same across.
        min_pixels: lower bound for families that choose the size, or None.
        max_pixels: upper bound, the same way.
        longest_edge: pixels that a frame's longer side is brought to first, keeping the frame's
            shape, where the stock processor resizes twice; or None.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float = 1 / 255
    resample: str = "bicubic"
    height: int | None = None
    width: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    longest_edge: int | None = None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Preprocess:
        """Read a `preprocessor_config.json` or `video_preprocessor_config.json`."""
        size = config.get("size") or {}
        if isinstance(size, int):
            size = {"height": size, "width": size}
        if "max_image_size" in config:  # SmolVLM: the longer side first, then a square
            first = (config.get("video_sampling") or {}).get("video_size") or size
            square = config["max_image_size"]["longest_edge"]
            size = {"height": square, "width": square}
            longest = first["longest_edge"]
        else:
            longest = None
        edge = size.get("shortest_edge") if "longest_edge" not in size else None
        return cls(
            mean=tuple(config.get("image_mean", (0.5, 0.5, 0.5))),
            std=tuple(config.get("image_std", (0.5, 0.5, 0.5))),
            rescale=config.get("rescale_factor", 1 / 255),
            resample=_RESAMPLE.get(config.get("resample", 3), "bicubic"),
            height=size.get("height", edge),
            width=size.get("width", edge),
            min_pixels=config.get("min_pixels") or size.get("shortest_edge"),
            max_pixels=config.get("max_pixels") or size.get("longest_edge"),
            longest_edge=longest,
        )


def read_preprocess(folder_or_id: str, **hub: Any) -> Preprocess:
    """Read the preprocessing of a checkpoint.

    Args:
        folder_or_id: a local folder, or a Hub id.
        hub: further arguments of `transformers.utils.cached_file`, such as `revision`.

    Raises:
        FileNotFoundError: the checkpoint has no preprocessor configuration.
    """
    from transformers.utils import cached_file

    for name in (
        "video_preprocessor_config.json",
        "preprocessor_config.json",
        "processor_config.json",
    ):
        path = cached_file(folder_or_id, name, _raise_exceptions_for_missing_entries=False, **hub)
        if path is None:
            continue
        config = json.loads(Path(path).read_text())
        config = config.get("video_processor") or config.get("image_processor") or config
        if "image_mean" in config:
            return Preprocess.from_dict(config)
    raise FileNotFoundError(
        f"{folder_or_id} has no preprocessor_config.json with an image_mean; "
        "mmkv needs it to prepare frames as the model was trained"
    )


def fit_frames(frames: Tensor, grid: Grid, config: Preprocess) -> Tensor:
    """Resize and normalise frames; one of another shape than the grid's is letterboxed.

    Args:
        frames: uint8 `[n, H, W, 3]` on any device.
        grid: the size to reach, and the shape of frame that fills it.
        config: how to resize and normalise.

    Returns:
        float32 `[n, 3, grid.height, grid.width]` on the same device.
    """
    pixels = frames.permute(0, 3, 1, 2).float()  # [n, 3, H, W]
    height, width = pixels.shape[-2:]
    # the shape of the first frame maps onto the whole grid, as the stock processors do
    scale = min(grid.source_height / height, grid.source_width / width)
    rows = max(1, round(height * scale / grid.source_height * grid.height))
    cols = max(1, round(width * scale / grid.source_width * grid.width))
    if config.longest_edge is not None:
        pixels = _resize(pixels, _fit_within(height, width, config.longest_edge), config.resample)
    pixels = _resize(pixels, (rows, cols), config.resample)
    top, left = (grid.height - rows) // 2, (grid.width - cols) // 2
    if (rows, cols) != (grid.height, grid.width):
        pixels = F.pad(pixels, (left, grid.width - cols - left, top, grid.height - rows - top))
    mean = torch.tensor(config.mean, device=pixels.device).view(1, 3, 1, 1) / config.rescale
    std = torch.tensor(config.std, device=pixels.device).view(1, 3, 1, 1) / config.rescale
    return pixels.sub_(mean).div_(std)


def _resize(pixels: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if pixels.shape[-2:] == size:
        return pixels
    pixels = F.interpolate(pixels, size=size, mode=mode, antialias=mode != "nearest")
    return pixels.round_().clamp_(0, 255)


def _fit_within(height: int, width: int, edge: int) -> tuple[int, int]:
    """Return the size whose longer side is `edge`; the other is rounded down, then up to even."""
    ratio = width / height  # in this order of operations, as the stock processor rounds
    if width >= height:
        short = int(edge / ratio)
        return max(1, short + short % 2), edge
    short = int(edge * ratio)
    return edge, max(1, short + short % 2)
