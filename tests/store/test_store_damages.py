"""Random damages to every file of a store: an error of its own kind or a loss, and no wrong byte.

Siblings of a changed byte in meta.json: several, a piece that is cut out, put in twice, zeroed or
exchanged, the file cut short or emptied; in its first copy, its second, both alike and both
differently; the same in the data, index and `waiting` files; meta.json of versions 1 and 2, which
have no checksum, where a change may go unseen but is no other error.

The seeds are fixed. `pytest tests/store/test_store_damages.py -s` prints what came of them.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from store_blocks import (
    CPU,
    Followed,
    created,
    fill,
    kept_rows,
    resumed,
    same_block,
    states,
    without_fsync,
)
from store_blocks import block as block_of

from mmkv.answer.retriever import runs
from mmkv.store import DamageError, Store, StoreError
from mmkv.store import meta as metafile

DATA = Path(__file__).parents[1] / "data"
COUNT = 24
FRAME = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    with without_fsync():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two segments with a waiting frame."""
    path = tmp_path_factory.mktemp("whole") / "s"
    writer = created(path)
    fill(writer, 0, COUNT // 2)
    writer.flush()
    writer.sink.writer._begin(block_of(COUNT // 2))
    fill(writer, COUNT // 2, COUNT)
    writer.flush()
    writer.close()
    store = Store.follow(path)
    store.keep_waiting(COUNT, [(24.5, FRAME)])
    return path


def damage(raw: bytes, draw: random.Random) -> bytes:
    """Damage bytes in one of several ways; the result differs from them."""
    size = len(raw)
    at, length = draw.randrange(size), draw.choice((1, 2, 8, 60, 400))
    piece = raw[at : at + length]
    ways: list[Callable[[], bytes]] = [
        lambda: raw[:at] + bytes([raw[at] ^ 1 << draw.randrange(8)]) + raw[at + 1 :],
        lambda: raw[:at] + bytes([draw.choice(b'0123456789abcdef",:{}[] ')]) + raw[at + 1 :],
        lambda: raw[:at] + draw.randbytes(len(piece)) + raw[at + length :],
        lambda: raw[:at] + bytes(len(piece)) + raw[at + length :],
        lambda: raw[:at] + raw[at + length :],
        lambda: raw[:at] + piece + raw[at:],
        lambda: raw[:at],
        lambda: _each(raw, draw),
    ]
    while (changed := draw.choice(ways)()) == raw:
        pass
    return changed


def _each(raw: bytes, draw: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(draw.randint(2, 6)):
        changed[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def outcome(path: Path) -> str:
    """Read all that a damaged store offers, compare it, and try to write on."""
    try:
        followed = Followed(path)
    except StoreError:
        return "refused"
    past, refused = followed.archive.snapshot(), 0
    for held in past.blocks:
        assert same_block(held, held.index)
        for layer in range(3):
            try:
                got = past.load(layer, [held], CPU)
            except DamageError:
                refused += 1
            else:
                assert torch.equal(got, states(held.index)[layer])
        try:
            assert past.side("picture", held) == block_of(held.index).sides.get("picture")
        except DamageError:
            refused += 1
    for layer in range(3):
        for first, stop in runs(past.blocks):
            want = kept_rows(first, stop)[layer]
            assert torch.equal(past.summaries(layer, first, stop), want)
    for seconds, frame in followed.store.waiting(COUNT):
        assert seconds == 24.5
        assert np.array_equal(frame, FRAME)
    there = len(past.blocks)
    losses = followed.store.losses
    assert there == COUNT or losses, "frames are missing and nothing says so"
    try:
        writer = resumed(path)
        fill(writer, len(writer), len(writer) + 3)
        writer.flush()
        writer.close()
    except StoreError:
        assert losses or refused
    return "refused pieces" if refused else "named" if losses else "nothing lost"


def many(whole: Path, names: list[str], rounds: int, seed: int, *, alike: bool = False) -> Counter:
    draw, found = random.Random(seed), Counter[str]()
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(shutil.copytree(whole, Path(folder) / "s"))
            changed = None
            for name in names:
                if changed is None or not alike:
                    changed = damage((path / name).read_bytes(), draw)
                (path / name).write_bytes(changed)
            found[outcome(path)] += 1
    print(f"{rounds} damages to {' and '.join(names)}: {dict(found)}")
    return found


def test_a_damaged_meta_is_told_and_its_copy_used(whole: Path) -> None:
    assert many(whole, ["meta.json"], 40, 1) == {"named": 40}
    assert many(whole, ["meta.copy.json"], 16, 2) == {"named": 16}


def test_both_damaged_is_one_clear_error(whole: Path) -> None:
    assert many(whole, ["meta.json", "meta.copy.json"], 60, 3) == {"refused": 60}
    assert many(whole, ["meta.json", "meta.copy.json"], 30, 4, alike=True) == {"refused": 30}


@pytest.mark.parametrize(("name", "seed"), [
    ("000000.data", 5), ("000000.index", 6), ("000001.data", 7), ("000001.index", 8),
])  # fmt: skip
def test_damaged_segments_serve_nothing_wrong(whole: Path, name: str, seed: int) -> None:
    found = many(whole, [name], 20, seed)
    assert "refused" not in found
    if name.endswith("index"):
        assert found == {"nothing lost": 20}


def test_a_damaged_segment_and_its_index_serve_nothing_wrong(whole: Path) -> None:
    assert "refused" not in many(whole, ["000001.data", "000001.index"], 20, 9)


def test_a_damaged_waiting_frame_is_dropped(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert many(whole, ["waiting"], 20, 10) == {"nothing lost": 20}
    told = [r for r in caplog.records if "has lost a frame that waited" in r.getMessage()]
    assert len(told) == 20


def test_what_is_wrong_is_one_sentence(whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "s"))
    (path / "meta.json").write_bytes((path / "meta.json").read_bytes()[:-3])
    (told,) = Followed(path).store.losses
    assert re.fullmatch(
        r"no frames: \S+meta.json is damaged, or not a store's; meta.copy.json was used in its "
        "place",
        str(told),
    )
    writer = resumed(path)  # which restores it
    assert (path / "meta.json").read_bytes() == (path / "meta.copy.json").read_bytes()
    writer.close()
    assert not Followed(path).store.losses
    for name in ("meta.json", "meta.copy.json"):
        (path / name).write_text("x")
    for act in (Store.follow, Store.resume):
        with pytest.raises(DamageError, match=r"meta.json and its copy .* are both damaged"):
            act(path)
    with pytest.raises(StoreError, match="both damaged"):
        created(path)


@pytest.mark.parametrize("missing", ["meta.json", "meta.copy.json"])
def test_a_missing_copy_is_told_and_made_again(whole: Path, tmp_path: Path, missing: str) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "s"))
    (path / missing).unlink()
    (told,) = Followed(path).store.losses
    assert f"{missing} is missing" in str(told)
    resumed(path).close()
    assert not Followed(path).store.losses


@pytest.mark.parametrize("version", [1, 2])
def test_a_damaged_meta_of_an_early_version_is_no_other_error(version: int) -> None:
    draw, found = random.Random(version), Counter[str]()
    for _ in range(60):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(shutil.copytree(DATA / f"store-v{version}", Path(folder) / "s"))
            meta = path / "meta.json"
            meta.write_bytes(damage(meta.read_bytes(), draw))
            try:
                followed = Followed(path)
                followed.archive.snapshot()
                found["opened"] += 1
            except StoreError:
                found["refused"] += 1
    print(f"60 damages to meta.json of version {version}: {dict(found)}")
    assert found["refused"] > 20


def test_a_meta_that_lost_its_checksum_is_not_taken_for_an_early_one(
    whole: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "s"))
    meta = metafile.load(path)
    (path / "meta.json").write_text(json.dumps({**meta, "layers": 4}))
    assert Followed(path).store.meta["layers"] == 3
    raw = (path / "meta.copy.json").read_bytes().replace(b'"check"', b'"chuck"')
    (path / "meta.json").write_bytes(raw.replace(b'"version": 3', b'"version": 2'))
    assert len(Followed(path).store.losses) == 1
