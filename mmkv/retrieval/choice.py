"""From scores to blocks: the best ones, or the best runs, with their neighbours, in time order."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def choose(
    scores: Tensor, count: int, *, neighbours: int = 0, chunk: int = 1, first: int = 0
) -> list[int]:
    """The blocks to retrieve.

    Runs of `chunk` blocks are taken by their mean score, best first (ReKV, arXiv 2503.00540);
    each brings the blocks around it, the one after it first: what came after an event is found
    by the event's own block. Exactly `count` blocks are chosen, or all where there are fewer.

    Args:
        scores: `[n]` of consecutive blocks.
        count: how many blocks to choose.
        neighbours: blocks brought along on each side.
        chunk: blocks in a run.
        first: the first block's number in the stream; runs start at multiples of `chunk`, so they
            stay the same while the stream continues.

    Returns:
        places among the n, ascending.
    """
    n = len(scores)
    count = min(count, n)
    if count == 0:
        return []
    if chunk == 1 and neighbours == 0:
        return sorted(scores.topk(count).indices.tolist())
    edges, means = _runs(scores, chunk, first)
    best = means.topk(min(count, len(means))).indices.tolist()
    chosen: set[int] = set()
    for run in best:
        start, stop = int(edges[run]), int(edges[run + 1])
        wanted = list(range(start, stop))
        for step in range(neighbours):
            wanted += [stop + step, start - 1 - step]
        chosen.update(new_within(wanted, chosen, n, count - len(chosen)))
        if len(chosen) == count:
            break
    return sorted(chosen)


def new_within(wanted: list[int], chosen: set[int], n: int, room: int) -> list[int]:
    """The first `room` of the wanted places that exist and are not chosen yet."""
    return [place for place in wanted if 0 <= place < n and place not in chosen][:room]


def _runs(scores: Tensor, chunk: int, first: int) -> tuple[np.ndarray, Tensor]:
    """Where runs begin and end, `[r + 1]`, and their mean scores `[r]`."""
    n = len(scores)
    if chunk == 1:
        return np.arange(n + 1), scores
    edges = np.unique(np.clip(np.arange(-(first % chunk), n + chunk, chunk), 0, n))
    parts = scores.double().split(np.diff(edges).tolist())
    return edges, scores.new_tensor([float(part.mean()) for part in parts])
