"""What had been flushed and is missing is a loss, and is named; files in wrong places are told.

Siblings of a data file that is cut short: a cut index, both cut, also with the last mark gone; the
newest segment removed, its index removed too; a missing middle segment; a byte changed beside a
block (`embedding`, `state`), which is kept in the same page; the first segment; all segments.
Siblings of a copied segment: two that are swapped, each with its index or without; another store's;
an index of the wrong segment; one that begins with frames that the one before it holds; an older
copy of a file in place of the newest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_blocks import Followed, block, check, created, fill, resumed, without_fsync

from mmkv.store import Store, StoreError
from mmkv.store.files import HEADER, make_header


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    with without_fsync():
        yield


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A store of three segments of 8 blocks, 16 frames, each."""
    path = tmp_path / "s"
    writer = created(path)
    for session in range(3):
        fill(writer, len(writer), len(writer) + 8)
        writer.flush()
        if session < 2:
            writer.sink.writer._begin(block(len(writer)))
    writer.close()
    return path


def offered(path: Path) -> list[int]:
    return [b.index for b in Followed(path).archive.snapshot().blocks]


def lost(path: Path) -> list[str]:
    return list(map(str, Followed(path).store.losses))


def marks(path: Path) -> list[int]:
    """Where the SYNC records of an index begin."""
    size = 88 + 8 * 3
    raw = path.read_bytes()
    return [at for at in range(HEADER, len(raw), size) if raw[at + 4] == 4]


@pytest.mark.parametrize("cut", [1, 500, 1500, 10**6])
def test_the_newest_data_file_cut_short_is_a_loss(three: Path, cut: int) -> None:
    data = three / "000002.data"
    os.truncate(data, max(0, data.stat().st_size - cut))
    left = offered(three)
    assert left == list(range(len(left)))
    assert 16 <= len(left) < 24
    (told,) = lost(three)
    assert told.startswith(f"frames from {2 * len(left)} on (after ")
    assert told.endswith(f": {data} is cut short")
    with pytest.raises(StoreError, match="newest frames are lost"):
        resumed(three)
    assert offered(three) == left  # being refused, nothing was cut off


@pytest.mark.parametrize("mark", ["there", "gone"])
def test_both_files_cut_short_are_a_loss_even_without_the_mark(three: Path, mark: str) -> None:
    data, index = three / "000002.data", three / "000002.index"
    at = marks(index)[-1]
    if mark == "gone":
        os.truncate(index, at - 300)
    os.truncate(data, data.stat().st_size - 900)
    assert len(offered(three)) < 24
    (told,) = lost(three)
    assert str(data) in told
    with pytest.raises(StoreError, match="newest frames are lost"):
        resumed(three)


@pytest.mark.parametrize("size", [0, 10, HEADER, HEADER + 700])
def test_a_cut_index_loses_nothing(three: Path, size: int) -> None:
    os.truncate(three / "000002.index", size)
    check(Followed(three).archive.snapshot(), 0, 24)
    assert not lost(three)
    resumed(three).close()
    check(Followed(three).archive.snapshot(), 0, 24)


def test_what_no_mark_vouches_for_is_no_loss(tmp_path: Path) -> None:
    writer = created(tmp_path / "s")
    fill(writer, 0, 12)
    writer.flush()
    path = Path(shutil.copytree(tmp_path / "s", tmp_path / "t"))
    data, index = path / "000000.data", path / "000000.index"
    os.truncate(index, marks(index)[-1])  # as if the power had gone in the flush
    os.truncate(data, data.stat().st_size - 100)
    assert len(offered(path)) < 12
    assert not lost(path)
    again = resumed(path)
    fill(again, len(again), 20)
    again.flush()
    again.close()
    check(Followed(path).archive.snapshot(), 0, 20)
    writer.close()


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize(("which", "frames"), [
    ([2], "frames from 32 on (after 15.62 s)"),
    ([1], "frames 16 to 31 (after 7.62 s and before 16.12 s)"),
    ([0], "frames 0 to 15 (before 8.12 s)"),
    ([0, 1, 2], "frames from 0 on"),
])  # fmt: skip
def test_removed_segments_are_losses(
    three: Path, which: list[int], frames: str, index: bool
) -> None:
    for number in which:
        (three / f"00000{number}.data").unlink()
        if index:
            (three / f"00000{number}.index").unlink()
    assert offered(three) == [i for i in range(24) if i // 8 not in which]
    (told,) = lost(three)
    assert told.startswith(f"{frames}: {three / f'00000{which[0]}.data'} is missing")


def test_damage_beside_a_block_is_found_by_a_check(three: Path) -> None:
    data = three / "000001.data"
    raw = bytearray(data.read_bytes())
    at = raw.index(b"of block 9")
    raw[at] ^= 1
    data.write_bytes(raw)
    store = Store.follow(three)
    found = [damage for stored in store.pages() for damage in store.damage_of(stored)]
    assert len(found) == 1
    assert found[0].startswith("beside frames from ")
    assert str(data) in found[0]


@pytest.mark.parametrize("both", [False, True])
def test_a_copied_segment_offers_no_frame_twice(three: Path, both: bool) -> None:
    for kind in ("data", "index") if both else ("data",):
        shutil.copy(three / f"000000.{kind}", three / f"000001.{kind}")
    assert offered(three) == [*range(8), *range(16, 24)]
    (told,) = lost(three)
    assert told.startswith("frames 16 to 31 ")
    assert "holds segment 0, not 1; put the right file back" in told


@pytest.mark.parametrize("kinds", [("data",), ("index",), ("data", "index")])
def test_swapped_segments_are_told(three: Path, kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        one, other = three / f"000000.{kind}", three / f"000001.{kind}"
        held = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(held)
    assert offered(three) == list(range(16, 24))
    (told,) = lost(three)
    assert "holds segment 1, not 0" in told
    assert "holds segment 0, not 1" in told


def test_a_segment_whose_frames_an_earlier_one_holds_is_not_read(three: Path) -> None:
    meta = Store.follow(three).meta
    store = bytes.fromhex(meta["store"])
    for kind in ("data", "index"):
        raw = (three / f"000000.{kind}").read_bytes()
        head = make_header(kind, 3, 1, 0, store)
        (three / f"000001.{kind}").write_bytes(head + raw[HEADER:])
    assert offered(three) == [*range(8), *range(16, 24)]
    assert "begins with frames that" in lost(three)[0]


def test_an_older_copy_of_the_newest_file_is_a_loss(tmp_path: Path) -> None:
    path = tmp_path / "s"
    writer = created(path)
    fill(writer, 0, 10)
    writer.flush()
    old = {kind: (path / f"000000.{kind}").read_bytes() for kind in ("data", "index")}
    fill(writer, 10, 20)
    writer.close()
    for kind, raw in old.items():
        (path / f"000000.{kind}").write_bytes(raw)
    assert offered(path) == list(range(10))
    assert lost(path) == [f"frames from 20 on (after 9.62 s): {path / '000000.data'} is cut short"]


def test_frames_that_an_old_meta_does_not_know_of_are_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    writer = created(path)
    fill(writer, 0, 8)
    writer.flush()
    old = (path / "meta.json").read_bytes()
    writer.sink.writer._begin(block(8))
    fill(writer, 8, 16)
    writer.close()
    held = (path / "000001.data").read_bytes()
    for name in ("meta.json", "meta.copy.json"):
        (path / name).write_bytes(old)
    again = resumed(path)
    with pytest.raises(StoreError, match=r"000001.data is there already, though meta.json"):
        again.sink.writer._begin(block(8))
    again.close()
    assert (path / "000001.data").read_bytes() == held
