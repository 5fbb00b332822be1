"""How the hybrid family is taught on whole clips, and the losses beside that of the answers."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkv.models.tiny import forward
from mmkv.models.tiny.batches import IGNORE, Batch, Encoder
from mmkv.models.tiny.carry import Carry
from mmkv.models.tiny.clips import RECENT, Clips, answer, watch
from mmkv.models.tiny.families import Family, Lesson, Outcome
from mmkv.models.tiny.stages import Stage
from mmkv.models.tiny.world import COLOUR_NAMES, N_OBJECTS, SHAPES, Bank

LATEST = 5000.0  # seconds, the latest start of a clip
SCENE_HEADS, THING_HEAD = (0, 1), 2  # of full attention, that learn where to look


class ClipLesson(Lesson):
    """Watch whole clips, then answer each question from what they left behind.

    Args:
        family: makes the visual tokens.
        model: the model that is taught.
        stage: what to train on.
        bank: drawings.
        encoder: makes the token ids.
    """

    def __init__(
        self, family: Family, model: Any, stage: Stage, bank: Bank, encoder: Encoder
    ) -> None:
        self.family, self.model, self.stage = family, model, stage
        self.bank, self.encoder = bank, encoder
        self.readers = self.reader = ClipReader(forward.word_table(model).shape[1])
        self._left: Carry | None = None  # by the clips of the step before

    def __call__(self, batch: Batch, rng: Random, generator: torch.Generator) -> Outcome:
        model, stage, encoder = self.model, self.stage, self.encoder
        rows, count, frames = batch.required.shape
        start = float(int(LATEST ** rng.random()) - 1)
        draw = torch.rand(rows, count, generator=generator)
        hidden, astray = draw < stage.hidden, draw > 1 - stage.crowded
        clips = Clips(model, encoder, frames, start)
        tokens = self.family.visual_tokens(model, stage, batch, self.bank, encoder, generator)
        before = self._left if rng.random() < stage.carried else None
        carry, states = watch(model, clips, tokens, before)
        self._left = carry.left()
        states_of = wander(batch, astray)
        told = answer(model, batch, clips, carry, states_of, hidden)
        loss, exact = forward.answer_loss(model, batch, told.last)
        total, point, known = loss, 0.0, 0.0
        if stage.company:
            extra = self.reader.scenes(states[:, clips.ends], batch.scenes)
            extra = extra + self.reader.answers(told.before, batch)
            total, known = total + stage.company * extra, extra.item()
        if stage.pointer:
            extra = pointer_loss(batch, clips, told.attention, ~hidden)
            total, point = total + stage.pointer * extra, extra.item()
        lost = hidden & batch.required[..., :-RECENT].any(-1)
        figures = {
            "loss": round(loss.item(), 3),
            "pointer": round(point, 3),
            "company": round(known, 3),
            "from states": [int((exact & lost).sum()), int(lost.sum())],
        }
        return Outcome(total, exact, ~hidden, figures)


class ClipReader(nn.Module):
    """Reads states before the last full attention, in training only, so that they know enough.

    A scene's last token should know its four quadrants, an answer the object that was named.

    Args:
        width: size of the states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kinds = len(COLOUR_NAMES) + 1, len(SHAPES) + 1
        self.seen = nn.Linear(width, 4 * sum(self.kinds))
        self.named = nn.Linear(width, sum(self.kinds))

    def scenes(self, states: Tensor, scenes: Tensor) -> Tensor:
        """Compute the cross entropy of colour and shape in every quadrant.

        Args:
            states: `[B, F, D]`, of the scenes' last tokens.
            scenes: int64 `[B, F, 4]`, object numbers.
        """
        return self._loss(self.seen(states).unflatten(-1, (4, -1)).flatten(0, -2), scenes.flatten())

    def answers(self, states: Tensor, batch: Batch) -> Tensor:
        """Compute the same for the object that a question names, where it does.

        Args:
            states: `[B, L, D]`, of the questions' tokens.
            batch: the questions.
        """
        row, at = answering(batch).nonzero(as_tuple=True)
        number = batch.asked[row, batch.block[row, at]]
        named = number >= 0
        if not bool(named.any()):
            return torch.zeros(())
        return self._loss(self.named(states[row[named], at[named]]), number[named])

    def _loss(self, logits: Tensor, number: Tensor) -> Tensor:
        """Cross entropy of colour and shape; -1 is an empty quadrant, which has its own of both."""
        first = self.kinds[0]
        colour = torch.where(number < 0, first - 1, number // len(SHAPES))
        shape = torch.where(number < 0, self.kinds[1] - 1, number % len(SHAPES))
        return (
            F.cross_entropy(logits[:, :first], colour) + F.cross_entropy(logits[:, first:], shape)
        ) / 2


def pointer_loss(
    batch: Batch, clips: Clips, attentions: tuple[Tensor, ...], shown: Tensor
) -> Tensor:
    """Teach some heads of full attention where to look.

    From the last word of the name that a question gives, and from its answer, they look at the
    last token of each scene that the answer needs, which knows all of it, and at the named object's
    own token.

    Args:
        batch: the questions.
        clips: the layout of their clips.
        attentions: weights of each full layer, see `Told`.
        shown: bool `[B, Q]`, questions that see all scenes; the others count for nothing.
    """
    says = answering(batch)
    row, ask = (batch.pointer >= 0).nonzero(as_tuple=True)
    says[row, batch.pointer[row, ask]] = True
    says &= shown.gather(1, batch.block.clamp(min=0))
    row, at = says.nonzero(as_tuple=True)
    ask = batch.block[row, at]
    scene = torch.zeros(len(row), len(clips.ids), dtype=torch.bool)
    thing = torch.zeros_like(scene)  # [P, n]
    scene[:, clips.ends] = batch.required[row, ask]
    thing[:, clips.visual] = batch.pointed[row, ask].flatten(1)
    losses = []
    for weights in attentions:
        seen = weights[row, at][..., : len(clips.ids)]  # [P, heads, n]
        for head, target in (*((head, scene) for head in SCENE_HEADS), (THING_HEAD, thing)):
            good = target.any(-1)
            if not bool(good.any()):
                continue
            share = (seen[good, head] * target[good]).sum(-1)
            losses.append(-share.clamp(min=1e-6).log().mean())
    return torch.stack(losses).mean() if losses else torch.zeros(())


def wander(batch: Batch, astray: Tensor) -> Tensor:
    """Choose the clip whose states each question goes on from: its own, or another one.

    As in a long stream, where the states have moved on from what full attention is shown. A clip
    that holds what would make the question ambiguous is not taken; where all do, it is its own.

    Args:
        batch: the questions.
        astray: bool `[B, Q]`, questions that go on from another clip's states.

    Returns:
        int64 `[B * Q]`.
    """
    rows = len(astray)
    holds = torch.stack([(batch.scenes == n).flatten(1).any(-1) for n in range(N_OBJECTS)], 1)
    wrong = batch.shunned.float() @ holds.float().T > 0  # [B, Q, clip]
    turn = (torch.arange(rows)[:, None] + 1 + torch.arange(rows)) % rows  # its own comes last
    order = turn[:, None].expand_as(wrong)
    fine = ~wrong.gather(2, order)
    fine[..., -1] = True
    first = fine.int().argmax(-1, keepdim=True)
    own = torch.arange(rows)[:, None].expand_as(astray)
    return torch.where(astray, order.gather(2, first)[..., 0], own).flatten()


def answering(batch: Batch) -> Tensor:
    """Say which tokens' states the answers are read from, bool `[B, L]`."""
    return F.pad(batch.labels[:, 1:] != IGNORE, (0, 1)) & (batch.block >= 0)
