"""How well each kind of question is answered during training; weak kinds are asked more."""

from __future__ import annotations

import torch

from mmkv.models.tiny.batches import Batch
from mmkv.models.tiny.questions import CAPTION_SCENES

BASE_WEIGHT = {"before": 2.0, "after": 2.0, "with": 1.8, "caption": 0.5}
MEMORY = 0.97  # how much of a running mean is kept per dozen answers


class Scores:
    """Running share of exact answers per kind; weak kinds are asked more.

    Args:
        kinds: kinds of questions.
        twice: kinds asked twice as often, for each time they are named.

    Attributes:
        right: running share of exact answers, by kind.
    """

    def __init__(self, kinds: list[str], twice: tuple[str, ...] = ()) -> None:
        self.right = dict.fromkeys(kinds, 0.0)
        self._twice = twice

    def add(self, batch: Batch, exact: torch.Tensor, fine: torch.Tensor) -> None:
        """Include the answers of one batch, for questions that could be answered.

        Args:
            batch: the questions.
            exact: bool `[B, Q]`, which were answered exactly.
            fine: bool `[B, Q]`, which could be answered at all.
        """
        seen: dict[str, list[bool]] = {}
        for row, possible, questions in zip(
            exact.tolist(), fine.tolist(), batch.questions, strict=True
        ):
            for right, counted, q in zip(row, possible, questions, strict=True):
                if counted:
                    seen.setdefault(q.kind, []).append(right)
        for kind, rights in seen.items():
            keep = MEMORY ** (len(rights) / 12)
            self.right[kind] = keep * self.right[kind] + (1 - keep) * sum(rights) / len(rights)

    @property
    def mean(self) -> float:
        """Mean over kinds."""
        return sum(self.right.values()) / len(self.right)

    def weights(self, frames: int) -> dict[str, float]:
        """Return how often to ask each kind, in proportion, on clips of this many frames."""
        chosen = {}
        for kind, right in self.right.items():
            if kind == "caption" and frames > CAPTION_SCENES:
                continue
            if kind in ("before", "after") and frames == 1:
                continue
            often = BASE_WEIGHT.get(kind, 1.0) * 2 ** self._twice.count(kind)
            chosen[kind] = often * (0.2 + 1 - right)
        return chosen
