"""Damage of every kind: a clear error or recovery, never a wrong byte, and nothing flushed lost."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from store_blocks import (
    CPU,
    Followed,
    block,
    check,
    created,
    fill,
    resumed,
    same_block,
    states,
    stored_rows,
    without_fsync,
)

from mmkv.archive import Archive
from mmkv.archive.behind import WriteBehind
from mmkv.store import DamageError, StoreError
from mmkv.store.files import HEADER

COUNT = 40


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    with without_fsync():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of COUNT blocks."""
    path = tmp_path_factory.mktemp("whole") / "s"
    writer = created(path)
    fill(writer, 0, COUNT)
    writer.flush()
    writer.close()
    return path


@contextmanager
def copy_of(store: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(store, Path(folder) / "s"))


def served(path: Path) -> tuple[int, int]:
    """Reads everything a store offers; blocks offered, and slices refused as damaged."""
    past = Followed(path).archive.snapshot()
    refused = 0
    for place, held in enumerate(past.blocks):
        assert held.index == place
        assert same_block(held, place)
        for layer in range(3):
            try:
                got = past.load(layer, [held], CPU)
            except DamageError:
                refused += 1
            else:
                assert torch.equal(got, states(place)[layer])
    for layer in range(3):
        if past.blocks:
            want = stored_rows(0, len(past.blocks))[layer]
            assert torch.equal(past.summaries(layer, 0, len(past.blocks)), want)
    return len(past.blocks), refused


@given(cut=st.integers(0, 10_000), data=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_torn_tail_costs_only_what_was_torn(whole: Path, cut: int, data: bool) -> None:
    with copy_of(whole) as path:
        file = path / ("000000.data" if data else "000000.index")
        size = max(HEADER, file.stat().st_size - cut)
        os.truncate(file, size)
        offered, refused = served(path)
        assert refused == 0
        if not data:
            assert offered == COUNT  # the data file has a copy of what the index lost
        else:
            missing = (whole / "000000.data").stat().st_size - size
            assert offered >= COUNT - 4 * (1 + missing // 700)
        writer = resumed(path)
        check(writer.snapshot(), 0, offered)
        fill(writer, offered, COUNT + 9)
        writer.flush()
        writer.close()
        assert served(path) == (COUNT + 9, 0)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_a_flipped_bit_in_the_data_is_never_served(whole: Path, place: float, bit: int) -> None:
    with copy_of(whole) as path:
        flip(path / "000000.data", place, bit)
        try:
            offered, refused = served(path)
        except DamageError as error:
            if "000000.data" not in str(error):
                raise
        else:
            assert offered == COUNT
            assert refused <= 1


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_a_flipped_bit_in_the_index_loses_nothing(whole: Path, place: float, bit: int) -> None:
    with copy_of(whole) as path:
        at = flip(path / "000000.index", place, bit)
        if at < HEADER:
            with pytest.raises(DamageError, match=r"000000\.index"):
                served(path)
            return
        assert served(path) == (COUNT, 0)
        writer = resumed(path)
        fill(writer, COUNT, COUNT + 3)
        writer.flush()
        writer.close()
        mended = (path / "000000.index").read_bytes()[: (whole / "000000.index").stat().st_size]
        assert served(path) == (COUNT + 3, 0)
        if at < len(mended) - 200:  # but for the last mark, which says nothing about pages
            assert mended[: len(mended) - 200] == (whole / "000000.index").read_bytes()[:-200]


def test_damage_in_the_index_and_in_its_copy_is_told_not_skipped(whole: Path) -> None:
    with copy_of(whole) as path:
        flip(path / "000000.index", 0.3, 1)
        data = bytearray((path / "000000.data").read_bytes())
        for at in range(len(data)):
            if data[at : at + 4] == b"page":
                data[at] ^= 1
        (path / "000000.data").write_bytes(data)
        with pytest.raises(DamageError, match="damaged where the pages from block"):
            served(path)
        with pytest.raises(DamageError, match="damaged where the pages from block"):
            resumed(path)  # nothing is cut off that may still be mended
        assert (path / "000000.data").read_bytes() == bytes(data)


def flip(file: Path, place: float, bit: int) -> int:
    raw = bytearray(file.read_bytes())
    at = int(place * len(raw))
    raw[at] ^= 1 << bit
    file.write_bytes(raw)
    return at


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("kind", ["data", "index"])
def test_a_missing_segment_is_named(tmp_path: Path, which: int, kind: str) -> None:
    writer = created(tmp_path / "s")
    for session in range(3):
        fill(writer, len(writer), len(writer) + 8)
        writer.flush()
        if session < 2:
            writer.behind.writer._begin(block(len(writer)))
    writer.close()
    check(Followed(tmp_path / "s").archive.snapshot(), 0, 24)
    (tmp_path / "s" / f"00000{which}.{kind}").unlink()
    with pytest.raises(StoreError, match=f"00000{which}.{kind} is missing"):
        Followed(tmp_path / "s")
    with pytest.raises(StoreError, match=f"00000{which}.{kind} is missing"):
        resumed(tmp_path / "s")


def test_an_inner_segment_that_was_cut_short_is_named(tmp_path: Path) -> None:
    writer = created(tmp_path / "s")
    fill(writer, 0, 8)
    writer.flush()
    writer.behind.writer._begin(block(8))
    fill(writer, 8, 16)
    writer.flush()
    writer.close()
    os.truncate(tmp_path / "s" / "000000.data", 300)
    with pytest.raises(DamageError, match=r"000000\.data is cut short: blocks 0 to 7 are gone"):
        Followed(tmp_path / "s")


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, object]]:
    """A file system of 200 kB if this user may mount one, else a limit on the size of files."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode == 0:
        try:
            yield (
                folder,
                lambda: subprocess.run(
                    ["mount", "-o", "remount,size=20m", str(folder)], check=True
                ),
            )
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill_for_ever(writer: Archive, flushed: list[int]) -> None:
    while len(writer) < 2000:
        writer.make_room()
        fill(writer, len(writer), len(writer) + 5)
        if len(writer) % 20 == 0:
            writer.flush()
            flushed.append(len(writer))


@pytest.mark.parametrize("quota", [False, True])
def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path, quota: bool) -> None:
    if quota:  # files may not grow, whatever the disk has
        before = resource.getrlimit(resource.RLIMIT_FSIZE)

        @contextmanager
        def disk(folder: Path) -> Iterator[tuple[Path, object]]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
            try:
                yield folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
    else:
        disk = small_disk
    with disk(tmp_path) as (folder, more):
        path = folder / "s"
        writer = created(path, room=50_000)
        flushed: list[int] = []
        with pytest.raises(StoreError, match=r"cannot be written: .*frames up to"):
            fill_for_ever(writer, flushed)
        assert flushed
        with pytest.raises(StoreError, match="cannot be written"):
            writer.flush()
        check(writer.snapshot(), 0, len(writer))  # what waits is answered from memory
        reader = Followed(path).archive
        assert len(reader) >= flushed[-1]
        check(reader.snapshot(), 0, len(reader))
        more()
        with contextlib.suppress(StoreError):
            writer.flush()  # what went wrong since the last call is told first
        fill(writer, len(writer), len(writer) + 5)
        writer.flush()
        check(Followed(path).archive.snapshot(), 0, len(writer))
        writer.close()


def test_a_folder_that_may_not_be_written_is_told(whole: Path) -> None:
    with copy_of(whole) as path, read_only(path):
        with pytest.raises(StoreError, match=r"cannot be written.*mode='r'"):
            resumed(path)
        check(Followed(path).archive.snapshot(), 0, COUNT)
        with pytest.raises(StoreError, match="no store can be made"):
            created(path / "inside")


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    if os.getuid():
        path.chmod(0o500)
        for file in path.iterdir():
            file.chmod(0o400)
        yield
        path.chmod(0o700)
        return
    for command in (["mount", "--bind"], ["mount", "-o", "remount,ro,bind"]):
        if subprocess.run([*command, str(path), str(path)], capture_output=True).returncode:
            pytest.skip("root writes everywhere, and may mount nothing here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_after_a_power_cut_what_was_synced_is_there(tmp_path: Path) -> None:
    path = tmp_path / "s"
    writer = created(path)
    fill(writer, 0, 20)
    writer.flush()
    synced = (path / "000000.data").stat().st_size
    fill(writer, 20, 33)
    writer._close_page()
    writer._hand_over()
    while writer.behind.pages:
        time.sleep(0.01)
    with tempfile.TemporaryDirectory() as folder:  # as if the machine had stopped here
        left = Path(shutil.copytree(path, Path(folder) / "s"))
        raw = bytearray((left / "000000.data").read_bytes())
        for at in range(synced + 100, len(raw)):
            raw[at] = 0  # the file had grown, its bytes had not been written
        (left / "000000.data").write_bytes(raw)
        again = resumed(left)
        check(again.snapshot(), 0, 20)
        fill(again, 20, 30)
        again.flush()
        again.close()
        assert served(left) == (30, 0)
    writer.close()


def test_a_slow_disk_slows_encoding_instead_of_filling_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = created(tmp_path / "s", room=4000)
    write = writer.behind.writer.write

    def slowly(*arguments: object) -> None:
        time.sleep(0.02)
        write(*arguments)

    monkeypatch.setattr(writer.behind.writer, "write", slowly)
    most = 0
    began = time.perf_counter()
    for at in range(60):
        writer.make_room()
        fill(writer, at, at + 1)
        most = max(most, writer.behind.nbytes)
    assert most <= 4000 + 2000
    assert time.perf_counter() - began > 0.1
    writer.flush()
    assert (writer.behind.nbytes, writer.behind.pages) == (0, 0)
    writer.close()
    check(Followed(tmp_path / "s").archive.snapshot(), 0, 60)


def test_a_stream_that_is_let_go_still_writes_what_waits(tmp_path: Path) -> None:
    writer = created(tmp_path / "s")
    fill(writer, 0, 30)
    behind: WriteBehind = writer.behind
    handed = writer._handed
    assert behind is not None
    del writer, behind
    check(Followed(tmp_path / "s").archive.snapshot(), 0, handed)
    resumed(tmp_path / "s").close()
