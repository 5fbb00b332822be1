"""Many questions about one stream in one forward, each answered as the engine alone would.

For mmkv-tiny, whose forward is a few milliseconds of Python. Every question retrieves its own
frames in every layer with the engine's scores, from the engine's archive. An answer is exact if,
when it is forced, each of its tokens and the stop after it is the likeliest after the right ones
before it. `tests/benchmarks/test_eviction_benchmark.py` checks this against the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import mmkv
from mmkv.answer.context import Context, capture
from mmkv.answer.generation import prompt_input
from mmkv.archive import CachedBlock
from mmkv.engine import hooks
from mmkv.engine.rotary import Rotary
from mmkv.kernels.common.naive import rotate
from mmkv.models.tiny.questions import Question
from mmkv.retrieval.attention import Attention
from mmkv.retrieval.choice import choose


@torch.inference_mode()
def exact_answers(stream: mmkv.Stream, questions: Sequence[Question]) -> list[int]:
    """For each question, 1 if it is answered to the letter."""
    vlm, sizes = stream._runtime, stream.config
    adapter = vlm.adapter
    embeds, words, targets, begins = [], [], [], []
    for question in questions:
        prompt = stream._template.prompt(question.text, question.turns)
        answer = vlm.tokenizer(question.answer, add_special_tokens=False).input_ids
        own, asking = prompt_input(adapter, prompt)
        embeds.append(torch.cat([own, adapter.embed_text(answer)]))
        words.append(F.pad(asking, (0, len(answer))))
        begins.append(len(own) - 1)
        targets.append([*answer, vlm.tokenizer.eos_token_id])
    context = capture(stream._state, vlm.rotary, sizes.recent_frames, None, None)
    lengths = [len(e) for e in embeds]
    batch = BatchPass(context, vlm.rotary, words, lengths, sizes.retrieve_frames, sizes.neighbours)
    with hooks.attached(adapter.language_model):
        hidden = hooks.run(adapter, batch, torch.cat(embeds))
    found = []
    for states, begin, target in zip(hidden.split(lengths), begins, targets, strict=True):
        likeliest = adapter.lm_head(states[begin:]).argmax(dim=-1).tolist()
        found.append(int(likeliest == target))
    return found


class BatchPass:
    """Questions side by side in one sequence; each attends to what it would see alone.

    Args:
        words: per question, bool, the tokens that choose.
        lengths: tokens of each question.
        count, neighbours: frames retrieved, and brought along.
    """

    def __init__(
        self,
        context: Context,
        rotary: Rotary,
        words: Sequence[Tensor],
        lengths: Sequence[int],
        count: int,
        neighbours: int,
    ) -> None:
        self._context, self._rotary = context, rotary
        self._words, self._count, self._neighbours = words, count, neighbours
        self._scores = [Attention() for _ in words]
        self._tokens = context.past.blocks[0].tokens
        longest = max(lengths)
        ends = np.cumsum(lengths)
        row = np.minimum(np.arange(longest), np.array(lengths)[:, None] - 1)
        self._spot = torch.from_numpy(row + (ends - lengths)[:, None])  # [Q, M], in the sequence
        at = [(q, i) for q, n in enumerate(lengths) for i in range(n)]
        self._back = torch.tensor(at).T  # [2, N]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        chosen = self._choose(layer, query[0], scaling)
        keys, values, mask = self._seen(layer, chosen)
        near_key, near_value = self._context.recent_kv[layer]
        anchor = int(self._context.anchor[0])
        count, length = self._spot.shape
        start = anchor + near_key.shape[2]
        table = self._table(np.arange(start, start + length), query)
        asks = rotate(self._padded(query), table)
        own, said = rotate(self._padded(key), table), self._padded(value)
        keys = torch.cat([keys, near_key.expand(count, -1, -1, -1), own], dim=2)
        values = torch.cat([values, near_value.expand(count, -1, -1, -1), said], dim=2)
        past = F.pad(mask, (0, near_key.shape[2]), value=True)  # [Q, H_kv, S]
        past = past[:, :, None].expand(-1, -1, length, -1)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        causal = causal.expand(count, past.shape[1], -1, -1)
        seen = torch.cat([past, causal], dim=3)
        group = query.shape[1] // key.shape[1]
        out = F.scaled_dot_product_attention(
            asks, keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1),
            attn_mask=seen.repeat_interleave(group, 1), scale=scaling,
        )  # fmt: skip
        return out.transpose(1, 2)[self._back[0], self._back[1]][None]

    def _choose(self, layer: int, query: Tensor, scaling: float) -> list[list[CachedBlock]]:
        """Each question's blocks in this layer."""
        context = self._context
        candidates, past = context.candidates, context.past
        last = candidates[-1].index + 1 + len(context.recent)
        summaries = list(past.summary_parts(layer, candidates[0].index, last))
        asking = torch.cat(list(self._words))
        words = query[:, asking].float().transpose(0, 1) * scaling
        rows = self._scores[0].rows(words, summaries, past.summary_centre(layer))
        parts = rows.split([int(w.sum()) * query.shape[0] for w in self._words])
        found = []
        for own, part in zip(self._scores, parts, strict=True):
            scores = own.combine(part)[: len(candidates)]
            places = choose(scores, self._count, neighbours=self._neighbours)
            found.append(past.with_keyframes([candidates[i] for i in places], candidates))
        return found

    def _seen(
        self, layer: int, chosen: Sequence[Sequence[CachedBlock]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values `[Q, H_kv, S, D]` of sinks and chosen blocks, rotated, and a mask.

        The mask, bool `[Q, H_kv, S]`, says which of them are there.
        """
        context, tokens = self._context, self._tokens
        candidates = context.candidates
        kv, left = context.past.read(layer, candidates, torch.device("cpu"))
        heads, dim = kv.shape[1], kv.shape[3]
        whole = kv.new_zeros((2, heads, len(candidates) * tokens, dim))
        there = torch.zeros(heads, whole.shape[2], dtype=torch.bool)
        if left is None:
            left = torch.arange(kv.shape[2]).expand(heads, -1)
        whole.scatter_(2, left[None, :, :, None].expand(2, -1, -1, dim), kv)
        there.scatter_(1, left, True)
        most = max(map(len, chosen))
        first = candidates[0].index
        places = torch.tensor(
            [[-1] * (most - len(own)) + [b.index - first for b in own] for own in chosen]
        )  # [Q, C], blocks at the right end
        rows = (places.clamp_min(0)[..., None] * tokens + torch.arange(tokens)).flatten(1)
        key, value = (states[:, rows].transpose(0, 1) for states in whole)  # [Q, H_kv, S, D]
        mask = there[:, rows].transpose(0, 1) & (places >= 0).repeat_interleave(tokens, 1)[:, None]
        anchor = int(context.anchor[0])
        key = rotate(key, self._table(np.arange(anchor - most * tokens, anchor), key))
        sink_key, sink_value = context.sinks[layer]
        sinks, count = sink_key.shape[2], len(chosen)
        begins = anchor - np.array([len(own) * tokens for own in chosen]) - sinks
        where = (begins[:, None] + np.arange(sinks)).reshape(-1)
        cos, sin = (t.view(count, 1, sinks, -1) for t in self._table(where, key))
        turned = rotate(sink_key.expand(count, -1, -1, -1), (cos, sin))
        return (
            torch.cat([turned, key], dim=2),
            torch.cat([sink_value.expand(count, -1, -1, -1), value], dim=2),
            F.pad(mask, (sinks, 0), value=True),
        )

    def _padded(self, states: Tensor) -> Tensor:
        """`[1, H, N, D]` as `[Q, H, M, D]`."""
        return states[0][:, self._spot].transpose(0, 1)

    def _table(self, positions: np.ndarray, like: Tensor) -> tuple[Tensor, Tensor]:
        return self._rotary(positions[None], like.device, like.dtype)
