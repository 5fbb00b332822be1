"""Nothing but the store's own files is written to, and one writer at a time.

Siblings: each file that is opened for writing (`lock`, `meta.json.new`, `meta.copy.json.new`,
`waiting.new`, the data and index file of a new segment, those of a resumed one, an index that is
restored) where there is a symbolic link, one that leads nowhere, a hard link, a pipe or a folder;
each file that is read where there is a pipe or a folder; `mmkv rm` of a folder with such names, and
with other people's files of similar names; `lock` removed or replaced under a writer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from store_blocks import Followed, block, check, created, fill, resumed, without_fsync

from mmkv.store import Store, StoreError, remove
from mmkv.store.lock import written_by

PRECIOUS = b"somebody's thesis\n" * 50


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    with without_fsync():
        yield


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """A file outside the store, which has to stay as it is."""
    path = tmp_path / "thesis.txt"
    path.write_bytes(PRECIOUS)
    yield path
    assert path.read_bytes() == PRECIOUS


def in_place(path: Path, kind: str, precious: Path) -> None:
    """Put something else in a file's place."""
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "link to nowhere":
        path.symlink_to(precious.with_name("made.txt"))
    elif kind == "hard link":
        path.hardlink_to(precious)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()


KINDS = ["link", "link to nowhere", "hard link", "pipe", "folder"]


def of_eight(path: Path) -> None:
    writer = created(path)
    fill(writer, 0, 8)
    writer.flush()
    writer.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_lock_is_no_way_to_other_files(tmp_path: Path, precious: Path, kind: str) -> None:
    path = tmp_path / "s"
    of_eight(path)
    in_place(path / "lock", kind, precious)
    with pytest.raises(StoreError, match=r"lock is .*, so it is not written to; remove it"):
        resumed(path)
    check(Followed(path).archive.snapshot(), 0, 8)
    assert written_by(path) is None
    assert not precious.with_name("made.txt").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["meta.json.new", "meta.copy.json.new", "waiting.new"])
def test_nor_are_files_that_are_being_replaced(
    tmp_path: Path, precious: Path, name: str, kind: str
) -> None:
    path = tmp_path / "s"
    of_eight(path)
    in_place(path / name, kind, precious)
    store = Store.resume(path)
    try:
        list(store.pages())
        frames = [(1.5, np.zeros((2, 2, 3), np.uint8))]
        if kind == "folder":
            with pytest.raises(OSError):
                _write(store, name, frames)
        else:
            _write(store, name, frames)
    finally:
        store.release()
    if kind != "folder":
        assert not (path / name).exists()
    check(Followed(path).archive.snapshot(), 0, 8)
    assert not precious.with_name("made.txt").exists()


def _write(store: Store, name: str, frames: list[tuple[float, np.ndarray]]) -> None:
    from mmkv.store import meta

    if name.startswith("waiting"):
        store.keep_waiting(8, frames)
    else:
        meta.save(store.folder, store.meta)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["000001.data", "000001.index"])
def test_nor_are_those_of_a_new_segment(
    tmp_path: Path, precious: Path, name: str, kind: str
) -> None:
    path = tmp_path / "s"
    of_eight(path)
    writer = resumed(path)
    (path / name).unlink(missing_ok=True)
    in_place(path / name, kind, precious)
    if kind in ("folder", "link", "hard link"):  # large enough to be somebody's frames
        with pytest.raises(OSError):
            writer.sink.writer._begin(block(8))
    else:
        writer.sink.writer._begin(block(8))
        fill(writer, 8, 12)
        writer.flush()
        check(Followed(path).archive.snapshot(), 0, 12)
    writer.close()
    assert not precious.with_name("made.txt").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["000000.data", "000000.index"])
def test_nor_are_those_of_a_resumed_one(
    tmp_path: Path, precious: Path, name: str, kind: str
) -> None:
    path = tmp_path / "s"
    of_eight(path)
    if kind in ("link", "hard link"):  # to the right bytes
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_bytes((path / name).read_bytes())
        held = elsewhere.read_bytes()
        in_place(path / name, kind, elsewhere)
        check(Followed(path).archive.snapshot(), 0, 8)  # they may be read
        with pytest.raises(StoreError, match="so it is not written to"):
            resumed(path)
        assert elsewhere.read_bytes() == held
        return
    in_place(path / name, kind, precious)
    with pytest.raises(StoreError):
        resumed(path)
    assert not precious.with_name("made.txt").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder"])
@pytest.mark.parametrize("name", ["meta.json", "000000.data", "000000.index", "waiting"])
def test_reading_waits_for_nobody(tmp_path: Path, precious: Path, name: str, kind: str) -> None:
    path = tmp_path / "s"
    of_eight(path)
    in_place(path / name, kind, precious)
    followed = Followed(path)
    left = [b.index for b in followed.archive.snapshot().blocks]
    assert left == ([] if name == "000000.data" else list(range(8)))
    assert followed.store.waiting(8) == []
    if name in ("meta.json", "000000.data"):
        assert "is not a file" in str(followed.store.losses[0])


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_lock_that_is_gone_lets_no_second_writer_in(tmp_path: Path, how: str) -> None:
    path = tmp_path / "s"
    writer = created(path)
    fill(writer, 0, 8)
    writer.flush()
    (path / "lock").unlink()
    if how == "replaced":
        (path / "lock").write_text("1\n")
    with pytest.raises(StoreError, match="is being written by process"):
        resumed(path)
    assert written_by(path) is not None
    with pytest.raises(StoreError, match="is being written by process"):
        remove(path)
    fill(writer, 8, 12)
    writer.flush()
    writer.close()
    again = resumed(path)
    check(again.snapshot(), 0, 12)
    again.close()


def test_a_lock_is_not_emptied_before_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "s"
    writer = created(path)
    fill(writer, 0, 8)
    with pytest.raises(StoreError, match=str(os.getpid())):
        resumed(path)
    assert (path / "lock").read_text() == f"{os.getpid()}\n"
    writer.close()


def test_where_folders_cannot_be_locked_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl
    import stat

    lock = fcntl.flock

    def no_folders(file: int, how: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EBADF, "not for folders")
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", no_folders)
    path = tmp_path / "s"
    writer = created(path)
    fill(writer, 0, 8)
    writer.flush()
    with pytest.raises(StoreError, match="is being written by process"):
        resumed(path)
    writer.close()
    resumed(path).close()


def test_removing_a_store_takes_only_its_own_files(tmp_path: Path, precious: Path) -> None:
    path = tmp_path / "s"
    of_eight(path)
    mine = ["notes.new", "2024.data", "1.index", "000000.data.bak"]
    for name in mine:
        (path / name).write_text("mine")
    (path / "000001.data").symlink_to(precious)
    freed, left = remove(path)
    assert sorted(os.listdir(path)) == sorted(mine)
    assert left == len(mine)
    assert freed > 0


def test_a_store_may_be_behind_a_link_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    path = tmp_path / "s"
    path.symlink_to(tmp_path / "disk", target_is_directory=True)
    of_eight(path)
    resumed(path).close()
    check(Followed(path).archive.snapshot(), 0, 8)
    assert remove(path)[1] == 0


def test_a_process_that_takes_over_finds_the_lock_of_one_that_ended(tmp_path: Path) -> None:
    path = tmp_path / "s"
    of_eight(path)
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from mmkv.store.lock import Lock
Lock(Path({str(path)!r})); os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert written_by(path) is None
    resumed(path).close()
