"""What a checkpoint says about preparing a frame: its size, and how pixels are normalised."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        max_soft_tokens: the most tokens of a video frame, for families that count these, or None.
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
    max_soft_tokens: int | None = None

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
            # a picture of its own may have more tokens than a frame
            max_soft_tokens=None
            if "image_processor_type" in config
            else config.get("max_soft_tokens"),
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

    def find(name: str) -> str | None:
        return cached_file(folder_or_id, name, _raise_exceptions_for_missing_entries=False, **hub)

    return find_preprocess(folder_or_id, find)


def find_preprocess(name: str, find: Callable[[str], str | Path | None]) -> Preprocess:
    """Read the preprocessing of a checkpoint whose files are found by a function.

    Args:
        name: what errors call the checkpoint.
        find: given the name of a file, its path; None where there is no such file.

    Raises:
        FileNotFoundError: there is no preprocessor configuration.
    """
    for file in (
        "video_preprocessor_config.json",
        "preprocessor_config.json",
        "processor_config.json",
    ):
        path = find(file)
        if path is None:
            continue
        config = json.loads(Path(path).read_text(encoding="utf-8"))
        config = config.get("video_processor") or config.get("image_processor") or config
        if "image_mean" in config:
            return Preprocess.from_dict(config)
    raise FileNotFoundError(
        f"{name} has no preprocessor_config.json with an image_mean; "
        "mmkv needs it to prepare frames as the model was trained"
    )
