"""Blocks with known bytes, and archives of them on disk, without a model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from mmkv.archive import Archive, CachedBlock, PageSize, Snapshot
from mmkv.archive.thinning import Thinning
from mmkv.codecs import make_codec
from mmkv.models.block import Layout
from mmkv.models.layers import Shape
from mmkv.store import Store
from mmkv.store.retention import Limits
from mmkv.store.write_behind import write_behind

SHAPE = Shape(layers=3, heads=2, kv_heads=2, head_dim=4)
FACTS: dict[str, Any] = {"layers": 3, "kv_heads": 2, "head_dim": 4}
CPU = torch.device("cpu")


@contextmanager
def without_fsync() -> Iterator[None]:
    """Do not wait for the disk: that matters to a power cut alone, and takes most of the time.

    A store is then marked as synced by a flush alone, however long a busy machine takes to it.
    """
    with (
        mock.patch.object(os, "fsync", _nothing),
        mock.patch.object(os, "fdatasync", _nothing),
        mock.patch("mmkv.store.writer._SYNC_SECONDS", float("inf")),
    ):
        yield


def _nothing(file: int) -> None:
    pass


def tokens(i: int) -> int:
    """Tokens of block i: not all blocks are alike."""
    return 2 + i % 3


def states(i: int) -> Tensor:
    """Keys and values `[L, 2, H_kv, T, D]` of block i: the same on every machine."""
    shape = (3, 2, 2, tokens(i), 4)
    count = np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(1000 * i)
    mixed = count * np.uint64(6364136223846793005) >> np.uint64(45)  # 19 bits
    numbers = mixed.astype(np.float32) / 2**17 - 2
    return torch.from_numpy(numbers.reshape(shape))


def block(i: int) -> CachedBlock:
    """Block i as it is encoded; every third has a picture beside it."""
    offsets = np.arange(tokens(i), dtype=np.int64)[None]
    layout = Layout((7, i % 5), (), offsets, (tokens(i),))
    start = sum(tokens(j) for j in range(i % 3)) + 9 * (i // 3)
    sides = {"picture": f"of block {i}".encode()} if i % 3 == 0 else {}
    seconds = (i + 0.125, i + 0.625)
    origin = np.array([start], dtype=np.int64)
    return CachedBlock(i, start, 2 * i, 2, seconds, layout, origin, states(i), sides)


def even_block(i: int) -> CachedBlock:
    """Block i of a stream whose blocks are alike: a text token, four visual ones, a text token."""
    layout = Layout((7,), (3,), np.arange(6, dtype=np.int64)[None], (6,))
    kv = torch.cat([states(3 * i + 1), states(3 * i + 2)], dim=3)[:, :, :, :6]
    seconds = (i + 0.125, i + 0.625)
    return CachedBlock(i, 6 * i, 2 * i, 2, seconds, layout, np.array([6 * i]), kv)


def rows(first: int, stop: int) -> list[Tensor]:
    """Summaries of blocks first…stop-1, per layer `[n, 1, H_kv, D]`."""
    keys = [states(i)[:, 0, :, :2].mean(dim=2) for i in range(first, stop)]  # [L, H_kv, D]
    return [torch.stack([key[layer] for key in keys])[:, None] for layer in range(3)]


def kept_rows(first: int, stop: int) -> list[Tensor]:
    """The same as a stream searches them: less the first block's, in 16 bits."""
    found = []
    for layer, exact in enumerate(rows(first, stop)):
        centre = rows(0, 1)[layer]
        found.append((exact - centre).half().float() + centre)
    return found


def archive(
    limit: int | None = None,
    page_tokens: int = 8,
    on_disk: bool = True,
    thinning: Thinning | None = None,
) -> Archive:
    codec = make_codec(None, SHAPE, dtype=torch.float32)
    page = PageSize(page_tokens)
    return Archive(codec, SHAPE, torch.float32, limit, page, on_disk=on_disk, thinning=thinning)


def created(
    path: Path, limits: Limits | None = None, room: int = 1 << 20, **options: Any
) -> Archive:
    """An archive with a new store."""
    made = archive(**options)
    write_behind(made, Store.create(path, FACTS, limits or Limits()).writer, room)
    return made


def resumed(path: Path, limits: Limits | None = None, **options: Any) -> Archive:
    """The archive of a store, to be written on."""
    made, store = archive(**options), Store.resume(path)
    try:
        made.extend(store, [CPU] * 3)
        write_behind(made, store.start_writing(limits or Limits()))
    except BaseException:
        store.release()
        raise
    return made


class Followed:
    """The archive of a store, to be read."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.store, self.archive = Store.follow(path), archive(**options)
        self.refresh()

    def refresh(self) -> Archive:
        self.archive.extend(self.store, [CPU] * 3)
        return self.archive


def fill(into: Archive, first: int, stop: int, step: int = 1) -> None:
    """Append blocks first…stop-1, some at a time."""
    for at in range(first, stop, step):
        end = min(at + step, stop)
        into.append([block(i) for i in range(at, end)], rows(at, end))


def same_block(got: CachedBlock, i: int) -> bool:
    """Whether everything but keys, values and sides is that of block i."""
    want = block(i)
    names = ("index", "start", "frame", "frames", "seconds", "tokens")
    layouts = (got.layout, want.layout)
    return (
        all(getattr(got, name) == getattr(want, name) for name in names)
        and np.array_equal(got.origin, want.origin)
        and np.array_equal(*(layout.offsets for layout in layouts))
        and len({(layout.before, layout.after, layout.advance) for layout in layouts}) == 1
    )


def check(past: Snapshot, first: int, stop: int) -> None:
    """The snapshot holds exactly blocks first…stop-1, every byte as it was."""
    assert [b.index for b in past.blocks] == list(range(first, stop))
    assert all(same_block(b, b.index) for b in past.blocks)
    if first == stop:
        return
    want = torch.cat([states(i) for i in range(first, stop)], dim=3)
    for layer in range(3):
        assert torch.equal(past.load(layer, past.blocks, CPU), want[layer])
        assert torch.equal(past.summaries(layer, first, stop), kept_rows(first, stop)[layer])
    assert all(past.side("picture", b) == block(b.index).sides.get("picture") for b in past.blocks)
