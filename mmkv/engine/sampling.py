"""Choosing the next token: greedy, or sampled with a private generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is decoded.

    Attributes:
        max_new_tokens: at most this many.
        temperature: 0 is greedy.
        top_p: share of probability to sample from (nucleus sampling); 1 is everything.
        seed: of the private generator; None draws a fresh one.

    Raises:
        ValueError: a field is out of range.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        n = self.max_new_tokens
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(
                f"max_new_tokens={n!r} is not allowed; use a whole number of 1 or more"
            )
        if not _number(self.temperature) or not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature={self.temperature!r} is not allowed; use 0 (greedy) or more"
            )
        if not _number(self.top_p) or not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p!r} is not allowed; use more than 0, at most 1")
        if self.seed is not None and (
            isinstance(self.seed, bool)
            or not isinstance(self.seed, int)
            or not 0 <= self.seed < 2**63
        ):
            raise ValueError(f"seed={self.seed!r} is not allowed; use a whole number of 0 or more")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Sampler:
    """Picks tokens for one answer."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        self._greedy = sampling.temperature == 0
        self._processors = LogitsProcessorList()
        if not self._greedy:
            self._processors.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_p < 1:
                self._processors.append(TopPLogitsWarper(float(sampling.top_p)))
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)

    def __call__(self, logits: Tensor) -> int:
        """Choose the next token from logits `[V]`."""
        if self._greedy:
            return int(logits.argmax())
        scores: Any = logits.float()[None]
        no_ids: Any = torch.zeros(1, 0, dtype=torch.long, device=logits.device)
        weights = self._processors(no_ids, scores).softmax(dim=-1)
        return int(torch.multinomial(weights[0], 1, generator=self._generator))
