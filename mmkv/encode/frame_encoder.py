"""Turns frames into blocks of tokens, and runs these through the language model into a window."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkv.archive import Archive, CachedBlock
from mmkv.archive.slabs import Slabs
from mmkv.codecs.salience import TextSimilarity
from mmkv.config.resolved import ResolvedConfig
from mmkv.encode.positions import open_window, origins
from mmkv.encode.proxy import Proxy, encode_observed
from mmkv.encode.resume import Frame
from mmkv.encode.summarizer import Summarizer
from mmkv.encode.thumbnails import SIDE, thumbnail
from mmkv.encode.window import EncodePass, Window
from mmkv.engine import hooks
from mmkv.engine.rotary import Rotary
from mmkv.models.base import VideoModel
from mmkv.models.block import Block, Layout
from mmkv.models.grid import Grid
from mmkv.retrieval.text_image import TextImage, embed


class FrameEncoder:
    """Encodes frames, and remembers nothing of what was encoded before.

    Args:
        adapter: the model.
        rotary: its angles.
        prefix: token ids before the first frame.
        config: sizes, and what is kept of each frame.
        encoder: embeds frames for score="external", or None.
        proxy: the text by which frames are observed for thinning, or None.
        salience: rates how much tokens matter, for a codec that needs it, or None.

    Attributes:
        timings: seconds spent so far per stage.
    """

    def __init__(
        self,
        adapter: VideoModel,
        rotary: Rotary,
        prefix: Sequence[int],
        config: ResolvedConfig,
        encoder: TextImage | None,
        proxy: Proxy | None,
        salience: TextSimilarity | None,
    ) -> None:
        self.adapter = adapter
        self.prefix = list(prefix)
        self.proxy = proxy
        self.salience = salience
        self.timings = {"vision": 0.0, "encode": 0.0}
        self._rotary = rotary
        self._config = config
        self._encoder = encoder
        self._slabs = Slabs(
            adapter.dtype, pinned=adapter.device.type == "cuda", limit=config.max_ram
        )

    def open(self, tokens: int) -> Window:
        """Make a window for blocks of about so many tokens, with the prompt's opening in it."""
        return open_window(self.adapter, self._rotary, self.prefix, self._config, tokens)

    def release(self) -> None:
        """Let go of memory that waits for keys and values."""
        self._slabs.clear()

    def blocks(self, frames: list[Frame], grid: Grid, first: int) -> list[Block]:
        """Turn frames into blocks; there must be as many as whole blocks take.

        Args:
            frames: in time order.
            grid: the stream's.
            first: how many blocks the stream has before these.
        """
        started = time.perf_counter()
        seconds, pixels = zip(*frames, strict=True)
        blocks = self.adapter.blocks(pixels, seconds, grid, first)
        if self._config.thumbnails:
            for block, frame in zip(blocks, pixels[:: self.adapter.temporal_patch], strict=True):
                block.sides[SIDE] = thumbnail(frame)
        if self._encoder is not None:
            embed(self._encoder, blocks, pixels)
        if self.salience is not None:
            self.salience.judge(blocks)
        self.timings["vision"] += time.perf_counter() - started
        return blocks

    def run(
        self,
        blocks: list[Block],
        window: Window,
        archive: Archive,
        first_seconds: float,
        *,
        keep: bool,
    ) -> tuple[EncodePass, list[CachedBlock]]:
        """Encode blocks that follow what is archived.

        Args:
            blocks: together at most the window's `chunk` tokens.
            window: that they are written into.
            archive: of the stream; it is not changed.
            first_seconds: time of the stream's first frame.
            keep: whether they become part of the stream.

        Returns:
            the pass, whose tokens are in the window's ring; the blocks, ready to be archived.
        """
        started = time.perf_counter()
        adapter, shape = self.adapter, self.adapter.shape
        starts = origins(adapter, len(self.prefix), archive.last, first_seconds, blocks)
        positions = np.concatenate(
            [b.layout.offsets + o[:, None] for b, o in zip(blocks, starts, strict=True)], axis=1
        )
        lengths = [len(b) for b in blocks]
        n = sum(lengths)
        size = (shape.layers, 2, shape.kv_heads, n, shape.head_dim)
        # a slab lives as long as its longest-lived block, so a peeked one gets memory of its own
        kv = self._slabs.take(size) if keep else torch.empty(size, dtype=adapter.dtype)
        visual = torch.cat([b.visual for b in blocks])
        summarize = Summarizer(visual, lengths, self._config.landmarks)
        encode = EncodePass(
            window,
            positions,
            archive=kv,
            summarize=summarize,
            stored=keep and archive.sink is not None,
            last=last_visible(adapter, [b.layout for b in blocks]),
        )
        extras = _deepstack(blocks, visual.to(adapter.device))
        embeds = torch.cat([b.embeds for b in blocks])
        ids = token_ids(adapter, [b.layout for b in blocks])
        masses = None
        if self.proxy is None or not keep:
            extras |= adapter.token_inputs(ids) | adapter.keys_only
            hooks.run(adapter, encode, embeds, encode.carry, encode.local, **extras)
        else:
            masses = encode_observed(self.proxy, encode, window, positions, embeds, ids, extras)
        for device in {layer.key.device for layer in window.layers}:
            if device.type == "cuda":  # the copies into the archive must have arrived
                torch.cuda.synchronize(device)
        archived = []
        at, index, frame = 0, len(archive), frame_after(archive.last)
        for block, origin, length in zip(blocks, starts, lengths, strict=True):
            archived.append(
                CachedBlock(
                    index=index,
                    start=window.seen + at,
                    frame=frame,
                    frames=block.frames,
                    seconds=block.seconds,
                    layout=block.layout,
                    origin=origin,
                    kv=kv[:, :, :, at : at + length],
                    sides=block.sides,
                    mass=None if masses is None else masses[:, :, at : at + length],
                    salience=block.salience,
                )
            )
            at, index, frame = at + length, index + 1, frame + block.frames
        self.timings["encode"] += time.perf_counter() - started
        return encode, archived


def frame_after(last: CachedBlock | None) -> int:
    """Return the number of the frame after a stream's last block."""
    return 0 if last is None else last.frame + last.frames


def last_visible(adapter: VideoModel, layouts: Sequence[Layout]) -> np.ndarray | None:
    """Return the last token that each token of some blocks sees in local layers; None: itself."""
    if not adapter.frames_see_ahead:
        return None
    return last_of_run(np.concatenate([layout.visual for layout in layouts]))


def token_ids(adapter: VideoModel, layouts: Sequence[Layout]) -> list[int]:
    """Return the ids of blocks' tokens, `filler` for visual ones."""
    ids: list[int] = []
    for layout in layouts:
        fillers = [adapter.filler] * int(layout.visual.sum())
        ids += (*layout.before, *fillers, *layout.after)
    return ids


def last_of_run(visual: np.ndarray) -> np.ndarray:
    """Return for each token, bool `[n]`, the last of its run of visual ones; of text itself."""
    n = len(visual)
    ends = np.flatnonzero(visual & ~np.append(visual[1:], False))
    last = np.arange(n)
    last[visual] = ends[np.searchsorted(ends, last[visual])]
    return last


def _deepstack(blocks: list[Block], visual: Tensor) -> dict[str, Any]:
    levels = len(blocks[0].deepstack)
    if not levels:
        return {}
    embeds = [torch.cat([b.deepstack[i] for b in blocks]) for i in range(levels)]
    return {"visual_pos_masks": visual[None], "deepstack_visual_embeds": embeds}
