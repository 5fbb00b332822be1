"""The carried state of an earlier moment: the nearest snapshot before it, brought up to it.

Exact where the archive keeps what the window showed then (codec "fp16", nothing thinned); at the
snapshots themselves, and from a state in memory, always. Elsewhere the window's past comes from
packed keys and values.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmkv.archive import Archive, CachedBlock, Snapshot
from mmkv.archive.blocks import index_of
from mmkv.encode.frame_encoder import FrameEncoder, last_visible, token_ids
from mmkv.encode.resume import restore_window
from mmkv.encode.state_log import StateLog
from mmkv.encode.window import EncodePass, Window
from mmkv.engine import hooks
from mmkv.engine.carry import Carry
from mmkv.models.base import VideoModel
from mmkv.store import StoreError


class NoStateError(ValueError):
    """The state that a model carried at an earlier moment cannot be had any more."""


Known = tuple[int, Carry]  # the number of a block, -1 for the stream's opening; the state after it


def state_after(
    block: CachedBlock,
    frame_encoder: FrameEncoder,
    archive: Archive,
    log: StateLog,
    window: Window,
    block_tokens: int,
    known: Sequence[Known] = (),
    *,
    lost: list[str] | None = None,
) -> Carry:
    """Return the state after a block of the archive.

    Args:
        block: the block.
        frame_encoder: of the stream.
        archive: of the stream.
        log: of the stream.
        window: of the stream; not changed.
        block_tokens: what the window was opened for.
        known: states in memory; they are not changed.
        lost: where to say what is missing on the way, to go on without it; None: raise.

    Raises:
        NoStateError: something needed for it is no longer kept, or damaged.
    """
    past = archive.snapshot()
    assert window.carry is not None
    at, state, damage = _nearest(past.blocks, block, past, log, window.carry, known)
    if state is not None and at == block.index:
        return state.fork()
    there = frame_encoder.open(block_tokens)
    missing: list[str] = []
    if state is not None and at >= 0:
        there.carry = state.fork()
        damaged = restore_window(there, archive, window.far_distance, stop=at)
        if damaged is not None or not there.gapless:
            missing.append(str(damaged or "frames that the window showed then"))
    following = _between(past.blocks, at, block.index)
    if len(following) != block.index - at:
        missing.append("frames before that moment")
    like = frame_encoder.adapter.embed_text([0])[0]
    replayed: list[tuple[CachedBlock, Tensor]] = []
    for one in following:
        try:
            embeds = log.embeds(past, one, like)
        except StoreError as error:
            missing.append(str(error))
            continue
        if embeds is None:
            missing.append(f"what the model was given at {one.seconds[0]:.2f} s")
        else:
            replayed.append((one, embeds))
    if missing and lost is None:
        raise NoStateError("; ".join(dict.fromkeys(missing))) from damage
    if lost is not None:
        lost += missing
    replay(frame_encoder.adapter, there, replayed)
    assert there.carry is not None
    return there.carry


def replay(
    adapter: VideoModel, window: Window, blocks: Sequence[tuple[CachedBlock, Tensor]]
) -> None:
    """Run archived blocks through the model again.

    Args:
        adapter: the model.
        window: as it was before them; afterwards, as it was after them.
        blocks: with their input embeddings `[T, D]`, in time order.
    """
    while blocks:
        total = np.cumsum([block.tokens for block, _ in blocks])
        take = max(1, int(np.searchsorted(total, window.chunk, side="right")))
        part, embeds = zip(*blocks[:take], strict=True)
        positions = np.concatenate([b.layout.offsets + b.origin[:, None] for b in part], axis=1)
        window.seen = part[0].start
        layouts = [block.layout for block in part]
        encode = EncodePass(window, positions, last=last_visible(adapter, layouts))
        extras = adapter.token_inputs(token_ids(adapter, layouts)) | adapter.keys_only
        hooks.run(adapter, encode, torch.cat(embeds), encode.carry, encode.local, **extras)
        encode.commit()
        blocks = blocks[take:]


def _between(blocks: Sequence[CachedBlock], after: int, stop: int) -> Sequence[CachedBlock]:
    """Return the blocks whose numbers are above `after` and at most `stop`."""
    first, last = (bisect_right(blocks, number, key=index_of) for number in (after, stop))
    return blocks[first:last]


def _nearest(
    blocks: Sequence[CachedBlock],
    block: CachedBlock,
    past: Snapshot,
    log: StateLog,
    like: Carry,
    known: Sequence[Known],
) -> tuple[int, Carry | None, StoreError | None]:
    """Return where the newest state at or before a block stands, it, and a damage on the way.

    No state, and -1, stands for the stream's opening, which can always be had again.
    """
    at, state, damage = -1, None, None
    for index, held in known:
        if at < index <= block.index:
            at, state = index, held
    for candidate in reversed(_between(blocks, at, block.index)):
        try:
            snapshot = log.state(past, candidate, like)
        except StoreError as error:
            damage = damage or error
            continue
        if snapshot is not None:
            return candidate.index, snapshot, damage
    return at, state, damage
