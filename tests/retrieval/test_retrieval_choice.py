"""The choice of blocks, against a slow one that says the rule in another way."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkv.retrieval.choice import choose


def slow(scores: list[float], count: int, neighbours: int, chunk: int, first: int) -> list[int]:
    """Runs by mean score; each brings its neighbours, nearest first, the later one before."""
    runs: dict[int, list[int]] = {}
    for place in range(len(scores)):
        runs.setdefault((first + place) // chunk, []).append(place)
    by_score = sorted(
        runs.values(), key=lambda run: -sum(scores[place] for place in run) / len(run)
    )
    wanted = []
    for run in by_score:
        wanted += run
        for step in range(1, neighbours + 1):
            wanted += [run[-1] + step, run[0] - step]
    there = [place for place in dict.fromkeys(wanted) if 0 <= place < len(scores)]
    return sorted(there[:count])


@given(
    n=st.integers(0, 30), count=st.integers(0, 12), neighbours=st.integers(0, 3),
    chunk=st.integers(1, 5), first=st.integers(0, 20), seed=st.integers(0, 9999),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_the_choice_is_the_rule(
    n: int, count: int, neighbours: int, chunk: int, first: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randperm(n, generator=generator).float()
    if chunk > 1:
        scores = torch.rand(n, generator=generator)  # means of runs do not tie
    got = choose(scores, count, neighbours=neighbours, chunk=chunk, first=first)
    assert got == slow(scores.double().tolist(), count, neighbours, chunk, first)
    assert len(got) == min(n, count)


def test_the_block_after_a_hit_comes_before_the_one_ahead_of_it() -> None:
    scores = torch.tensor([0.0, 1.0, 5.0, 0.0, 2.0])
    assert choose(scores, 1, neighbours=1) == [2]
    assert choose(scores, 2, neighbours=1) == [2, 3]
    assert choose(scores, 3, neighbours=1) == [1, 2, 3]
    assert choose(scores, 4, neighbours=1) == [1, 2, 3, 4]


def test_runs_stay_the_same_while_the_past_is_forgotten() -> None:
    scores = torch.tensor([0.0, 0.0, 9.0, 0.0, 5.0, 5.0])
    assert choose(scores, 2, chunk=2, first=0) == [4, 5]
    assert choose(scores[1:], 2, chunk=2, first=1) == [3, 4]


def test_no_blocks_are_a_fine_choice() -> None:
    assert choose(torch.empty(0), 5) == []
    assert choose(torch.rand(4), 0, neighbours=2) == []
