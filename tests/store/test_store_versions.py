"""Stores of every format version that was ever released stay readable."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from make_store import BLOCKS
from store_blocks import CPU, Followed, check, even_block, fill, resumed

from mmkv.store.records import VERSION

DATA = Path(__file__).parents[1] / "data"
WRITTEN = {  # SHA-256 of the data file: the committed stores are never written again
    1: "c2088fe6b4d74a0164a6350f17103daa9965cbe45425a494828d872058b00346",
    2: "a635cfbc056057ee98bf473a7cc1a2685577a6a84e6b21b44606947630fcf261",
    3: "50474586c31628b31028aa06909fe19dae47d9b27a4e725a3213f3ab727e3059",
}
THINNED = {
    2: "0fc6de78448ba7a982e52114735e5eda336507d59f123a37947a220b973efa79",
    3: "c5c30a7e3bebbfe482ee368a3da971569bb3f094dfd956bda36d0a61dc132330",
}


@pytest.mark.parametrize("version", WRITTEN)
def test_a_store_of_an_earlier_version_is_read(version: int) -> None:
    path = DATA / f"store-v{version}"
    raw = (path / "000000.data").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == WRITTEN[version]
    check(Followed(path).archive.snapshot(), 0, BLOCKS)


@pytest.mark.parametrize("version", THINNED)
def test_a_store_that_lacks_evicted_tokens_is_read(version: int) -> None:
    path = DATA / f"store-v{version}-thinned"
    raw = (path / "000000.data").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == THINNED[version]
    past = Followed(path).archive.snapshot()
    assert len(past.blocks) == BLOCKS
    assert [page.keyframe for page in past.pages] == [page.first for page in past.pages]
    whole = torch.cat([even_block(i).kv for i in range(BLOCKS)], dim=3)
    for layer in range(3):
        kv, left = past.read(layer, past.blocks, CPU)
        assert left.shape[1] == sum(sum(page.lengths) for page in past.pages) < whole.shape[3]
        for head, mine in enumerate(left):
            assert {6 * i + at for i in range(BLOCKS) for at in (0, 5)} <= set(mine.tolist())
            assert torch.equal(kv[:, head], whole[layer, :, head, mine])


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
    raw = (path / "meta.json").read_bytes()
    assert b'"check"' in raw  # from then on it is one of the current version
    assert raw == (path / "meta.copy.json").read_bytes()
