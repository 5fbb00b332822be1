"""Stores of every format version that was ever released stay readable."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from make_store import BLOCKS
from store_blocks import Followed, check, fill, resumed

from mmkv.store.records import VERSION

DATA = Path(__file__).parent / "data"
WRITTEN = {  # SHA-256 of the data file: the committed stores are never written again
    1: "c2088fe6b4d74a0164a6350f17103daa9965cbe45425a494828d872058b00346",
}


@pytest.mark.parametrize("version", WRITTEN)
def test_a_store_of_an_earlier_version_is_read(version: int) -> None:
    path = DATA / f"store-v{version}"
    raw = (path / "000000.data").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == WRITTEN[version]
    check(Followed(path).archive.snapshot(), 0, BLOCKS)


def test_the_current_version_has_its_store() -> None:
    assert max(WRITTEN) == VERSION


@pytest.mark.parametrize("version", WRITTEN)
def test_a_store_of_an_earlier_version_is_gone_on_with(version: int, tmp_path: Path) -> None:
    path = Path(shutil.copytree(DATA / f"store-v{version}", tmp_path / "s"))
    writer = resumed(path)
    fill(writer, BLOCKS, BLOCKS + 7)
    writer.flush()
    writer.close()
    check(Followed(path).archive.snapshot(), 0, BLOCKS + 7)
