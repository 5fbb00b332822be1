"""Where a stream's tokens stand: its window and opening tokens, and each block's origin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmkv.archive import CachedBlock
from mmkv.config.resolved import ResolvedConfig
from mmkv.encode.window import EncodePass, Window
from mmkv.engine import hooks
from mmkv.engine.carry import new_carry
from mmkv.engine.devices import layer_devices
from mmkv.engine.rotary import Rotary
from mmkv.models.base import VideoModel
from mmkv.models.block import Block

# a block with time text may grow by a few digits over the hours
_SLACK = 12


def open_window(
    adapter: VideoModel, rotary: Rotary, prefix: Sequence[int], config: ResolvedConfig, tokens: int
) -> Window:
    """Make a window for blocks of about so many tokens, with the prompt's opening in it."""
    patch = adapter.temporal_patch
    local = max(1, -(-config.window_frames // patch)) * tokens
    chunk = max(1, -(-config.chunk_frames // patch)) * (tokens + _SLACK)
    chunk = max(chunk, len(prefix))
    devices = layer_devices(adapter)
    carry = new_carry(adapter)
    window = Window(
        adapter.shape, rotary, devices, adapter.dtype, local, chunk, adapter.advances, carry
    )
    if prefix:
        positions = np.broadcast_to(np.arange(len(prefix)), (adapter.axes, len(prefix)))
        opening = EncodePass(window, positions, sinks=True)
        embeds = adapter.embed_text(prefix)
        extras = adapter.token_inputs(prefix) | adapter.keys_only
        hooks.run(adapter, opening, embeds, opening.carry, opening.local, **extras)
        opening.commit()
    return window


def origins(
    adapter: VideoModel,
    prefix: int,
    last: CachedBlock | None,
    first_seconds: float,
    blocks: Sequence[Block],
) -> list[np.ndarray]:
    """Return where blocks begin, `[A]` each.

    Args:
        adapter: the model.
        prefix: tokens before the first frame.
        last: the stream's last block, which these follow; None for none.
        first_seconds: time of the first frame.
        blocks: in time order.
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
