"""The retriever that a stream's settings mean for one question."""

from __future__ import annotations

from mmkv.config import CacheSizes
from mmkv.context import Context
from mmkv.retrieval.registry import SCORES
from mmkv.retrieval.retriever import LayerRetriever, Retriever


def make_retriever(sizes: CacheSizes, context: Context, patch: int) -> Retriever:
    """What chooses for one question; `patch` is the number of frames in a block."""
    past = context.past
    archived = past.blocks[-1].index if past.blocks else -1
    return LayerRetriever(
        past,
        SCORES[sizes.score](),
        context.candidates,
        [b for b in context.recent if b.index <= archived],
        -(-sizes.retrieve_frames // patch),
        neighbours=-(-sizes.neighbours // patch),
    )
