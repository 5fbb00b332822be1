"""Scores by name."""

from __future__ import annotations

from mmkv.retrieval.attention import Attention
from mmkv.retrieval.base import Score
from mmkv.retrieval.mean_key import Cosine, MeanKey

SCORES: dict[str, type[Score]] = {s.name: s for s in (MeanKey, Cosine, Attention)}


EXTERNAL = "external"  # by a text-image model, not by keys
UNIFORM = "uniform"  # by time alone


def check_score(name: str, encoder: object) -> None:
    """Raises ValueError where there is no such score, or the encoder does not go with it."""
    if not isinstance(name, str) or name not in (*SCORES, EXTERNAL, UNIFORM):
        known = ", ".join(map(repr, (*SCORES, EXTERNAL, UNIFORM)))
        raise ValueError(f"score={name!r} is not known; use {known}")
    if name == EXTERNAL and encoder is None:
        raise ValueError(
            "score='external' needs encoder=, a text-image model: a Hub id, a local folder, or a "
            "mmkv.TextImage"
        )
    if name != EXTERNAL and encoder is not None:
        raise ValueError(f"encoder={encoder!r} is for score='external'; score is {name!r}")
