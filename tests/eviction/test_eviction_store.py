"""A thinned stream on disk: which tokens are kept is stored with them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import FAMILIES, clip, small_vlm
from thinned import FRAMES, QUESTION, buffers, opened

import mmkv
from mmkv.archive.kept import from_bits, nearest, places, to_bits
from mmkv.cli.store import describe, lines


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("eviction", ["temporal", "text-prior"])
def test_a_stored_stream_answers_as_it_did(family: str, eviction: str, tmp_path: Path) -> None:
    settings = {"eviction": eviction, "retrieve_frames": 4, "merging": "average"}
    with opened(family, tmp_path / "kv", **settings) as stream:
        told = stream.ask(QUESTION, max_new_tokens=4, until=FRAMES / 2)
        seen = buffers(stream, until=FRAMES / 2)
        kept = stream.stats().keep_ratio
        frames = [page.keyframe for page in stream._state.archive.snapshot().pages]
    with small_vlm(family).open(tmp_path / "kv") as again:
        for a, b in zip(buffers(again, until=FRAMES / 2), seen, strict=True):
            torch.testing.assert_close(a, b)
        assert again.ask(QUESTION, max_new_tokens=4, until=FRAMES / 2).token_ids == told.token_ids
        assert again.stats().keep_ratio == kept
        assert [page.keyframe for page in again._state.archive.snapshot().pages] == frames


def test_recent_frames_of_an_opened_stream_are_those_tokens_that_are_left(tmp_path: Path) -> None:
    with opened(store=tmp_path / "kv") as stream:
        past = stream._state.archive.snapshot()
        count = sum(past.pages[-1].lengths[-2:])
    with small_vlm("llava_onevision").open(tmp_path / "kv") as again:
        recent = again._context(None, None).recent_kv
        assert {key.shape[2] for key, _ in recent} == {count}


def test_the_window_of_an_opened_stream_is_filled_up_with_the_nearest_kept(tmp_path: Path) -> None:
    with opened(store=tmp_path / "kv") as stream:
        values = [layer.value.clone() for layer in stream._state.window.layers]
        past, seen = stream._state.archive.snapshot(), stream._state.window.seen
        blocks = past.blocks[-8:]
        left = [past.read(layer, blocks, torch.device("cpu"))[1] for layer in range(len(values))]
        capacity = stream._state.window.capacity
    begin = blocks[0].start
    with small_vlm("llava_onevision").open(tmp_path / "kv", mode="a") as again:
        for layer, ring in enumerate(again._state.window.layers):
            for head, own in enumerate(left[layer].numpy()):
                for token in range(begin, seen):
                    size = blocks[0].tokens
                    mine = own[own // size == (token - begin) // size] + begin
                    nearest_ = mine[np.argmin(np.abs(mine - token))]
                    assert torch.equal(ring.value[0, head, token % capacity],
                                       values[layer][0, head, nearest_ % capacity])  # fmt: skip
        again.feed(clip(4), [FRAMES + float(i) for i in range(4)])
        assert again.ask(QUESTION, max_new_tokens=2).as_of == FRAMES + 3
        assert again.config.keep_ratio == 0.3


def test_a_stream_that_goes_on_may_keep_another_share(tmp_path: Path) -> None:
    with opened(store=tmp_path / "kv", eviction="random", focus="the door"):
        pass
    config = mmkv.CacheConfig(keep_ratio=0.6, window_frames=8)
    with small_vlm("llava_onevision").open(tmp_path / "kv", "a", config=config) as again:
        assert (again.config.eviction, again.config.focus) == ("random", "the door")
        again.feed(clip(FRAMES), [FRAMES + float(i) for i in range(FRAMES)])
        again.flush()
        assert again.stats().keep_ratio == pytest.approx(0.45, abs=0.02)
        assert again.ask(QUESTION, max_new_tokens=2).text is not None


class Own(mmkv.Eviction):
    name = "own"

    def scores(self, frames: mmkv.Frames) -> torch.Tensor:
        return frames.value.norm(dim=-1)


def test_a_store_of_a_policy_of_ones_own_is_read_by_anybody(tmp_path: Path) -> None:
    vlm = small_vlm("llava_onevision")
    with opened(store=tmp_path / "kv", eviction=Own()) as stream:
        assert stream.stats().keep_ratio == pytest.approx(0.3, abs=0.02)
    with vlm.open(tmp_path / "kv") as again:
        assert again.ask(QUESTION, max_new_tokens=2).text is not None
    with pytest.raises(ValueError, match=r"eviction='own', a custom policy.*CacheConfig"):
        vlm.open(tmp_path / "kv", mode="a")
    config = mmkv.CacheConfig(keep_ratio=0.3, eviction=Own())
    with vlm.open(tmp_path / "kv", mode="a", config=config) as again:
        again.feed(clip(2), [FRAMES + 0.0, FRAMES + 1.0])


def test_info_tells_the_effective_budget(tmp_path: Path) -> None:
    with opened(store=tmp_path / "kv", keep_ratio=0.25, eviction="temporal"):
        pass
    found = describe(str(tmp_path / "kv"), check=True)
    assert found["keep_ratio"] == pytest.approx(0.25, abs=0.02)
    assert found["damaged"] == []
    assert "of the tokens, by temporal" in lines(found)


def test_damaged_bits_are_an_error(tmp_path: Path) -> None:
    with opened(store=tmp_path / "kv") as stream:
        page = stream._state.archive.snapshot().pages[0]
        where = page.stored._payload
    data = tmp_path / "kv" / "000000.data"
    raw = bytearray(data.read_bytes())
    raw[where] ^= 0xFF  # the first bits of layer 0
    data.write_bytes(bytes(raw))
    with small_vlm("llava_onevision").open(tmp_path / "kv") as reader:
        past = reader._state.archive.snapshot()
        with pytest.raises(mmkv.StoreError, match="are damaged"):
            past.load(0, past.blocks[:1], torch.device("cpu"))
        past.load(0, past.blocks[page.stop :], torch.device("cpu"))  # the other pages are whole


@pytest.mark.parametrize("seed", range(5))
def test_bits_give_back_which_tokens_are_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.integers(1, 9, size=6).tolist()
    kept = np.zeros((3, sum(whole)), dtype=bool)
    ends = np.cumsum([0, *whole])
    for a, b in pairwise(ends):
        count = rng.integers(1, b - a + 1)
        for row in kept:
            row[a + rng.permutation(b - a)[:count]] = True
    again = from_bits(np.concatenate([to_bits(kept), [7, 7]]).astype(np.uint8), 3, sum(whole))
    assert np.array_equal(again, kept)
    chosen = [1, 4, 5]
    got = places(again, whole, chosen)
    columns = np.concatenate([np.arange(ends[i], ends[i + 1]) for i in chosen])
    for row, mine in zip(got, kept, strict=True):
        assert np.array_equal(np.flatnonzero(mine[columns]), row)


def test_heads_that_keep_different_numbers_are_told_apart_from_damage() -> None:
    kept = np.array([[True, False, True], [True, True, True]])
    with pytest.raises(ValueError, match="different numbers of a block's tokens"):
        places(kept, [3], [0])


def test_the_nearest_kept_token_is_the_earlier_of_two() -> None:
    kept = np.array([[False, True, False, True, False]])
    assert nearest(kept).tolist() == [[1, 1, 1, 3, 3]]


@pytest.mark.parametrize("settings", [{"keep_ratio": 1.0}, {"eviction": "none"}])
def test_going_on_with_everything_is_asked_for_by_either_name(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    with opened(store=tmp_path / "kv", eviction=Own()):
        pass
    config = mmkv.CacheConfig(**settings)
    with small_vlm("llava_onevision").open(tmp_path / "kv", "a", config=config) as again:
        assert again.config.keep_ratio == 1.0
        again.feed(clip(FRAMES), [FRAMES + float(i) for i in range(FRAMES)])
        again.flush()
        assert again.stats().keep_ratio == pytest.approx(0.65, abs=0.02)


def test_the_default_policy_counts_where_it_is_named(tmp_path: Path) -> None:
    with opened(store=tmp_path / "kv", eviction="random", merging="average"):
        pass
    config = mmkv.CacheConfig(eviction="diverse", merging="none")
    with small_vlm("llava_onevision").open(tmp_path / "kv", "a", config=config) as again:
        assert (again.config.eviction, again.config.merging) == ("diverse", "none")
        assert again.config.keep_ratio == 0.3


def test_a_store_goes_on_as_it_was_last_told_to(tmp_path: Path) -> None:
    vlm = small_vlm("llava_onevision")
    with opened(store=tmp_path / "kv"):
        pass
    with vlm.open(tmp_path / "kv", "a", config=mmkv.CacheConfig(keep_ratio=1.0)):
        pass
    for config in (None, mmkv.CacheConfig(), mmkv.CacheConfig(keep_ratio=1.0)):
        for mode in ("r", "a"):
            with vlm.open(tmp_path / "kv", mode, config=config) as again:
                assert again.config.keep_ratio == 1.0
    found = describe(str(tmp_path / "kv"))
    assert "30.1% of the tokens\n" in lines(found) + "\n"


@pytest.mark.parametrize(
    "settings", [{"keep_ratio": 1.0}, {"eviction": "diverse"}, {"focus": "the door"}]
)
def test_a_reader_refuses_to_be_told_how_to_thin(settings: dict[str, Any], tmp_path: Path) -> None:
    vlm = small_vlm("llava_onevision")
    with opened(store=tmp_path / "kv"):
        pass
    name = next(iter(settings))
    with pytest.raises(ValueError, match=f"{name}=.* says what is kept of new frames.*mode='a'"):
        vlm.open(tmp_path / "kv", config=mmkv.CacheConfig(**settings))
    same = mmkv.CacheConfig(keep_ratio=0.3, eviction="random")
    with vlm.open(tmp_path / "kv", config=same) as reader:
        assert reader.ask(QUESTION, max_new_tokens=1).as_of == FRAMES - 1
