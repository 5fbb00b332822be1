"""A store gives back what was put into it, to its writer, to readers beside it, and later."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from store_blocks import (
    CPU,
    FACTS,
    Followed,
    archive,
    block,
    check,
    created,
    fill,
    resumed,
    rows,
    states,
    without_fsync,
)

from mmkv.store import Store, StoreError, StoreMismatchError
from mmkv.store.files import DataFile
from mmkv.store.retention import Limits


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    with without_fsync():
        yield


@given(
    counts=st.lists(st.integers(1, 25), min_size=1, max_size=4),
    step=st.integers(1, 9),
    page=st.integers(1, 30),
    limit=st.one_of(st.none(), st.integers(1, 20_000)),
    segment=st.one_of(st.none(), st.integers(16_000, 200_000)),
)
@settings(max_examples=12, deadline=None)
def test_what_was_flushed_is_there_for_every_reader(
    counts: list[int], step: int, page: int, limit: int | None, segment: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, total = Path(folder) / "s", 0
        limits = Limits() if segment is None else _SmallSegments(segment // 16)
        for session, count in enumerate(counts):
            options = {"page_tokens": page, "limit": limit, "limits": limits}
            writer = created(path, **options) if not session else resumed(path, **options)
            fill(writer, total, total + count, step)
            total += count
            writer.flush()
            check(writer.snapshot(), 0, total)
            check(Followed(path, limit=limit).archive.snapshot(), 0, total)
            writer.close()
            check(Followed(path).archive.snapshot(), 0, total)


class _SmallSegments(Limits):
    """Segments of a few pages, and nothing dropped."""

    def __init__(self, segment_bytes: int) -> None:
        super().__init__()
        object.__setattr__(self, "_segment", segment_bytes)

    __slots__ = ("_segment",)

    @property
    def segment_bytes(self) -> int:
        return self._segment


def test_a_reader_beside_the_writer_sees_each_flush(tmp_path: Path) -> None:
    writer = created(tmp_path / "s")
    reader = Followed(tmp_path / "s")
    check(reader.archive.snapshot(), 0, 0)
    for stop in (1, 2, 11, 12, 30):
        fill(writer, len(writer), stop)
        early = reader.refresh().snapshot()
        assert len(early.blocks) <= stop
        writer.flush()
        check(reader.refresh().snapshot(), 0, stop)
    writer.close()


def test_one_block_of_one_layer_is_read_alone(tmp_path: Path) -> None:
    writer = created(tmp_path / "s", page_tokens=100)
    fill(writer, 0, 20)
    writer.flush()
    reader = Followed(tmp_path / "s").archive
    past = reader.snapshot()
    got = past.load(1, [past.blocks[3], past.blocks[17]], CPU)
    assert torch.equal(got, torch.cat([states(3)[1], states(17)[1]], dim=2))
    assert (reader.reads.disk, reader.reads.memory) == (2, 0)
    writer.close()


def test_what_was_prefetched_is_not_read_again(tmp_path: Path) -> None:
    writer = created(tmp_path / "s")
    fill(writer, 0, 20)
    writer.close()
    reader = Followed(tmp_path / "s").archive
    past = reader.snapshot()
    past.prefetch(2, past.blocks[4:9])
    assert torch.equal(past.load(2, past.blocks[4:9], CPU), torch.cat(
        [states(i)[2] for i in range(4, 9)], dim=2
    ))  # fmt: skip
    assert (reader.reads.ahead, reader.reads.disk) == (5, 0)
    past.load(2, past.blocks[8:10], CPU)
    assert (reader.reads.ahead, reader.reads.disk) == (6, 1)


def test_pages_beyond_max_ram_are_on_disk_alone(tmp_path: Path) -> None:
    limit = 12_000
    writer = created(tmp_path / "s", limit=limit)
    for at in range(0, 200, 20):
        fill(writer, at, at + 20)
        writer.flush()
        assert writer.nbytes <= limit
    past = writer.snapshot()
    check(past, 0, 200)
    assert writer.reads.memory > 0
    assert writer.reads.disk > 150
    writer.close()


def test_only_its_owner_may_read_a_store(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        writer = created(tmp_path / "s")
        fill(writer, 0, 5)
        writer.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "s").iterdir()}
    assert modes == {0o600}


def test_a_store_is_not_made_twice(tmp_path: Path) -> None:
    created(tmp_path / "s").close()
    with pytest.raises(StoreError, match="open"):
        created(tmp_path / "s")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        created(tmp_path / "full")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        created(tmp_path / "file")


def test_a_store_is_gone_on_with_where_the_layers_are(tmp_path: Path) -> None:
    with contextlib.closing(created(tmp_path / "s")) as writer:
        fill(writer, 0, 5)
        writer.flush()
    elsewhere, again = torch.device("meta"), archive()
    again.extend(Store.follow(tmp_path / "s"), [elsewhere] * 3)
    again.append([block(5)], [layer.to(elsewhere) for layer in rows(5, 6)])
    (part,) = again.snapshot().summary_parts(0, 0, 6)
    assert part.device == elsewhere


def test_two_writers_are_refused_until_the_first_is_done(tmp_path: Path) -> None:
    writer = created(tmp_path / "s")
    fill(writer, 0, 9)
    with pytest.raises(StoreError, match=f"being written by process {os.getpid()}"):
        resumed(tmp_path / "s")
    writer.flush()
    writer.close()
    second = resumed(tmp_path / "s")
    check(second.snapshot(), 0, 9)
    second.close()


def test_somebody_who_only_looks_keeps_no_writer_out_however_long_it_takes(tmp_path: Path) -> None:
    created(tmp_path / "s").close()
    with (tmp_path / "s" / "lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        letting_go = threading.Timer(0.5, fcntl.flock, (looking, fcntl.LOCK_UN))
        letting_go.start()
        resumed(tmp_path / "s").close()
        letting_go.join()


def test_a_reader_that_comes_before_the_writer_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        Followed(tmp_path / "s")
    with pytest.raises(StoreError, match="there is no store at"):
        resumed(tmp_path / "s")


def test_a_store_of_another_version_names_what_reads_it(tmp_path: Path) -> None:
    created(tmp_path / "s").close()
    path = tmp_path / "s" / "meta.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, "version": 4, "mmkv": "9.1"}))
    with pytest.raises(
        StoreMismatchError, match=r"version 4, .* versions 1, 2 and 3; .* mmkv 9\.1"
    ):
        Followed(tmp_path / "s")
    for name in ("meta.json", "meta.copy.json"):
        (tmp_path / "s" / name).write_text("{")
    with pytest.raises(StoreError, match="both damaged"):
        Followed(tmp_path / "s")


def test_max_disk_drops_whole_segments_from_the_oldest_on(tmp_path: Path) -> None:
    limits = Limits(max_disk=30_000)
    writer = created(tmp_path / "s", limits=limits)
    reader = Followed(tmp_path / "s")
    early = None
    for at in range(0, 200, 20):
        fill(writer, at, at + 20)
        writer.flush()
        if early is None:
            early = reader.refresh().snapshot()
        size = sum(f.stat().st_size for f in (tmp_path / "s").glob("0*"))
        assert size <= limits.max_disk + limits.segment_bytes
    fill(writer, 200, 201)
    writer.flush()
    first = writer.first
    assert 100 < first < 200
    check(writer.snapshot(), first, 201)
    check(early, 0, 20)  # what a question still uses outlives its files
    check(reader.refresh().snapshot(), first, 201)
    writer.close()
    check(Followed(tmp_path / "s").archive.snapshot(), first, 201)
    again = resumed(tmp_path / "s", limits=limits)
    fill(again, 201, 220)
    check(again.snapshot(), again.first, 220)
    again.close()


def test_max_age_drops_what_is_older_but_not_what_the_window_shows(tmp_path: Path) -> None:
    writer = created(tmp_path / "s", limits=Limits(max_age=50.0))
    fill(writer, 0, 121)
    writer.flush()
    assert 120 - 50 - 10 < writer.first <= 120 - 50
    writer.close()
    careful = created(tmp_path / "t", limits=Limits(max_age=50.0))
    careful.window_tokens = 240
    fill(careful, 0, 121)
    careful.flush()
    last = careful.last
    shown = last.start + last.tokens - 240
    assert careful.first > 0
    assert careful.oldest.start <= shown
    careful.close()


def test_without_a_store_nothing_is_read_or_written(tmp_path: Path) -> None:
    kept = archive(on_disk=False)
    fill(kept, 0, 40)
    kept.flush()
    check(kept.snapshot(), 0, 40)
    assert (kept.reads.disk, kept.reads.memory > 0) == (0, True)


def test_a_block_keeps_what_was_put_beside_it(tmp_path: Path) -> None:
    writer = created(tmp_path / "s")
    fill(writer, 0, 8)
    newest = writer.snapshot()
    assert newest.side("picture", newest.blocks[6]) == block(6).sides["picture"]
    assert newest.side("other", newest.blocks[6]) is None
    writer.close()


def test_facts_are_kept_in_meta(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", FACTS, Limits())
    assert store.writer is not None
    store.writer.note(grid={"rows": 3}, first_seconds=2.5)
    assert Store.follow(tmp_path / "s").meta["grid"] == {"rows": 3}
    store.writer.close()


def test_data_reaches_the_disk_before_the_index_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    write, sync = os.pwritev, os.fdatasync

    def note(what: str, file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        if path.parent == tmp_path / "s":
            done.append(what + path.suffix[1:])

    monkeypatch.setattr(os, "pwritev", lambda file, *rest: note("", file) or write(file, *rest))
    monkeypatch.setattr(os, "fdatasync", lambda file: note("sync ", file) or sync(file))
    writer = created(tmp_path / "s")
    fill(writer, 0, 3)
    writer.flush()
    assert done[-5:] == ["data", "index", "sync data", "sync index", "index"]
    writer.close()


def test_the_writer_reads_back_nothing_of_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> bytes:
        raise AssertionError("read")

    writer = created(tmp_path / "s")
    fill(writer, 0, 5)
    writer.flush()
    with monkeypatch.context() as patch:
        patch.setattr(DataFile, "bytes", refuse)
        fill(writer, 5, 30)
        writer.flush()
    writer.close()
    check(resumed(tmp_path / "s").snapshot(), 0, 30)
