"""A stream archived with every codec answers, and says what its past takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from small_models import clip, small_vlm

import mmkv
from mmkv.cli.store import describe, lines
from mmkv.codecs import CODECS, make_codec
from mmkv.codecs.salience import TextSimilarity
from mmkv.models.block import Block

FRAMES = 20
VLM = small_vlm("llava_onevision")
SETTINGS: list[dict[str, Any]] = [
    *({"codec": name} for name in CODECS),
    {"key_bits": 1.5, "value_bits": 1.58},
    {"key_bits": 4, "value_bits": 4},
    {"value_bits": 1.66},
    {"codec": "fitted", "group_size": 32, "transform": "fft", "remove_mean": False},
    {"codec": "vidkv", "protected_layers": [0, -1]},
]


def opened(**settings: Any) -> mmkv.Stream:
    config = mmkv.CacheConfig(
        window_frames=6, recent_frames=2, retrieve_frames=4, chunk_frames=4, **settings
    )
    stream = VLM.stream(config)
    stream.feed(clip(FRAMES), [float(i) for i in range(FRAMES)])
    return stream


def whole_pages(stream: mmkv.Stream) -> int:
    """Blocks that are packed."""
    return sum(block.kv is None for block in stream._state.archive.snapshot().blocks)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())))
def test_every_codec_answers_from_packed_frames(settings: dict[str, Any]) -> None:
    with opened(**settings) as stream:
        assert whole_pages(stream) >= FRAMES // 2
        answer = stream.ask("What is it?", max_new_tokens=4)
        assert len(answer.token_ids) <= 4
        old = [frame for frame in answer.frames if not frame.recent]
        assert old
        assert stream.ask("What is it?", max_new_tokens=4).token_ids == answer.token_ids


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())))
def test_what_a_question_loads_is_what_the_codec_made_of_it(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = VLM.adapter.shape
    judge, judged = TextSimilarity.judge, []

    def noted(self: TextSimilarity, blocks: Sequence[Block]) -> None:
        judge(self, blocks)
        judged.extend(block.salience for block in blocks)

    monkeypatch.setattr(TextSimilarity, "judge", noted)
    with opened(codec="fp16") as exact, opened(**settings) as packed:
        codec = make_codec(
            settings.get("codec"), shape, **{k: v for k, v in settings.items() if k != "codec"}
        )
        true, stored = exact._state.archive.snapshot(), packed._state.archive.snapshot()
        page = stored.pages[1]
        blocks = stored.blocks[page.first : page.stop]
        salience = torch.cat(judged[page.first : page.stop]) if judged else None
        for layer in (0, shape.layers - 1):
            kv = true.load(layer, true.blocks[page.first : page.stop], torch.device("cpu"))
            made = codec.encode(kv[0], kv[1], page.lengths, layer, salience)
            part = stored.page_part(layer, page)
            assert bytes(made.shared) == bytes(part.shared)
            assert [bytes(b) for b in made.blocks] == [bytes(b) for b in part.blocks]
            wanted = codec.decode([part], layer, shape, torch.device("cpu"), torch.float32)
            found = stored.load(layer, blocks, torch.device("cpu"))
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", CODECS)
def test_stats_count_the_bits_that_are_stored(name: str) -> None:
    with opened(codec=name) as stream:
        stream.flush()
        stats, archive = stream.stats(), stream._state.archive
        shape = VLM.adapter.shape
        tokens = sum(block.tokens for block in archive.snapshot().blocks)
        elements = 2 * shape.layers * shape.kv_heads * shape.head_dim * tokens
        assert stats.codec == name
        assert stats.bits_per_element == pytest.approx(8 * archive.nbytes / elements)
        assert stats.gb_per_hour == pytest.approx(archive.nbytes / FRAMES * 3600 / 1e9)


def test_nothing_packed_has_no_bits() -> None:
    with VLM.stream(mmkv.CacheConfig(codec="fitted")) as stream:
        assert stream.stats().bits_per_element is None
        stream.feed(clip(1), 0.0)
        assert stream.stats().bits_per_element is None


def test_fewer_bits_take_less_memory() -> None:
    sizes = []
    for settings in ({}, {"key_bits": 4, "value_bits": 4}, {"key_bits": 1.5, "value_bits": 1.58}):
        with opened(**settings) as stream:
            stream.flush()
            sizes.append(stream.stats().archive_bytes)
    assert sizes[0] > 5 * sizes[1] > 7 * sizes[2]


def test_models_whose_heads_cannot_be_packed_are_told_so() -> None:
    vlm = small_vlm("qwen3_vl")  # heads of 24
    with pytest.raises(ValueError, match=r"multiple of 16.*24.*codec='fp16'"):
        vlm.stream(mmkv.CacheConfig(key_bits=2))
    vlm.stream(mmkv.CacheConfig()).close()


def test_frames_with_numbers_that_are_none_are_not_archived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with opened(codec="fitted") as stream:
        monkeypatch.setattr(VLM.adapter.language_model.layers[1].self_attn.k_proj.bias, "data",
                            torch.full((32,), float("nan")))  # fmt: skip
        with pytest.raises(ValueError, match="keys of layer 1 hold NaN or infinity"):
            stream.feed(clip(8), [float(FRAMES + i) for i in range(8)])


@pytest.mark.parametrize("name", ["fitted", "stp"])
def test_a_stored_stream_answers_as_it_did(name: str, tmp_path: Any) -> None:
    config = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4, codec=name)
    with VLM.stream(config, store=tmp_path / "kv") as stream:
        stream.feed(clip(FRAMES), [float(i) for i in range(FRAMES)])
        told = stream.ask("What is it?", max_new_tokens=4, until=12.0)
        bits = stream.stats().bits_per_element
    with VLM.open(tmp_path / "kv") as again:
        assert again.ask("What is it?", max_new_tokens=4, until=12.0).token_ids == told.token_ids
        assert again.stats().codec == name
        assert again.stats().bits_per_element == pytest.approx(bits, rel=0.1)


def test_info_on_a_store_tells_its_bits(tmp_path: Any) -> None:
    config = mmkv.CacheConfig(window_frames=6, recent_frames=2, key_bits=1.5, value_bits=2)
    with VLM.stream(config, store=tmp_path / "kv") as stream:
        stream.feed(clip(FRAMES), [float(i) for i in range(FRAMES)])
        stream.flush()
        bits = stream.stats().bits_per_element
    found = describe(str(tmp_path / "kv"), check=False)
    assert found["bits_per_element"] == pytest.approx(bits)
    assert f"{bits:.2f} bits per element" in lines(found)
