"""A page's layers packed together are what each of them is alone, wherever they lie."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from codec_cases import CPU, codec_of, shape_of, states
from eviction_reference import blocks, random_page

from mmkv.archive.pages import Page, pack
from mmkv.archive.slabs import Slabs
from mmkv.archive.thinning import Thinning
from mmkv.codecs import CODECS, PackedLayer
from mmkv.codecs.registry import make_codec
from mmkv.eviction import make_eviction
from mmkv.merging import make_merge

LENGTHS = [16, 0, 30, 9]
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in CODECS),
    *((name, {"protected_layers": (2,)}) for name in ("fitted", "kivi", "stp")),
    ("fitted", {"group_size": 16, "protected_layers": (0, 3)}),
]


def stored(packed: PackedLayer) -> list[bytes]:
    return [packed.shared.tobytes(), *(block.tobytes() for block in packed.blocks)]


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize("judged", [False, True])
def test_layers_together_are_what_each_is_alone(
    name: str, settings: dict[str, Any], judged: bool
) -> None:
    codec = codec_of(name, shape_of(32, layers=4), **settings)
    page = states("biased", 4, 2, 2, sum(LENGTHS), 32)
    page[1, :, 0, :, 3] = 2.5  # constant in one layer, far away in another
    page[2, :, 1, :, 7] += 4000.0
    salience = list(torch.rand(4, sum(LENGTHS))) if judged else None
    together = codec.encode_layers(range(4), page, LENGTHS, salience)
    for layer, (own, kv) in enumerate(zip(together, page, strict=True)):
        alone = codec.encode(*kv, LENGTHS, layer, None if salience is None else salience[layer])
        assert stored(own) == stored(alone)


@pytest.mark.parametrize("name", ["fitted", "kivi"])
def test_as_many_layers_as_stay_in_the_cache_are_packed_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = codec_of(name, shape_of(32, layers=5))
    page = states("gaussian", 5, 2, 2, 40, 32)
    whole = codec.encode_layers(range(5), page, [40])
    monkeypatch.setattr("mmkv.codecs.packer._AT_ONCE", {"cpu": 2 * 2 * 40 * 32})
    in_pairs = codec.encode_layers(range(5), page, [40])
    assert [stored(own) for own in in_pairs] == [stored(own) for own in whole]


def page_of(devices: list[torch.device], name: str, thinning: Thinning | None) -> Page:
    kv, mass = random_page(3, 5, 2, 4, 12, 16)
    held = [
        replace(block, salience=torch.rand(12, generator=torch.Generator().manual_seed(i)))
        for i, block in enumerate(blocks(kv, 4, text=(2, 1), mass=mass))
    ]
    codec = make_codec(name, shape_of(16, layers=5))
    return pack(held, codec, Slabs(torch.uint8, pinned=False, limit=None), devices, thinning)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("merging", [None, "none", "average"])
def test_a_page_is_the_same_from_several_devices(name: str, merging: str | None) -> None:
    thinning = None
    if merging is not None:
        thinning = Thinning(make_eviction("text-prior"), make_merge(merging), 0.4)
    other = torch.device("cpu", 0)  # not equal to the one without a number
    one, several = (
        page_of(where, name, thinning) for where in ([CPU] * 5, [CPU, other, other, CPU, other])
    )
    assert (one.whole is None) is (merging is None)
    assert one.lengths == several.lengths
    assert np.array_equal(one.sizes, several.sizes)
    assert np.array_equal(one.payload, several.payload)
