"""Which adapter serves which architecture. A new family adds one line here."""

from __future__ import annotations

from collections.abc import Sequence

from mmkv.models.base import VideoModel
from mmkv.models.gemma4 import Gemma4
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
    Gemma4,
    InternVL,
    SmolVLM,
)


# architectures of which it is known why they are not served
REFUSED: dict[str, str] = {
    "Molmo2ForConditionalGeneration": (
        "all its frames attend to each other, earlier ones to later ones too, so that no frame "
        "could be encoded before the last one has come"
    ),
    "InternVLChatModel": (
        "it is code that comes with its checkpoint, and mmkv never runs such code; take the "
        "checkpoint whose name ends in -hf"
    ),
}


def adapter_for(
    architectures: Sequence[str], *, own_code: bool = False
) -> tuple[type[VideoModel], str]:
    """Find the adapter for a checkpoint's architectures.

    Args:
        architectures: class names, as the checkpoint's configuration lists them.
        own_code: whether the checkpoint comes with code of its own (`auto_map`).

    Returns:
        the adapter, and the transformers class it serves.

    Raises:
        ValueError: no family supports any of them; the message says why, where that is known, and
            lists those that are supported.
    """
    for name in architectures:
        for family in FAMILIES:
            if name in family.architectures:
                return family, name
    known = ", ".join(name for family in FAMILIES for name in family.architectures)
    shown = ", ".join(architectures) or "none named"
    for name in architectures:
        if name in REFUSED:
            raise ValueError(f"{name} is not supported: {REFUSED[name]}; supported: {known}")
    if own_code and architectures and not any(_in_transformers(name) for name in architectures):
        raise ValueError(
            f"the architecture {shown} is not in the installed transformers but in code that comes "
            f"with the checkpoint, and mmkv never runs such code; supported: {known}"
        )
    raise ValueError(f"no adapter for the architecture {shown}; supported: {known}")


def _in_transformers(name: str) -> bool:
    import transformers

    return hasattr(transformers, name)
