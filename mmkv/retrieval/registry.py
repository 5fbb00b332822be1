"""Scores by name."""

from __future__ import annotations

from mmkv.retrieval.attention import Attention
from mmkv.retrieval.base import Score
from mmkv.retrieval.cosine import Cosine
from mmkv.retrieval.mean_key import MeanKey

SCORES: dict[str, type[Score]] = {s.name: s for s in (MeanKey, Cosine, Attention)}


def check_score(name: str) -> None:
    """Raises ValueError where there is no score of this name."""
    if not isinstance(name, str) or name not in SCORES:
        raise ValueError(f"score={name!r} is not known; use {', '.join(map(repr, SCORES))}")
