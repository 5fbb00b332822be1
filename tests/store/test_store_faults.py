"""Damage of every kind: a clear error or recovery, never a wrong byte, and nothing flushed lost."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess
import tempfile
import threading
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
    kept_rows,
    resumed,
    same_block,
    states,
    without_fsync,
)
from waiting import finish, until

from mmkv.answer.retriever import runs
from mmkv.archive import Archive
from mmkv.store import DamageError, StoreError
from mmkv.store.files import HEADER
from mmkv.store.retention import Limits
from mmkv.store.write_behind import WriteBehind

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
    for held in past.blocks:
        assert same_block(held, held.index)
        for layer in range(3):
            try:
                got = past.load(layer, [held], CPU)
            except DamageError:
                refused += 1
            else:
                assert torch.equal(got, states(held.index)[layer])
    for layer in range(3):
        for first, stop in runs(past.blocks):
            want = kept_rows(first, stop)[layer]
            assert torch.equal(past.summaries(layer, first, stop), want)
    return len(past.blocks), refused


def lost(path: Path) -> list[str]:
    return list(map(str, Followed(path).store.losses))


@given(cut=st.integers(0, 10_000), data=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_torn_tail_costs_only_what_was_torn(whole: Path, cut: int, data: bool) -> None:
    with copy_of(whole) as path:
        file = path / ("000000.data" if data else "000000.index")
        size = max(HEADER, file.stat().st_size - cut)
        os.truncate(file, size)
        offered, refused = served(path)
        assert refused == 0
        missing = (whole / file.name).stat().st_size - size
        if not data:  # the data file has a copy of what the index lost
            assert offered == COUNT
            assert not lost(path)
        elif missing:  # it was flushed, so it is a loss, and no new frame may take its place
            assert COUNT > offered >= COUNT - 4 * (1 + missing // 700)
            (told,) = lost(path)
            assert told.startswith("frames from" if offered else "frames from 0 on")
            assert told.endswith(f"{file} is cut short")
            with pytest.raises(StoreError, match=r"newest frames are lost.*mode='r'"):
                resumed(path)
            return
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
        offered, refused = served(path)
        assert refused <= 1
        if refused or not lost(path):
            assert offered == COUNT
        else:  # what places a page's blocks, or finds them, is damaged
            assert COUNT - 4 <= offered < COUNT
            assert "000000.data" in lost(path)[0]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_a_flipped_bit_in_the_index_loses_nothing(whole: Path, place: float, bit: int) -> None:
    with copy_of(whole) as path:
        at = flip(path / "000000.index", place, bit)
        assert served(path) == (COUNT, 0)
        assert not lost(path)
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
        offered, refused = served(path)
        assert COUNT - 4 <= offered < COUNT
        assert refused == 0
        (told,) = lost(path)
        assert re.match(r"frames \d+ to \d+ \(after \S+ s and before \S+ s\): .* are both", told)
        writer = resumed(path)  # a page in the middle hinders nobody
        assert (path / "000000.data").read_bytes() == bytes(data)
        fill(writer, COUNT, COUNT + 5)
        writer.flush()
        writer.close()
        assert served(path) == (offered + 5, 0)
        assert lost(path) == [told]


def flip(file: Path, place: float, bit: int) -> int:
    raw = bytearray(file.read_bytes())
    at = int(place * len(raw))
    raw[at] ^= 1 << bit
    file.write_bytes(raw)
    return at


def of_three(path: Path, **options: object) -> None:
    """A store of three segments of 8 blocks, 16 frames, each."""
    writer = created(path, **options)
    for session in range(3):
        fill(writer, len(writer), len(writer) + 8)
        writer.flush()
        if session < 2:
            writer.sink.writer._begin(block(len(writer)))
    writer.close()
    check(Followed(path).archive.snapshot(), 0, 24)


TIMES = ("frames 0 to 15 (before 8.12 s)", "frames 16 to 31 (after 7.62 s and before 16.12 s)",
         "frames from 32 on (after 15.62 s)")  # fmt: skip


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("damage", ["missing", "another store's", "no beginnings"])
def test_a_lost_segment_costs_its_own_frames_which_are_named(
    tmp_path: Path, which: int, damage: str
) -> None:
    path = tmp_path / "s"
    of_three(path)
    data = path / f"00000{which}.data"
    if damage == "missing":
        data.unlink()
    elif damage == "no beginnings":
        flip(data, 0, 1)
        flip(data.with_suffix(".index"), 0, 1)
    else:
        of_three(tmp_path / "other")
        shutil.copy(tmp_path / "other" / data.name, data)
    followed = Followed(path)
    left = [b.index for b in followed.archive.snapshot().blocks]
    assert left == [i for i in range(24) if i // 8 != which]
    assert served(path) == (16, 0)
    (told,) = lost(path)
    assert told.startswith(f"{TIMES[which]}: {data} ")
    if which == 2:
        with pytest.raises(StoreError, match=r"newest frames are lost.*mode='r'"):
            resumed(path)
        return
    writer = resumed(path)
    fill(writer, 24, 30)
    writer.flush()
    writer.close()
    assert served(path) == (22, 0)
    assert lost(path) == [told]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("damage", ["missing", "no beginning", "no beginning of the data"])
def test_a_segment_without_its_index_or_a_header_loses_nothing(
    tmp_path: Path, which: int, damage: str
) -> None:
    path = tmp_path / "s"
    of_three(path)
    whole = {file.name: file.read_bytes() for file in path.glob("0*")}
    file = path / f"00000{which}.index"
    if damage == "missing":
        file.unlink()
    else:
        file = file if damage == "no beginning" else file.with_suffix(".data")
        flip(file, 0, 3)
    assert served(path) == (24, 0)
    assert not lost(path)
    writer = resumed(path)
    check(writer.snapshot(), 0, 24)
    mended = file.read_bytes()
    assert whole[file.name].startswith(mended)  # but for the marks of what had reached the disk
    fill(writer, 24, 31)
    writer.flush()
    writer.close()
    assert served(path) == (31, 0)


@pytest.mark.parametrize("size", [300, 0])
def test_an_inner_segment_that_was_cut_short_costs_what_was_cut(tmp_path: Path, size: int) -> None:
    path = tmp_path / "s"
    of_three(path)
    os.truncate(path / "000001.data", size)
    offered, refused = served(path)
    assert (offered, refused) == (16, 0)
    (told,) = lost(path)
    assert told == f"{TIMES[1]}: {path / '000001.data'} is cut short"


def test_segments_that_cannot_be_read_leave_the_store_in_their_turn(tmp_path: Path) -> None:
    path = tmp_path / "s"
    of_three(path)
    (path / "000000.data").unlink()
    writer = resumed(path, Limits(max_age=9.0))
    fill(writer, 24, 40)
    writer.flush()
    writer.close()
    assert not list(path.glob("000000.*"))
    assert not lost(path)


def test_a_reader_that_met_damage_still_follows(tmp_path: Path) -> None:
    path = tmp_path / "s"
    of_three(path)
    (path / "000001.data").unlink()
    reader, writer = Followed(path), resumed(path)
    fill(writer, 24, 30)
    writer.flush()
    left = [b.index for b in reader.refresh().snapshot().blocks]
    assert left == [*range(8), *range(16, 30)]
    writer.close()


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
            writer.flush()  # what went wrong since the last call is raised first
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
    until(lambda: not writer.sink.pages)
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
    write = writer.sink.writer.write

    def slowly(*arguments: object) -> None:
        time.sleep(0.02)
        write(*arguments)

    monkeypatch.setattr(writer.sink.writer, "write", slowly)
    most = 0
    began = time.perf_counter()
    for at in range(60):
        writer.make_room()
        fill(writer, at, at + 1)
        most = max(most, writer.sink.nbytes)
    assert most <= 4000 + 2000
    assert time.perf_counter() - began > 0.1
    writer.flush()
    assert (writer.sink.nbytes, writer.sink.pages) == (0, 0)
    writer.close()
    check(Followed(tmp_path / "s").archive.snapshot(), 0, 60)


def test_a_stream_that_is_let_go_still_writes_what_waits(tmp_path: Path) -> None:
    writer = created(tmp_path / "s")
    fill(writer, 0, 30)
    behind: WriteBehind = writer.sink
    handed, thread = writer._handed, behind._thread
    del writer, behind
    finish(thread)  # which may have been the last to hold the stream
    check(Followed(tmp_path / "s").archive.snapshot(), 0, handed)
    resumed(tmp_path / "s").close()


def test_a_stream_that_its_writing_thread_lets_go_still_writes_what_waits(tmp_path: Path) -> None:
    writer = created(tmp_path / "s")
    thread, files, held = writer.sink._thread, writer.sink.writer, [writer]
    write, alone = files.write, threading.Event()

    def last(*arguments: object) -> None:
        alone.wait()
        held.clear()  # as a garbage collection in this thread would
        write(*arguments)

    files.write = last
    fill(writer, 0, 30)
    handed = writer._handed
    del writer
    alone.set()
    thread.join(60)
    check(Followed(tmp_path / "s").archive.snapshot(), 0, handed)
    resumed(tmp_path / "s").close()
