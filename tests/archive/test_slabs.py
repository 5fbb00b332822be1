"""Memory of slabs goes back to the system with the last part of each, whatever their size.

The fault: with `max_ram` or `max_disk` slabs are smaller than 32 MiB, and malloc took them from a
heap that did not shrink: after a stream was closed 75 MB stayed. Siblings: slabs of keys and values
(float32) and of packed pages (uint8); a store's limit below `max_ram`, which did not make slabs
smaller, so that memory went up and down by 32 MiB at a time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from small_models import clip, small_vlm

import mmkv
from mmkv.archive.slabs import Slabs


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_freed_slabs_leave_the_process(dtype: torch.dtype) -> None:
    # as in a stream that has worked for a while: malloc no longer maps pieces of this size
    torch.zeros(30_000_000, dtype=torch.uint8)
    slabs = Slabs(dtype, pinned=False, limit=16 << 20)
    parts, small = [], []
    before = resident()
    for _ in range(100):
        part = slabs.take((1 << 20,))
        parts.append(part.fill_(1))
        small.append(torch.ones(1000))  # what is allocated in between, and stays
    held = resident() - before
    assert held > 90 << 20
    parts.clear()
    slabs.clear()
    del part
    assert resident() - before < held / 10


def test_parts_do_not_overlap_and_keep_what_is_written() -> None:
    slabs = Slabs(torch.float32, pinned=False, limit=1 << 16)
    parts = [slabs.take((7, 31)).fill_(i) for i in range(50)] + [slabs.take((5000,)).fill_(99)]
    assert [float(part.unique()) for part in parts] == [*range(50), 99]
    assert slabs.take((0, 4)).shape == (0, 4)


def test_slabs_are_no_larger_than_a_sixteenth_of_what_a_store_may_take(tmp_path: Path) -> None:
    config = mmkv.CacheConfig(window_frames=4, recent_frames=2, max_disk="3MB")
    with small_vlm("llava_onevision").stream(config, store=tmp_path / "kept") as stream:
        stream.feed(clip(20), np.arange(20.0))
        slab = stream._state.archive._payloads._slab
        assert slab is not None
        assert slab.nbytes <= 3_000_000 / 16
