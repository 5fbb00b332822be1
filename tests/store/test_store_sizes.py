"""What opening a store takes is bounded by the data in it, not by what else is there.

Siblings of zeros behind an index: in front of it and in its middle; real zeros and a hole of a
terabyte; behind the data file; a huge meta.json, also one of deep brackets; a huge `waiting`;
thousands of other files in the folder; a million segments that are missing.
"""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_blocks import Followed, check, created, fill, resumed, without_fsync

from mmkv.store import DamageError, Store
from mmkv.store import meta as metafile
from mmkv.store.files import HEADER

COUNT = 24
MB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    with without_fsync():
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    writer = created(tmp_path / "s")
    fill(writer, 0, COUNT)
    writer.flush()
    writer.close()
    return tmp_path / "s"


@contextmanager
def cheap(seconds: float = 3.0, most: int = 40 * MB) -> Iterator[None]:
    """Assert what it takes: processor time of this process, and memory that Python holds."""
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
        assert time.process_time() - began < seconds
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def read_and_resume(path: Path) -> None:
    with cheap():
        followed = Followed(path)
        check(followed.archive.snapshot(), 0, COUNT)
        assert not followed.store.losses
        writer = resumed(path)
        fill(writer, COUNT, COUNT + 6)
        writer.flush()
        writer.close()
        check(Followed(path).archive.snapshot(), 0, COUNT + 6)


@pytest.mark.parametrize("kind", ["index", "data"])
@pytest.mark.parametrize("zeros", [300 * MB, 1 << 40])
def test_a_hole_behind_a_file_costs_nothing(path: Path, kind: str, zeros: int) -> None:
    file = path / f"000000.{kind}"
    before = file.stat().st_size
    try:
        os.truncate(file, before + zeros)
    except OSError:
        pytest.skip("files of this size are not possible here")
    read_and_resume(path)
    assert file.stat().st_size < before + MB  # the writer cut it off


def test_written_zeros_behind_an_index_cost_little(path: Path) -> None:
    with (path / "000000.index").open("ab") as file:
        for _ in range(80):
            file.write(bytes(MB))
    read_and_resume(path)


@pytest.mark.parametrize("zeros", [1, 112, 5000, 100 * MB])
@pytest.mark.parametrize("at", [0, HEADER, HEADER + 112 * 6, HEADER + 50])
def test_zeros_in_an_index_lose_nothing_and_cost_little(path: Path, at: int, zeros: int) -> None:
    file = path / "000000.index"
    raw = file.read_bytes()
    with file.open("r+b") as index:
        index.truncate(at)
        index.truncate(at + zeros)
        index.seek(0, 2)
        index.write(raw[at:])
    with cheap():
        check(Followed(path).archive.snapshot(), 0, COUNT)
        resumed(path).close()
        check(Followed(path).archive.snapshot(), 0, COUNT)


def test_zeros_in_the_data_are_damage_and_cost_little(path: Path) -> None:
    file = path / "000000.data"
    raw = file.read_bytes()
    with file.open("r+b") as data:
        data.truncate(2000)
        data.truncate(2000 + 300 * MB)
        data.seek(0, 2)
        data.write(raw[2000:])
    with cheap():
        store = Store.follow(path)
        damaged = [damage for stored in store.pages() for damage in store.damage_of(stored)]
        damaged += map(str, store.losses)
    assert damaged


def test_a_huge_meta_is_damage_and_its_copy_is_used(path: Path) -> None:
    file = path / "meta.json"
    with file.open("r+b") as meta:
        meta.truncate(1 << 36)
    with cheap(most=100 * MB):
        followed = Followed(path)
        check(followed.archive.snapshot(), 0, COUNT)
    assert "has more than" in str(followed.store.losses[0])
    os.truncate(path / "meta.copy.json", 1 << 36)
    with cheap(most=100 * MB), pytest.raises(DamageError, match="both damaged"):
        Store.follow(path)


def test_deep_brackets_are_damage(path: Path) -> None:
    for name in ("meta.json", "meta.copy.json"):
        (path / name).write_text("[" * 200_000)
    with cheap(), pytest.raises(DamageError, match="both damaged"):
        Store.follow(path)


def test_a_huge_file_of_waiting_frames_is_not_read(path: Path) -> None:
    with (path / "waiting").open("wb") as file:
        file.truncate(1 << 36)
    with cheap():
        assert Store.follow(path).waiting(COUNT) == []


def test_thousands_of_other_files_cost_little(path: Path) -> None:
    for i in range(3000):
        (path / f"{i:06d}.txt").touch()
        (path / f"{i + 5:06d}.data").touch()
    read_and_resume(path)


def test_a_million_missing_segments_are_one_loss(path: Path) -> None:
    meta = metafile.load(path)
    metafile.save(path, {**meta, "segments": {"first": 0, "stop": 1_000_000}})
    with cheap(most=300 * MB, seconds=8):
        followed = Followed(path)
    check(followed.archive.snapshot(), 0, COUNT)
    (told,) = map(str, followed.store.losses)
    assert "000001.data is missing" in told
    assert len(told) < 2000
    metafile.save(path, {**meta, "segments": {"first": 0, "stop": 10**12}})
    with pytest.raises(DamageError, match="both damaged"):
        Store.follow(path)


def test_an_index_of_noise_costs_little(path: Path) -> None:
    noise = os.urandom(4 * MB)
    with (path / "000000.index").open("ab") as file:
        file.write(noise)
    with cheap(seconds=6):
        check(Followed(path).archive.snapshot(), 0, COUNT)
