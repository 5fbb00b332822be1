"""What a model costs, from its configuration alone: no weights, and neither torch nor transformers.

Formulas are those of the engine: an adapter without a model says how many tokens a frame becomes,
`models/layers.py` what each layer keeps, `mmkv/codecs/sizes.py` what packed pages take.
"""

from __future__ import annotations

from collections import Counter
from math import ceil
from types import SimpleNamespace
from typing import Any, get_args

from mmkv.codecs.sizes import page_bits, page_tokens
from mmkv.config.defaults import MAX_RAM, PAGE_SECONDS
from mmkv.config.units import parse_bytes
from mmkv.models.base import VideoModel
from mmkv.models.checkpoint import CheckpointFiles
from mmkv.models.config_file import Unreadable, read_config
from mmkv.models.layers import Kind, carried
from mmkv.models.preprocess import find_preprocess
from mmkv.models.registry import adapter_for
from mmkv.models.tokenizer_file import TokenizerFile

PACKED = ((4, 4), (2, 2), (1.5, 2), (1.5, 1.58))  # key and value bits that are shown
FRAME = (1080, 1920)
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def cost_of(
    name: str,
    fps: float,
    *,
    path: str | None = None,
    revision: str | None = None,
    max_pixels: int | None = None,
    dtype: str | None = None,
) -> dict[str, Any]:
    """Work out what a 1080p video costs with a model.

    Args:
        name: what the model is called.
        fps: frames per second of video.
        path: where it is, if not under its name.
        revision: branch or commit on the Hub.
        max_pixels: limits a frame's pixels.
        dtype: of keys and values; None: the checkpoint's.

    Returns:
        sizes in bytes, and rates in GB (10^9 bytes) per hour of video; see `describe`.

    Raises:
        OSError: there is no such checkpoint, or a file is missing.
        ValueError: mmkv cannot stream the model; the message says why.
    """
    files = CheckpointFiles(path or name, revision)
    values = files.config()
    family, architecture = _adapter(values)
    preprocess = find_preprocess(name, files.find)
    tokenizer = TokenizerFile(files.find)

    def told(config: Any) -> dict[str, Any]:
        adapter = family(SimpleNamespace(config=config), tokenizer, preprocess, max_pixels)
        return describe(adapter, fps, dtype or _dtype(values))

    try:
        cost = told(read_config(values))
    except (Unreadable, AttributeError, NameError):  # an attribute that only its own code makes
        cost = told(_transformers_config(architecture, values))
    weights = {"weight_bytes": files.weight_bytes(), "text_counted": not tokenizer.missing}
    return {"name": name, **cost, **weights}


def describe(adapter: VideoModel, fps: float, dtype: str) -> dict[str, Any]:
    """Work out what 1080p frames cost.

    Args:
        adapter: of a model, which needs no more than a configuration.
        fps: frames per second of video.
        dtype: of keys and values.

    Returns:
        `layers`: how many of each kind; `tokens_per_frame`, text included; of keys and values in
        `dtype`: `bytes_per_token`, `bytes_per_frame`, `gb_per_hour`; `fp16`: the same in 16 bits;
        `packed`: for each setting, bits per element and GB per hour; `carried`: bytes of the state
        that does not grow, None where it is not known.
    """
    element, shape = BYTES[dtype], adapter.shape
    grid, patch = adapter.grid(*FRAME), adapter.temporal_patch
    times = [i / fps for i in range(patch)]
    block = int(adapter.layout(grid, times, 1).offsets.shape[1])
    tokens = block / patch
    hourly = tokens * shape.elements * fps * 3600 / 1e9  # elements

    def plain(size: int) -> dict[str, float]:
        token = adapter.elements * size
        return {
            "bytes_per_token": token,
            "bytes_per_frame": tokens * token,
            "gb_per_hour": tokens * token * fps * 3600 / 1e9,
        }

    blocks = min(ceil(page_tokens(block) / block), ceil((PAGE_SECONDS * fps + 1) / patch))
    packed = []
    for keys, values in PACKED if shape.head_dim % 16 == 0 else ():
        bits = page_bits((keys, values), shape.kv_heads, shape.head_dim, [block] * blocks)
        sizes = {"bits_per_element": bits, "gb_per_hour": hourly * bits / 8}
        packed.append({"key_bits": keys, "value_bits": values, **sizes})
    kinds = Counter(layer.kind for layer in adapter.layers)
    state = carried(adapter.text_config, adapter.layers, element)
    return {
        "family": adapter.family,
        "dtype": dtype,
        "layers": {kind: kinds[kind] for kind in get_args(Kind) if kind in kinds},
        "frames_per_block": patch,
        "time": adapter.time,
        "fps": fps,
        "tokens_per_frame": tokens,
        **plain(element),
        "fp16": plain(2),
        "packed": packed,
        "carried": None if state is None else {
            "recurrent": state.recurrent,
            "convolution": state.convolution,
            "windows": state.windows,
            "total": state.total,
        },
        "max_ram": parse_bytes("max_ram", MAX_RAM),
    }  # fmt: skip


def _adapter(values: dict[str, Any]) -> tuple[type[VideoModel], str]:
    """Find the adapter; a checkpoint with code of its own is told that this is why."""
    try:
        return adapter_for(values.get("architectures") or [])
    except ValueError as error:
        if "auto_map" not in values:
            raise
        raise ValueError(
            f"{error}; this checkpoint brings code of its own, which mmkv never runs"
        ) from None


def _dtype(values: dict[str, Any]) -> str:
    """Return a checkpoint's element type; older files call it `torch_dtype`."""
    text = values.get("text_config") or {}
    places = [part.get(name) for part in (values, text) for name in ("dtype", "torch_dtype")]
    return next((name for name in places if name in BYTES), "float32")


def _transformers_config(architecture: str, values: dict[str, Any]) -> Any:
    """Read a configuration with transformers' own class, which takes seconds to import."""
    import transformers

    return getattr(transformers, architecture).config_class.from_dict(values)
