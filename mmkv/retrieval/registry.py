"""Scores by name."""

from __future__ import annotations

from mmkv.registry import Registry
from mmkv.retrieval.attention import Attention
from mmkv.retrieval.base import Score
from mmkv.retrieval.mean_key import Cosine, MeanKey

SCORES: Registry[Score] = Registry("score", (MeanKey, Cosine, Attention))

EXTERNAL = "external"  # by a text-image model, not by keys
UNIFORM = "uniform"  # by time alone
