"""A store that is removed, moved or replaced while it is open is never answered from as if it were.

Siblings, for a reader: removed and made anew, moved away, moved away and another one in its place,
replaced between opening and the first read, replaced while a reload is under way, the same folder
put back. For a writer: its folder removed, moved, replaced; its data or index file removed. All of
it once with a store of more segments, of which the reader has only some.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_blocks import Followed, block, check, created, fill, resumed, without_fsync

from mmkv.store import Store, StoreError, remove
from mmkv.store import meta as metafile
from mmkv.store.reader import Reader


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    with without_fsync():
        yield


def store_of(path: Path, count: int, segments: int = 1) -> None:
    writer = created(path)
    for number in range(segments):
        if number:
            writer.sink.writer._begin(block(len(writer)))
        fill(writer, len(writer), len(writer) + count)
        writer.flush()
    writer.close()


@pytest.mark.parametrize("segments", [1, 3])
def test_a_reader_of_a_store_that_was_made_anew_says_so(tmp_path: Path, segments: int) -> None:
    path = tmp_path / "s"
    store_of(path, 10, segments)
    reader = Followed(path)
    remove(path)
    store_of(path, 12, segments + 1)
    for _ in range(2):
        with pytest.raises(StoreError, match="now holds another store than the one that was open"):
            reader.refresh()
    assert len(reader.archive) == 10 * segments  # and no frame of the other
    check(Followed(path).archive.snapshot(), 0, 12 * (segments + 1))


def test_a_reader_of_a_store_that_is_gone_says_so_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store_of(path, 10)
    reader = Followed(path)
    path.rename(tmp_path / "away")
    with pytest.raises(StoreError, match="was removed or moved while it was open"):
        reader.refresh()
    store_of(path, 5)
    with pytest.raises(StoreError, match="another store"):
        reader.refresh()
    remove(path)
    (tmp_path / "away").rename(path)
    writer = resumed(path)
    fill(writer, 10, 14)
    writer.flush()
    writer.close()
    check(reader.refresh().snapshot(), 0, 14)
    remove(path)
    with pytest.raises(StoreError, match="was removed or moved while it was open"):
        reader.refresh()


def test_a_store_replaced_before_it_is_first_read_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store_of(path, 10)
    store = Store.follow(path)
    remove(path)
    store_of(path, 10)
    with pytest.raises(StoreError, match="another store"):
        list(store.pages())


def test_nor_one_that_is_replaced_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    store_of(path, 4, segments=3)
    reader, begin = Reader(path), Reader._begin

    def late(self: Reader, number: int) -> object:
        if number == 1:
            remove(path)
            store_of(path, 4, segments=3)
        return begin(self, number)

    monkeypatch.setattr(Reader, "_begin", late)
    with pytest.raises(StoreError, match="another store"):
        list(reader.pages())


@pytest.mark.parametrize("what", ["removed", "moved", "replaced"])
def test_a_writer_whose_folder_is_gone_says_so(tmp_path: Path, what: str) -> None:
    path = tmp_path / "s"
    writer = created(path)
    fill(writer, 0, 10)
    writer.flush()
    fill(writer, 10, 12)
    if what == "removed":
        shutil.rmtree(path)
    else:
        path.rename(tmp_path / "away")
    if what == "replaced":
        store_of(path, 3)
    with pytest.raises(StoreError, match="was removed, moved or replaced while it was written"):
        writer.flush()
    if what == "moved":
        (tmp_path / "away").rename(path)
        with contextlib.suppress(StoreError):
            writer.flush()  # what went wrong since the last call is raised first
        writer.flush()
        check(Followed(path).archive.snapshot(), 0, 12)
    writer.close()
    if what == "replaced":
        check(Followed(path).archive.snapshot(), 0, 3)


@pytest.mark.parametrize("kind", ["data", "index"])
def test_a_writer_whose_file_is_gone_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    writer = created(path)
    fill(writer, 0, 10)
    writer.flush()
    (path / f"000000.{kind}").unlink()
    fill(writer, 10, 12)
    with pytest.raises(StoreError, match=f"000000.{kind} was removed, moved or replaced"):
        writer.flush()
    writer.close()


def test_two_that_make_a_store_in_one_place_do_not_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, prepare = tmp_path / "s", metafile.prepare

    def late(folder: Path) -> None:
        prepare(folder)
        monkeypatch.setattr(metafile, "prepare", prepare)
        store_of(path, 3)  # another process comes in between

    monkeypatch.setattr(metafile, "prepare", late)
    with pytest.raises(StoreError, match="there is a store at"):
        created(path)
    check(Followed(path).archive.snapshot(), 0, 3)
