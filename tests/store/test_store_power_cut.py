"""A power cut at any point of a store's life: what was reported as flushed is there.

The operations of one store's life are recorded: folders made three deep, segments begun, pages,
flushes, a full cycle of closing and resuming, waiting frames, segments dropped. At each cut point
the folder is rebuilt as a strict reading of POSIX guarantees it, once with nothing that no fsync
came after, and once with a random choice of it, since a disk may write early and in any order.

Siblings: the folder's own name and those above it; a store in a folder that is there already; the
names of segments; meta.json and its copy; a segment that is dropped; a resumed segment's cut end.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from power_cut import Recorder, survivors
from store_blocks import Followed, check, created, fill, resumed, without_fsync

from mmkv.store import StoreError, waiting
from mmkv.store.retention import Limits

POINTS = 14


class Small(Limits):
    """Segments of a few pages, the oldest of which are dropped."""

    __slots__ = ()

    @property
    def segment_bytes(self) -> int:
        return 9_000


@pytest.fixture(scope="module")
def life() -> Iterator[Recorder]:
    with tempfile.TemporaryDirectory() as folder:
        recorder, options = Recorder(Path(folder)), {"limits": Small(max_disk=60_000)}
        path = Path(folder) / "a" / "b" / "s"
        with recorder.recording():
            writer = created(path, **options)
            for session in range(3):
                if session:
                    writer = resumed(path, **options)
                for _ in range(4):
                    fill(writer, len(writer), len(writer) + 6, step=2)
                    writer.flush()
                    recorder.tell(len(writer))
                waiting.save(path, len(writer), [(0.5, np.full((4, 4, 3), session, np.uint8))])
                writer.close()
        yield recorder


def after_cut(life: Recorder, at: int, early: random.Random | None) -> tuple[int, int]:
    """Cut the power after `at` steps; blocks that were told as flushed, and blocks there."""
    told = max((blocks for step, blocks in life.told if step <= at), default=0)
    with tempfile.TemporaryDirectory() as folder, without_fsync():
        lucky = (lambda: False) if early is None else (lambda: early.random() < 0.5)
        survivors(life.steps[:at], Path(folder), early=lucky)
        path = Path(folder) / "a" / "b" / "s"
        if (
            not told
            and not (path / "meta.json").exists()
            and not (path / "meta.copy.json").exists()
        ):
            return told, 0
        writer = resumed(path)
        there = len(writer)
        first = writer.first
        check(writer.snapshot(), first, there)
        fill(writer, there, there + 5)
        writer.flush()
        writer.close()
        followed = Followed(path)
        check(followed.archive.snapshot(), first, there + 5)
        assert not followed.store.losses
    return told, there


def cut_points(life: Recorder) -> list[int]:
    """Both sides of each report, the first operations, and an even choice of the others."""
    told = [step for step, _ in life.told]
    close = [*range(12), *told, *(step + 1 for step in told), len(life.steps)]
    count = len(life.steps)
    others = [round(i * count / POINTS) for i in range(POINTS)]
    return sorted({*close, *others})


def test_a_power_cut_takes_nothing_that_was_flushed(life: Recorder) -> None:
    points = cut_points(life)
    assert len(points) >= 45
    for at in points:
        told, there = after_cut(life, at, None)
        assert there >= told, f"cut after step {at}: {told} flushed, {there} there"


def test_nor_does_one_that_finds_some_of_the_rest_on_the_disk(life: Recorder) -> None:
    early = random.Random(7)
    for at in cut_points(life)[::3]:
        told, there = after_cut(life, at, early)
        assert there >= told, f"cut after step {at}: {told} flushed, {there} there"


def test_without_its_fsyncs_a_store_would_be_lost(life: Recorder) -> None:
    steps = [step for step in life.steps if step[0].__name__ != "_sync"]
    with tempfile.TemporaryDirectory() as folder:
        survivors(steps, Path(folder), early=lambda: False)
        with pytest.raises(StoreError, match="no store"):
            Followed(Path(folder) / "a" / "b" / "s")
