"""Where a stream's tokens stand: its window and opening tokens, and each block's origin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mmkv import seam
from mmkv.archive import ArchivedBlock
from mmkv.config.resolved import ResolvedConfig
from mmkv.models.base import Block, VideoModel
from mmkv.rotary import Rotary
from mmkv.window import EncodePass, Window

# a block with time text may grow by a few digits over the hours
_SLACK = 12


def open_window(
    adapter: VideoModel, rotary: Rotary, prefix: Sequence[int], config: ResolvedConfig, tokens: int
) -> Window:
    """A window for blocks of about so many tokens, with the prompt's opening in it."""
    patch = adapter.temporal_patch
    local = max(1, -(-config.window_frames // patch)) * tokens
    chunk = max(1, -(-config.chunk_frames // patch)) * (tokens + _SLACK)
    chunk = max(chunk, len(prefix))
    devices = layer_devices(adapter)
    window = Window(adapter.shape, rotary, devices, adapter.dtype, local, chunk, adapter.advances)
    if prefix:
        positions = np.broadcast_to(np.arange(len(prefix)), (adapter.axes, len(prefix)))
        opening = EncodePass(window, positions, sinks=True)
        seam.run(adapter.language_model, opening, adapter.embed_text(prefix))
        opening.commit()
    return window


def origins(
    adapter: VideoModel,
    prefix: int,
    last: ArchivedBlock | None,
    first_seconds: float,
    blocks: Sequence[Block],
) -> list[np.ndarray]:
    """Where blocks begin, `[A]` each, behind the stream's last one.

    Args:
        prefix: tokens before the first frame. first_seconds: time of the first frame.
    """
    first = np.full(adapter.axes, prefix, dtype=np.int64)
    previous = None if last is None else (last.origin, last.layout.advance)
    found = []
    for block in blocks:
        if previous is None:
            origin = first
        else:
            origin = adapter.origin(*previous, first, block.seconds[0] - first_seconds)
        found.append(origin)
        previous = (origin, block.layout.advance)
    return found


def layer_devices(adapter: VideoModel) -> list[torch.device]:
    """The device of each layer's keys, device maps of accelerate included."""
    devices = []
    for layer in adapter.language_model.layers:
        weight = layer.self_attn.k_proj.weight
        device = weight.device
        hook = getattr(layer, "_hf_hook", None)  # none where a model has no weights at all
        if device.type == "meta" and hook is not None:
            device = torch.device(hook.execution_device)
        devices.append(device)
    return devices
