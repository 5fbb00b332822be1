"""Frames into the window and the archive: pairs them, places them, runs the language model.

Not thread-safe: a stream calls it one caller at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkv import keeping, seam
from mmkv.archive import Archive, ArchivedBlock, PageSize
from mmkv.codecs import Codec
from mmkv.codecs.salience import TextSimilarity
from mmkv.eviction.proxy import Proxy, watched
from mmkv.eviction.settings import thinning_of
from mmkv.keeping import Begun, Frame
from mmkv.models.base import Block, Grid, VideoModel
from mmkv.placing import layer_devices, open_window, origins
from mmkv.retrieval.external import embed
from mmkv.retrieval.landmarks import Summarizer
from mmkv.retrieval.text_image import TextImage
from mmkv.rotary import Rotary
from mmkv.sizes import CacheSizes
from mmkv.slabs import Slabs
from mmkv.store import Store, StoreError
from mmkv.store.retention import Limits
from mmkv.thumbnails import SIDE, thumbnail
from mmkv.window import EncodePass, Window

log = logging.getLogger("mmkv.store")


class Ingest:
    """State of one stream's encoding.

    Args:
        adapter: the model. rotary: its angles. prefix: token ids before the first frame.
        codec: how the past is packed. store: where it is kept on disk, or None.
        proxy: the text by which frames are observed for thinning, or None.
        salience: says how much tokens matter to a codec that asks, or None.
    """

    def __init__(
        self,
        adapter: VideoModel,
        rotary: Rotary,
        prefix: Sequence[int],
        config: CacheSizes,
        codec: Codec,
        store: Store | None = None,
        encoder: TextImage | None = None,
        proxy: Proxy | None = None,
        salience: TextSimilarity | None = None,
    ) -> None:
        self.adapter = adapter
        self._proxy = proxy
        self._salience = salience
        self._encoder = encoder
        self.store = store
        self.archive = Archive(
            codec,
            adapter.shape,
            adapter.dtype,
            config.max_ram,
            PageSize(config.page_tokens, config.page_seconds),
            config.index_bytes,
            on_disk=store is not None,
            devices=layer_devices(adapter),
            thinning=thinning_of(config),
        )
        if store is not None and store.writer is not None:
            self.archive.store_in(store.writer)
        self.window: Window | None = None
        self.grid: Grid | None = None
        self.pending: list[Frame] = []
        self.timings = {"vision": 0.0, "encode": 0.0, "archive": 0.0}
        self._slabs = Slabs(
            adapter.dtype, pinned=adapter.device.type == "cuda", limit=config.max_ram
        )
        self._rotary = rotary
        self._prefix = list(prefix)
        self._config = config
        self._first_seconds = 0.0
        self._opened_for = 0
        self._told: list[str] = []  # losses of the store

    @property
    def writing(self) -> bool:
        """Whether frames go to a store."""
        return self.store is not None and self.store.writer is not None

    @property
    def reading(self) -> bool:
        """Whether frames come from a store that another stream writes."""
        return self.store is not None and self.store.writer is None

    @property
    def thumbnails(self) -> bool:
        """Whether a small picture is kept of every frame."""
        return self._config.thumbnails

    @property
    def block_tokens(self) -> int:
        """Tokens per block, text included; 0 before the first frame."""
        return self.archive.last.tokens if self.archive.last else 0

    @property
    def frames(self) -> int:
        """Frames encoded or waiting."""
        return self._next_frame() + len(self.pending)

    @property
    def span(self) -> tuple[float, float] | None:
        """Times of the stream's first and newest frame; None before the first."""
        last, pending = self.archive.last, self.pending  # once: other threads read this
        if pending:
            return self._first_seconds, pending[-1][0]
        return None if last is None else (self._first_seconds, last.seconds[1])

    def push(self, frames: list[Frame]) -> None:
        """Encode frames; one that lacks its partner waits.

        Where this fails, what was encoded before the failure is in the stream, the rest is not.
        """
        if not self.frames:  # or an earlier attempt at the first frame failed
            height, width = frames[0][1].shape[:2]
            self.grid = self.adapter.grid(height, width)
            self.window = None
            self._first_seconds = frames[0][0]
        self.settle()
        waiting = self.pending + frames
        ready = len(waiting) - len(waiting) % self.adapter.temporal_patch
        if ready:
            self._encode(self._blocks(waiting[:ready]))
        # copies: the caller may use its buffer again
        self.pending = [(seconds, frame.clone()) for seconds, frame in waiting[ready:]]

    def settle(self) -> None:
        """Make what is archived part of the stream, also where an interrupt came in between."""
        last = self.archive.last
        if last is not None and self.window is not None:
            self.window.seen = last.start + last.tokens
            self.pending = [p for p in self.pending if p[0] > last.seconds[1]]

    def flush(self) -> None:
        """Pack what waits to be packed; with a store, return when everything is on the disk.

        Raises:
            StoreError: the store cannot be written.
        """
        self.archive.flush()
        if self.store is not None:
            keeping.keep_waiting(self.store, len(self.archive), self.pending)

    def catch_up(self) -> None:
        """Make the stream what its store holds by now: blocks, window, waiting frames.

        Raises:
            StoreError: the store cannot be read.
        """
        store = self.store
        assert store is not None
        self.archive.extend(store, layer_devices(self.adapter))
        begun = keeping.noted(store)
        if begun is None:
            self.pending = []
            return
        self.grid, self._first_seconds = begun.grid, begun.first_seconds
        if self.window is None:
            self._open(begun.block_tokens)
        assert self.window is not None
        damage = keeping.refill(self.window, self.archive, begun.far_distance)
        self._tell_losses(store, damage)
        # what waits is encoded behind the window
        self.pending = keeping.waiting(store, len(self.archive)) if self.window.gapless else []

    def _tell_losses(self, store: Store, damage: StoreError | None) -> None:
        lost = [str(loss) for loss in store.losses]
        if damage is not None:
            lost.append(f"some of the newest frames: {damage}")
        new = [loss for loss in lost if loss not in self._told]
        if new:
            log.warning("the store %s has lost %s", store.folder, "; ".join(new))
            self._told += new

    def go_on(self, limits: Limits) -> None:
        """Write the store that was read from now on.

        Raises:
            StoreError: it cannot be written, or has lost frames that the next one would see.
        """
        assert self.store is not None
        if self.window is not None and not self.window.gapless:
            raise StoreError(
                f"the store {self.store.folder} cannot be gone on with, for frames are lost that "
                f"the next ones would see in their window: {self._told[-1]}; mend that, or open it "
                "with mode='r'"
            )
        self.archive.store_in(self.store.go_on(limits))

    def peek(self) -> tuple[EncodePass, list[ArchivedBlock]] | None:
        """Encode what waits, padded, without making it part of the stream.

        Returns:
            the pass, whose tokens stand in the ring behind the last ones until the next push,
            and the block; None if nothing waits.
        """
        if not self.pending:
            return None
        padded = self.pending + [self.pending[-1]] * (
            self.adapter.temporal_patch - len(self.pending)
        )
        return self._forward(self._blocks(padded), keep=False)

    def _blocks(self, frames: list[Frame]) -> list[Block]:
        started = time.perf_counter()
        assert self.grid is not None
        seconds, pixels = zip(*frames, strict=True)
        blocks = self.adapter.blocks(pixels, seconds, self.grid)
        if self.thumbnails:
            for block, frame in zip(blocks, pixels[:: self.adapter.temporal_patch], strict=True):
                block.sides[SIDE] = thumbnail(frame)
        if self._encoder is not None:
            embed(self._encoder, blocks, pixels)
        if self._salience is not None:
            self._salience.judge(blocks)
        if self.window is None:
            self._open(len(blocks[0]))
        self.timings["vision"] += time.perf_counter() - started
        return blocks

    def _open(self, tokens: int) -> None:
        self.window = open_window(self.adapter, self._rotary, self._prefix, self._config, tokens)
        self.archive.window_tokens = self.window.local
        self._opened_for = tokens

    def _note(self) -> None:
        window, grid = self.window, self.grid
        if self.store is not None and window is not None and grid is not None:
            far = window.far_distance
            begun = Begun(grid, self._first_seconds, self._opened_for, far)
            keeping.note(self.store, begun)

    def _encode(self, blocks: list[Block]) -> None:
        window = self.window
        assert window is not None
        while blocks:
            total = np.cumsum([len(b) for b in blocks])
            take = max(1, int(np.searchsorted(total, window.chunk, side="right")))
            done, archived = self._forward(blocks[:take], keep=True)
            started = time.perf_counter()
            self._note()
            self.archive.append(archived, done.summaries)
            self.settle()
            self.timings["archive"] += time.perf_counter() - started
            blocks = blocks[take:]

    def _forward(
        self, blocks: list[Block], *, keep: bool
    ) -> tuple[EncodePass, list[ArchivedBlock]]:
        started = time.perf_counter()
        window = self.window
        assert window is not None
        adapter, shape = self.adapter, self.adapter.shape
        starts = origins(adapter, len(self._prefix), self.archive.last, self._first_seconds, blocks)
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
        encode = EncodePass(window, positions, archive=kv, summarize=summarize)
        extras = _deepstack(blocks, visual.to(adapter.device))
        embeds = torch.cat([b.embeds for b in blocks])
        masses = None
        if self._proxy is None or not keep:
            seam.run(adapter.language_model, encode, embeds, **extras)
        else:
            masses = watched(self._proxy, encode, window, positions, embeds, extras)
        for device in {layer.key.device for layer in window.layers}:
            if device.type == "cuda":  # the copies into the archive have to be there
                torch.cuda.synchronize(device)
        archived = []
        at, index, frame = 0, len(self.archive), self._next_frame()
        for block, origin, length in zip(blocks, starts, lengths, strict=True):
            archived.append(
                ArchivedBlock(
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

    def _next_frame(self) -> int:
        last = self.archive.last
        return 0 if last is None else last.frame + last.frames


def _deepstack(blocks: list[Block], visual: Tensor) -> dict[str, Any]:
    levels = len(blocks[0].deepstack)
    if not levels:
        return {}
    embeds = [torch.cat([b.deepstack[i] for b in blocks]) for i in range(levels)]
    return {"visual_pos_masks": visual[None], "deepstack_visual_embeds": embeds}
