"""Which tokens get more bits: those whose embeddings are like the text, and all text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from codec_cases import codec_of, decode, shape_of, states
from small_models import clip, small_vlm

import mmkv
from mmkv.archive.pages import salience_left
from mmkv.codecs import Part
from mmkv.codecs.salience import TextSimilarity

FRAMES = 16


def opened(**settings: Any) -> mmkv.Stream:
    vlm = small_vlm("llava_onevision")
    config = {"window_frames": 6, "recent_frames": 2, "codec": "stp", "page_tokens": 40}
    stream = vlm.stream(mmkv.CacheConfig(**{**config, **settings}))
    stream.feed(clip(FRAMES), [float(i) for i in range(FRAMES)])
    return stream


def protected(stream: mmkv.Stream, layer: int = 0) -> list[np.ndarray]:
    """Per packed block, which tokens' values are at 2 bits."""
    past = stream._state.archive.snapshot()
    found = []
    for page in past.pages:
        values = past.codec.halves(past.page_part(layer, page), layer)[1]  # type: ignore[attr-defined]
        for block, length in zip(values.blocks, values.lengths, strict=True):
            found.append(np.unpackbits(block, count=length).astype(bool))
    return found


@torch.no_grad()
def test_similarity_is_the_mean_over_the_text() -> None:
    adapter = small_vlm("llava_onevision").adapter
    ids = [5, 9, 9, 2]
    embeds = torch.randn(7, adapter.language_model.config.hidden_size)
    text = adapter.embed_text(ids).double()
    want = [
        sum(float(torch.cosine_similarity(e.double(), t, dim=0)) for t in text) / len(ids)
        for e in embeds
    ]
    got = TextSimilarity(adapter, ids)(embeds)
    assert np.allclose(got.numpy(), want, atol=1e-6)


@pytest.mark.parametrize("focus", [None, "the red door"])
def test_a_page_protects_the_fifth_that_is_most_like_the_text(focus: str | None) -> None:
    with opened(focus=focus) as stream:
        vlm, template = stream._runtime, stream._template
        found = np.concatenate(protected(stream))
        past = stream._state.archive.snapshot()
        seconds = range(FRAMES)
        blocks = vlm.adapter.blocks(list(clip(FRAMES)), list(seconds), stream._state.grid)
        prompt = template.prompt(focus or "")
        alike = TextSimilarity(vlm.adapter, [*template.prefix, *prompt.ids])
        at = 0
        for page in past.pages:
            own = torch.cat([alike(blocks[i].embeds) for i in range(page.first, page.stop)])
            want = torch.zeros(len(own), dtype=torch.bool)
            want[own.topk(round(0.2 * len(own))).indices] = True
            assert found[at : at + len(own)].tolist() == want.tolist()
            at += len(own)
    assert at == len(found) > 0


def test_what_is_watched_for_changes_what_is_protected() -> None:
    with opened() as plain, opened(focus="the red door the red door") as watched:
        pairs = zip(protected(plain), protected(watched), strict=True)
        assert any((a != b).any() for a, b in pairs)


def test_text_is_protected_beside_the_fifth_of_the_others() -> None:
    codec, kv = codec_of("stp", shape_of(32)), states("gaussian", 2, 2, 110, 32)
    salience = torch.rand(110)
    salience[50:60] = torch.inf
    packed = codec.encode(kv[0], kv[1], [110], 0, salience)
    error = (decode(codec, packed, [110], shape_of(32)) - kv)[1].square().mean(dim=(0, 2))
    best = salience.topk(30).indices  # ten of text, a fifth of a hundred others
    others = torch.ones(110, dtype=torch.bool)
    others[best] = False
    assert float(error[best].max()) < float(error[others].max())
    assert float(error[best].mean()) < 0.75 * float(error[others].mean())
    values = codec.halves(Part(packed.shared, packed.blocks, [110]), 0)[1]  # type: ignore[attr-defined]
    assert int(np.unpackbits(values.blocks[0], count=110).sum()) == 30


def test_heads_that_keep_different_tokens_count_alike() -> None:
    kept = np.array([[True, True, False, False], [True, False, False, True]])
    salience = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert salience_left(salience, kept).tolist() == [1.0, 5.0]


def test_thinned_pages_are_judged_and_read_too() -> None:
    with opened(keep_ratio=0.5, eviction="random") as stream:
        shares = [block.mean() for block in protected(stream)]
        assert len(stream.ask("What?", max_new_tokens=3).token_ids) <= 3
    assert 0.1 < np.mean(shares) < 0.3


def test_codecs_that_treat_all_alike_are_not_told() -> None:
    with opened(codec="fitted") as stream:
        assert stream._state.frame_encoder.salience is None
