"""Frames into the window and the archive: pairs them, places them, runs the language model.

Not thread-safe: a stream calls it one caller at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkv import seam
from mmkv.archive import Archive, ArchivedBlock, PageSize
from mmkv.codecs import Codec
from mmkv.config import CacheSizes
from mmkv.models.base import Block, Grid, VideoModel
from mmkv.retrieval.external import embed
from mmkv.retrieval.landmarks import Summarizer
from mmkv.retrieval.text_image import TextImage
from mmkv.rotary import Rotary
from mmkv.slabs import Slabs
from mmkv.store import Store
from mmkv.store.retention import Limits
from mmkv.thumbnails import SIDE, thumbnail
from mmkv.window import EncodePass, Window

# a block with time text may grow by a few digits over the hours
_SLACK = 12

Frame = tuple[float, Tensor]  # seconds, uint8 [H, W, 3]


class Ingest:
    """State of one stream's encoding.

    Args:
        adapter: the model. rotary: its angles. prefix: token ids before the first frame.
        codec: how the past is packed. store: where it is kept on disk, or None.
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
    ) -> None:
        self.adapter = adapter
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
            waiting = [(seconds, frame.numpy()) for seconds, frame in self.pending]
            self.store.keep_waiting(len(self.archive), waiting)

    def catch_up(self) -> None:
        """Make the stream what its store holds by now: blocks, window, waiting frames.

        Raises:
            StoreError: the store cannot be read.
        """
        store = self.store
        assert store is not None
        self.archive.extend(store, layer_devices(self.adapter))
        meta = store.meta
        if meta.get("grid") is not None:
            self.grid = Grid(**meta["grid"])
            self._first_seconds = float(meta["first_seconds"])
            if self.window is None:
                self._open(int(meta["block_tokens"]))
        if self.archive.last is not None:
            self._refill(meta.get("far_distance"))
        waiting = store.waiting(len(self.archive)) if self.grid is not None else []
        self.pending = [(seconds, torch.from_numpy(frame)) for seconds, frame in waiting]

    def go_on(self, limits: Limits) -> None:
        """Write the store that was read from now on.

        Raises:
            StoreError: it cannot be written.
        """
        assert self.store is not None
        self.archive.store_in(self.store.go_on(limits))

    def _refill(self, far_distance: int | None) -> None:
        """Bring the archive's newest blocks into the ring, at their own positions."""
        window, last = self.window, self.archive.last
        assert window is not None
        assert last is not None
        end = last.start + last.tokens
        low = max(window.seen, end - window.local)
        past = self.archive.snapshot()
        blocks = [b for b in past.blocks[-window.local :] if b.start + b.tokens > low]
        if not blocks:
            return
        window.far_distance = far_distance
        skip = max(0, low - blocks[0].start)
        positions = np.concatenate([b.layout.offsets + b.origin[:, None] for b in blocks], axis=1)
        for layer, ring in enumerate(window.layers):
            kv = past.load(layer, blocks, ring.key.device)[:, None, :, skip:]
            window.restore(layer, end, kv[0], kv[1], positions[:, skip:])
        window.seen = end

    def _note(self) -> None:
        """Keep in the store what its blocks cannot tell: the grid, and where time began."""
        window, grid, store = self.window, self.grid, self.store
        if store is None or store.writer is None or window is None or grid is None:
            return
        store.writer.note(
            grid=asdict(grid),
            first_seconds=self._first_seconds,
            block_tokens=self._opened_for,
            far_distance=window.far_distance,
        )

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
        if self.window is None:
            self._open(len(blocks[0]))
        self.timings["vision"] += time.perf_counter() - started
        return blocks

    def _open(self, tokens: int) -> None:
        """A window for blocks of about so many tokens, with the prompt's opening in it."""
        adapter, patch = self.adapter, self.adapter.temporal_patch
        local = max(1, -(-self._config.window_frames // patch)) * tokens
        chunk = max(1, -(-self._config.chunk_frames // patch)) * (tokens + _SLACK)
        chunk = max(chunk, len(self._prefix))
        devices = layer_devices(adapter)
        window = Window(
            adapter.shape, self._rotary, devices, adapter.dtype, local, chunk, adapter.advances
        )
        if self._prefix:
            positions = np.broadcast_to(
                np.arange(len(self._prefix)), (adapter.axes, len(self._prefix))
            )
            opening = EncodePass(window, positions, sinks=True)
            seam.run(adapter.language_model, opening, adapter.embed_text(self._prefix))
            opening.commit()
        self.window = window
        self.archive.window_tokens = local
        self._opened_for = tokens

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
        origins = self._place(blocks)
        positions = np.concatenate(
            [b.layout.offsets + o[:, None] for b, o in zip(blocks, origins, strict=True)], axis=1
        )
        lengths = [len(b) for b in blocks]
        n = sum(lengths)
        size = (shape.layers, 2, shape.kv_heads, n, shape.head_dim)
        # a slab lives as long as its longest-lived block, so a peeked one gets memory of its own
        kv = self._slabs.take(size) if keep else torch.empty(size, dtype=adapter.dtype)
        visual = torch.cat([b.visual for b in blocks])
        summarize = Summarizer(visual, lengths, self._config.landmarks)
        encode = EncodePass(window, positions, archive=kv, summarize=summarize)
        seam.run(
            adapter.language_model,
            encode,
            torch.cat([b.embeds for b in blocks]),
            **_deepstack(blocks, visual.to(adapter.device)),
        )
        for device in {layer.key.device for layer in window.layers}:
            if device.type == "cuda":  # the copies into the archive have to be there
                torch.cuda.synchronize(device)
        archived = []
        at, index, frame = 0, len(self.archive), self._next_frame()
        for block, origin, length in zip(blocks, origins, lengths, strict=True):
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
                )
            )
            at, index, frame = at + length, index + 1, frame + block.frames
        self.timings["encode"] += time.perf_counter() - started
        return encode, archived

    def _next_frame(self) -> int:
        last = self.archive.last
        return 0 if last is None else last.frame + last.frames

    def _place(self, blocks: list[Block]) -> list[np.ndarray]:
        first = np.full(self.adapter.axes, len(self._prefix), dtype=np.int64)
        last = self.archive.last
        previous = None if last is None else (last.origin, last.layout.advance)
        origins = []
        for block in blocks:
            if previous is None:
                origin = first
            else:
                elapsed = block.seconds[0] - self._first_seconds
                origin = self.adapter.origin(*previous, first, elapsed)
            origins.append(origin)
            previous = (origin, block.layout.advance)
        return origins


def layer_devices(adapter: VideoModel) -> list[torch.device]:
    """The device of each layer's keys, device maps of accelerate included."""
    devices = []
    for layer in adapter.language_model.layers:
        weight = layer.self_attn.k_proj.weight
        device = weight.device
        if device.type == "meta":
            device = torch.device(layer._hf_hook.execution_device)
        devices.append(device)
    return devices


def _deepstack(blocks: list[Block], visual: Tensor) -> dict[str, Any]:
    levels = len(blocks[0].deepstack)
    if not levels:
        return {}
    embeds = [torch.cat([b.deepstack[i] for b in blocks]) for i in range(levels)]
    return {"visual_pos_masks": visual[None], "deepstack_visual_embeds": embeds}
