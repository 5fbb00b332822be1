"""Every score is its formula, computed a second time in float64 with loops over words and heads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mmkv
from mmkv.encode.summarizer import Summarizer
from mmkv.retrieval.base import Score
from mmkv.retrieval.registry import SCORES

Formula = Callable[[list[Tensor], list[Tensor]], list[Tensor]]  # of all layers


def mean_key(words: list[Tensor], summaries: list[Tensor]) -> list[Tensor]:
    return [torch.stack(dots(w, s)) for w, s in zip(words, summaries, strict=True)]


def dots(words: Tensor, summaries: Tensor) -> list[Tensor]:
    heads, group = words.shape[1], words.shape[1] // summaries.shape[2]
    probe = [words[:, h].sum(dim=0) / len(words) for h in range(heads)]
    return [sum((probe[h] @ block[0, h // group] for h in range(heads)), torch.tensor(0.0))
            for block in summaries]  # fmt: skip


def cosine(words: list[Tensor], summaries: list[Tensor]) -> list[Tensor]:
    found = []
    for w, s in zip(words, summaries, strict=True):
        group = w.shape[1] // s.shape[2]
        probe = w.mean(dim=0).view(s.shape[2], group, -1).sum(dim=1)
        found.append(
            torch.stack([torch.cosine_similarity(probe.flatten(), b[0].flatten(), 0) for b in s])
        )
    return found


def attention(words: list[Tensor], summaries: list[Tensor]) -> list[Tensor]:
    found: list[Tensor] = []
    for w, every in zip(words, summaries, strict=True):
        s = every if found else every[:, :1]  # the first layer looks at the means
        n, _, kv_heads, _ = s.shape
        shares = torch.zeros(n, dtype=torch.float64)
        for word in w:
            for head, query in enumerate(word):
                keys = s[:, :, head // (len(word) // kv_heads)]  # [n, m, D]
                weights = (keys @ query).amax(dim=1).softmax(dim=0)
                shares += weights / (len(w) * len(word))
        own = (shares - shares.mean()) / shares.std(correction=0)
        found.append(own + (found[-1] if len(found) > 1 else 0))  # the first layer stands alone
    return found


FORMULAS: dict[str, Formula] = {"mean-key": mean_key, "cosine": cosine, "attention": attention}


def test_every_score_has_its_formula_here() -> None:
    assert set(FORMULAS) == set(SCORES)


@pytest.mark.parametrize("name", SCORES)
@given(
    n=st.integers(2, 9), m=st.integers(1, 4), kv_heads=st.integers(1, 3), group=st.integers(1, 3),
    width=st.sampled_from([4, 10]), w=st.integers(1, 5), layers=st.integers(1, 3),
    seed=st.integers(0, 999), parts=st.integers(1, 4),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_a_score_is_its_formula_however_the_blocks_are_split(
    name: str, n: int, m: int, kv_heads: int, group: int, width: int, w: int, layers: int,
    seed: int, parts: int,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    words = [torch.randn(w, kv_heads * group, width, generator=generator) for _ in range(layers)]
    summaries = [torch.randn(n, m, kv_heads, width, generator=generator) for _ in range(layers)]
    want = FORMULAS[name]([x.double() for x in words], [x.double() for x in summaries])
    score: Score = SCORES[name]()
    for layer in range(layers):
        pieces = summaries[layer].tensor_split(min(parts, n))
        centre = summaries[layer][0, 0]
        pieces = [piece - centre for piece in pieces]
        halves = [pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]]
        rows = [score.rows(words[layer], half, centre) for half in halves if half]
        got = score.combine(torch.cat(rows, dim=1))
        assert got.dtype == torch.float32
        if name == "mean-key":  # what the centre adds to all blocks is left out
            got, want[layer] = got - got[0], want[layer] - want[layer][0]
        assert torch.allclose(got.double(), want[layer], atol=2e-4, rtol=1e-3)


def test_scores_of_equal_blocks_are_equal_and_finite() -> None:
    for score in SCORES.values():
        object_ = score()
        rows = object_.rows(torch.randn(3, 4, 8), [torch.ones(5, 2, 2, 8)], torch.zeros(2, 8))
        got = object_.combine(rows)
        assert torch.isfinite(got).all()
        assert torch.allclose(got, got[0].expand(5), atol=1e-4)


@given(
    blocks=st.integers(1, 4), tokens=st.integers(1, 7), text=st.integers(0, 3),
    landmarks=st.integers(0, 8), seed=st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_landmarks_are_far_from_the_mean_and_from_each_other(
    blocks: int, tokens: int, text: int, landmarks: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    kinds = [torch.rand(text, generator=generator) < 2, torch.ones(tokens, dtype=torch.bool)]
    visual = torch.cat([~kinds[0], kinds[1]] * blocks)
    keys = torch.randn(2, len(visual), 4, generator=generator)
    got = Summarizer(visual, [text + tokens] * blocks, landmarks)(keys)
    assert got.shape == (blocks, 1 + landmarks, 2, 4)
    for i in range(blocks):
        start = i * (text + tokens) + text
        own = keys[:, start : start + tokens].transpose(0, 1).double()  # [T, H_kv, D]
        kept = got[i].double()
        assert torch.allclose(kept[0], own.mean(dim=0), atol=1e-5)
        for k in range(1, 1 + landmarks):
            gaps = torch.stack([torch.stack([(t - c).norm() for c in kept[:k]]).min() for t in own])
            chosen = [j for j, token in enumerate(own) if torch.allclose(token, kept[k], atol=1e-6)]
            assert chosen
            assert gaps[chosen].max() >= gaps.max() - 1e-4


def test_a_small_thing_is_found_by_its_landmark_and_not_by_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = 0.3 * torch.randn(50, 16, 1, 32, generator=generator)
    thing = torch.randn(32, generator=generator)
    keys[17, 5, 0] += thing
    keys[:, :, 0] += 0.1 * torch.randn(50, 1, 32, generator=generator)
    flat = keys.flatten(0, 1).transpose(0, 1)  # [1, n, 32]
    kept = Summarizer(torch.ones(800, dtype=torch.bool), [16] * 50, 3)(flat)
    words = torch.cat([2 * torch.randn(7, 1, 32, generator=generator), 4 * thing[None, None]])
    ranks = {}
    for name in ("attention", "mean-key"):
        score = SCORES[name]()
        for _ in range(2):  # the first layer looks at no landmarks
            got = score.combine(score.rows(words, [kept], torch.zeros(1, 32)))
        ranks[name] = int(got.gt(got[17]).sum())
    assert ranks["attention"] == 0
    assert ranks["mean-key"] > 3


@pytest.mark.parametrize("value", ["best", None, 3])
def test_an_unknown_score_is_refused_with_those_there_are(value: object) -> None:
    with pytest.raises(ValueError, match=r"score=.* is not known; use 'mean-key', 'cosine', "):
        mmkv.CacheConfig(score=value)  # type: ignore[arg-type]
