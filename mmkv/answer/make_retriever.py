"""The retriever that a stream's settings mean for one question."""

from __future__ import annotations

from torch import Tensor

from mmkv.answer.context import Context
from mmkv.answer.external import External
from mmkv.answer.retriever import LayerRetriever, Retriever
from mmkv.answer.uniform import Uniform
from mmkv.config.resolved import ResolvedConfig
from mmkv.retrieval.registry import EXTERNAL, SCORES, UNIFORM
from mmkv.retrieval.text_image import TextImage


def make_retriever(
    sizes: ResolvedConfig,
    context: Context,
    patch: int,
    text: str,
    encoder: TextImage | None = None,
    vectors: dict[int, Tensor] | None = None,
) -> Retriever:
    """Make what chooses for one question.

    Args:
        sizes: how many frames to retrieve, and by which score.
        context: what the question may see.
        patch: frames in a block.
        text: the question.
        encoder: of `score="external"`.
        vectors: that encoder's, of blocks, as read for earlier questions.
    """
    past = context.past
    archived = past.blocks[-1].index if past.blocks else -1
    recent = [b for b in context.recent if b.index <= archived]
    count, neighbours = -(-sizes.retrieve_frames // patch), -(-sizes.neighbours // patch)
    run = -(-sizes.retrieve_run // patch)
    if sizes.score == EXTERNAL and encoder is not None:
        known = {} if vectors is None else vectors
        for index in [i for i in list(known) if past.blocks and i < past.blocks[0].index]:
            known.pop(index, None)  # forgotten
        return External(
            past, encoder, text, known, context.candidates, recent, count,
            neighbours=neighbours, chunk=run,
        )  # fmt: skip
    if sizes.score == UNIFORM:
        return Uniform(context.candidates, recent, count)
    score = SCORES[sizes.score]()
    return LayerRetriever(
        past, score, context.candidates, recent, count, neighbours=neighbours, chunk=run
    )
