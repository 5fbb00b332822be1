"""Which adapter serves which architecture. A new family adds one line here."""

from __future__ import annotations

from collections.abc import Sequence

from mmkv.models.base import VideoModel
from mmkv.models.internvl import InternVL
from mmkv.models.llava_onevision import LlavaOnevision
from mmkv.models.qwen2_5_vl import Qwen25VL
from mmkv.models.qwen3_5 import Qwen35
from mmkv.models.qwen3_vl import Qwen3VL
from mmkv.models.smolvlm import SmolVLM

FAMILIES: tuple[type[VideoModel], ...] = (
    LlavaOnevision,
    Qwen25VL,
    Qwen3VL,
    Qwen35,
    InternVL,
    SmolVLM,
)


def adapter_for(architectures: Sequence[str]) -> tuple[type[VideoModel], str]:
    """Find the adapter for a checkpoint's architectures.

    Args:
        architectures: class names, as the checkpoint's configuration lists them.

    Returns:
        the adapter, and the transformers class it serves.

    Raises:
        ValueError: no family supports any of them; the message lists those that are supported.
    """
    for name in architectures:
        for family in FAMILIES:
            if name in family.architectures:
                return family, name
    known = ", ".join(name for family in FAMILIES for name in family.architectures)
    shown = ", ".join(architectures) or "none named"
    raise ValueError(f"no adapter for the architecture {shown}; supported: {known}")
