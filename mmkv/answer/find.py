"""Moments of a stream that match a text, by the scores of retrieval; nothing is generated.

The text passes through the language model once, as a question does up to its first token: every
layer scores all frames, and reads the best of them before the next layer scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmkv.answer.generation import Generation
from mmkv.archive import CachedBlock
from mmkv.retrieval.registry import EXTERNAL, SCORES, UNIFORM


@dataclass(frozen=True, slots=True, repr=False)
class Moment:
    """A stretch of a stream that matches a text.

    Attributes:
        start: seconds of its first frame.
        end: seconds of its last frame.
        seconds: of the frame that matches best.
        index: that frame's number in the stream.
        score: how well it matches, standardised in each layer and averaged over the layers: 0 is
            an ordinary frame of this stream, and frames spread by about 1.
    """

    start: float
    end: float
    seconds: float
    index: int
    score: float

    def __repr__(self) -> str:
        return f"<Moment {self.start:.1f} to {self.end:.1f} s: score {self.score:.2f}>"

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON."""
        return asdict(self)


def check_can_find(score: str) -> None:
    """Raise ValueError for a score that does not compare frames with a text."""
    if score == UNIFORM:
        able = ", ".join(map(repr, SCORES))
        raise ValueError(
            f"score={score!r} spreads frames evenly and does not compare them with a text, so it "
            f"finds nothing; open the stream with score={able} or {EXTERNAL!r}"
        )


def find(generation: Generation, k: int) -> tuple[Moment, ...]:
    """Find the best `k` moments for a prompt, best first; fewer if no more frames stand out."""
    blocks = [*generation.context.candidates, *generation.context.recent]
    try:
        generation.prefill()
    finally:
        generation.close()
    scores = np.mean([choice.scores for choice in generation.choices], axis=0)
    return moments(blocks[: len(scores)], scores, k)


def moments(blocks: Sequence[CachedBlock], scores: np.ndarray, k: int) -> tuple[Moment, ...]:
    """Join the blocks around each of the best: those that score at least half of the peak.

    Args:
        blocks: in time order.
        scores: `[n]`, 0 is ordinary.
        k: most moments to return.
    """
    free = scores > 0
    found: list[Moment] = []
    for peak in np.argsort(-scores, kind="stable").tolist():
        if len(found) == k or scores[peak] <= 0:
            break
        if not free[peak]:
            continue
        first = last = peak
        while first > 0 and free[first - 1] and scores[first - 1] >= scores[peak] / 2:
            first -= 1
        while last + 1 < len(scores) and free[last + 1] and scores[last + 1] >= scores[peak] / 2:
            last += 1
        free[first : last + 1] = False
        found.append(
            Moment(
                start=blocks[first].seconds[0],
                end=blocks[last].seconds[1],
                seconds=blocks[peak].seconds[0],
                index=blocks[peak].frame,
                score=float(scores[peak]),
            )
        )
    return tuple(found)
