"""Which frames a training question sees in each layer, and the losses on that choice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmkv.models.tiny import streaming
from mmkv.models.tiny.batches import IGNORE, TOKENS, Batch
from mmkv.models.tiny.forward import QUADRANT_OF_TOKEN, token_cover
from mmkv.models.tiny.losses import (
    ANSWERING,
    ENDS,
    FRAME,
    HEADS,
    KNOWN,
    THING,
    TOLD,
    attention_loss,
)
from mmkv.models.tiny.streaming import Asked, Past, were_shown, within
from mmkv.models.tiny.world import Bank

RECENT = 4  # newest frames, shown to every question


@dataclass
class Choice:
    """Each layer's own choice, as the engine makes it, with help for some of the questions.

    Clips with no more than `retrieve + RECENT` frames are shown whole.

    Attributes:
        batch: the questions.
        retrieve: frames chosen besides the recent ones.
        neighbours: whether the frames around a hit are shown too.
        helped: bool `[B, Q]`, questions that are shown the frames they need in all layers but the
            first.
        crowded: bool `[B, Q]`, questions for which the batch's other clips are part of the past
            too, as in a stream of many more frames; only frames that would give another answer
            are left out.
    """

    batch: Batch
    retrieve: int
    neighbours: bool
    helped: Tensor
    crowded: Tensor
    _candidates: Tensor | None = None

    def __call__(self, layer: int, probe: Tensor, summaries: Tensor) -> Tensor:
        batch = self.batch
        rows, count, frames = batch.required.shape
        every = streaming.whole_clips(rows, count, frames)
        if frames <= self.retrieve + RECENT:
            return every
        with torch.no_grad():
            if self._candidates is None:
                self._candidates = candidates(batch, self.crowded)
            score = torch.einsum("bqhd,cfmhd->bqcfm", probe, summaries).amax(-1).flatten(2)
            score = score.masked_fill(~self._candidates, float("-inf"))
            wish = best(score, self.retrieve, self.neighbours)
            wish = wish.masked_fill(~self._candidates, float("-inf"))
            if layer:
                own = torch.eye(rows, dtype=torch.bool)[:, None, :, None]
                needed = (own & batch.required[:, :, None]).flatten(2)
                wish[self.helped] += 1e5 * needed[self.helped]
            chosen = wish.topk(self.retrieve, dim=-1).indices.sort(-1).values
            return torch.cat([chosen, every[..., -RECENT:]], -1)

    def answerable(self, passed: list[Asked]) -> Tensor:
        """Say which questions had their frames shown to every layer that looks for them.

        Returns:
            bool `[B, Q]`.
        """
        fine = torch.ones(self.batch.required.shape[:2], dtype=torch.bool)
        for layer in (THING, FRAME, TOLD):
            seen = were_shown(passed[layer].shown, self.batch.required.shape[2])
            fine &= (seen | ~self.batch.required).all(-1)
        return fine


def candidates(batch: Batch, crowded: Tensor) -> Tensor:
    """Say which frames of all clips a question may be shown as old ones, bool `[B, Q, B*F]`."""
    rows, _, frames = batch.required.shape
    flat = batch.scenes.flatten()
    held = batch.shunned[..., flat.clamp(min=0)] & (flat >= 0)  # [B, Q, B*F*4]
    fine = ~held.unflatten(-1, (rows, frames, 4)).any(-1) & crowded[..., None, None]
    own = torch.eye(rows, dtype=torch.bool)[:, None, :, None]
    old = torch.arange(frames) < frames - RECENT
    return torch.where(own, old, fine).flatten(2)


def best(score: Tensor, retrieve: int, neighbours: bool) -> Tensor:
    """Rank frames by their score, or by being next to one of the best.

    Args:
        score: `[B, Q, F]`, higher is better.
        retrieve: frames that will be chosen.
        neighbours: rank the best third of these and the frames beside them first.

    Returns:
        `[B, Q, F]`, higher is better.
    """
    rank = score.argsort(-1, descending=True).argsort(-1).float()
    if not neighbours:
        return -rank
    hit = torch.where(rank < max(1, retrieve // 3), 1000 - rank, torch.zeros_like(rank))
    around = F.max_pool1d(hit, 3, 1, 1) - 0.5
    return torch.maximum(hit, torch.where(around > 0, around, -rank))


def retrieval_loss(batch: Batch, past: Past, passed: list[Asked], prefix: int) -> Tensor:
    """Contrast, in every layer, a question's mean query with what stands for frames.

    Frames of the batch's other clips are included where they do not show the asked object.

    Args:
        batch: the questions.
        past: the frames' keys.
        passed: what happened in each layer.
        prefix: tokens before the frames.

    Returns:
        the mean cross entropy over layers and questions.
    """
    used = batch.needed.any(-1)
    rows = torch.arange(len(batch.ids))
    own_clip = (rows[:, None] == rows)[:, None, :, None]  # [B, 1, B, 1]
    holds = (batch.scenes == batch.asked[..., None, None, None]).any(-1)  # [B, Q, B, F]
    allowed = own_clip | (~holds & (batch.asked >= 0)[..., None, None])
    needed = (own_clip & batch.needed[:, :, None])[used].flatten(1)
    hidden = ~allowed[used].flatten(1)
    losses = []
    for layer, asked in enumerate(passed):
        frames = past.summaries(layer, prefix)
        score = torch.einsum("qhd,cfmhd->qcfm", asked.probe[used], frames).amax(-1) / 16
        score = score.flatten(1)
        log = score.masked_fill(hidden, float("-inf")).log_softmax(-1)
        losses.append(-log.masked_fill(~needed, float("-inf")).logsumexp(-1).mean())
    return torch.stack(losses).mean()


def pointer_loss(batch: Batch, passed: list[Asked], bank: Bank, prefix: int) -> Tensor:
    """Teach some heads where to look.

    From an object's name they look to what else is known of the object asked for, to its own
    tokens, then to the last tokens of its frame, then to those of the frame that knows the answer;
    and from the answer to the name.

    Args:
        batch: the questions.
        passed: what happened in each layer.
        bank: drawings.
        prefix: tokens before the frames.

    Returns:
        the mean cross entropy of attention.
    """
    word = batch.place + 1  # within the question, after the newline
    rows, count = batch.required.shape[:2]
    shown = token_cover(batch.scenes.flatten(0, 1), batch.variant.flatten(0, 1), bank) > 0.3
    things = shown.view(rows, 1, -1, TOKENS) & batch.pointed[..., QUADRANT_OF_TOKEN]
    end = torch.zeros(TOKENS, dtype=torch.bool)
    end[list(ENDS)] = True
    aims = {  # [B, Q, F, 16]
        THING: things,
        FRAME: batch.pointed.any(-1)[..., None] & end,
        TOLD: batch.told[..., None] & end,
    }
    named = batch.pointer >= 0
    name = word.gather(1, batch.pointer.clamp(min=0)).flatten()  # [BQ]
    losses = []
    for layer, aim in aims.items():
        asked = passed[layer]
        frame = within(asked.shown, batch.required.shape[2])[..., None]  # [B, Q, K, 1]
        index = frame.clamp(min=0).expand(-1, -1, -1, TOKENS)
        target = (aim.gather(2, index) & (frame >= 0)).flatten(2).flatten(0, 1)  # [BQ, K*16]
        good = target.any(-1) & named.flatten()
        if not bool(good.any()):
            continue
        target, at = target[good], name[good]
        for head in HEADS:
            query = asked.queries[good, at, head].float()
            keys = asked.seen[good][:, prefix:, head // 2].float()
            losses.append(attention_loss(query, keys, torch.ones_like(target), target))
    losses += known_losses(batch, passed, name)
    spot = name.view(rows, count).gather(1, batch.block.clamp(min=0))  # [B, L]
    says = F.pad(batch.labels[:, 1:] != IGNORE, (0, 1)) & (batch.block >= 0)
    says &= named.gather(1, batch.block.clamp(min=0))
    row, at = says.nonzero(as_tuple=True)
    question, place = row * count + batch.block[row, at], word[row, at]
    width = torch.arange(passed[0].own.shape[1])
    allowed, target = width <= place[:, None], width == spot[row, at][:, None]
    for layer, head in ANSWERING:
        asked = passed[layer]
        query = asked.queries[question, place, head].float()
        keys = asked.own[question][:, :, head // 2].float()
        losses.append(attention_loss(query, keys, allowed, target))
    return torch.stack(losses).mean()


def known_losses(batch: Batch, passed: list[Asked], name: Tensor) -> list[Tensor]:
    """Compute the losses from a name to the other known word of a colour or shape question.

    Args:
        batch: the questions.
        passed: what happened in each layer.
        name: int64 `[BQ]`, place of the name in its question.

    Returns:
        a loss for each head in `KNOWN`; none where no question has such a word.
    """
    known = batch.known.flatten()
    good = (known >= 0) & (batch.pointer.flatten() >= 0)
    if not bool(good.any()):
        return []
    word = (batch.place + 1).gather(1, batch.known.clamp(min=0)).flatten()[good]
    at, losses = name[good], []
    width = torch.arange(passed[0].own.shape[1])
    for layer, head in KNOWN:
        asked = passed[layer]
        query = asked.queries[good, at, head].float()
        seen, own = (k[good][:, :, head // 2].float() for k in (asked.seen, asked.own))
        before = torch.ones(len(seen), seen.shape[1], dtype=torch.bool)
        allowed = torch.cat([before, width <= at[:, None]], 1)
        target = torch.cat([~before, width == word[:, None]], 1)
        losses.append(attention_loss(query, torch.cat([seen, own], 1), allowed, target))
    return losses


def found(batch: Batch, passed: list[Asked]) -> list[float]:
    """Return the share of the old frames needed that each layer was shown."""
    wanted = batch.required.clone()
    wanted[..., -RECENT:] = False
    shares = []
    for asked in passed:
        seen = were_shown(asked.shown, wanted.shape[2])
        shares.append((seen & wanted).sum().item() / max(1, wanted.sum().item()))
    return shares
