"""Losses besides that of the answers: what visual tokens should carry, and where heads look."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from mmkv.models.tiny.batches import TOKENS, Batch
from mmkv.models.tiny.streaming import Asked, Past, were_shown
from mmkv.models.tiny.world import COLOUR_NAMES, SHAPES

THING, FRAME, TOLD = 1, 2, 3  # layers that look from a name to its object, its frame, the answer
HEADS = (0, 2)  # the heads that learn it, one of each kv head
KNOWN = (
    (0, 1),
    (0, 3),
    (1, 1),
)  # (layer, head) that look from a name to what else is known of the object asked for
ANSWERING = ((3, 0), (4, 0), (4, 2))  # (layer, head) that look from the answer to the name
OWN, PREVIOUS = 1, 2  # layers after which a visual token knows its frame, and the one before
ENDS = (14, 15)  # tokens that have seen their whole frame
LAST_CELL = (5, 7, 13, 14)  # per quadrant, the token from which on it is known


def attention_loss(
    query: torch.Tensor, keys: torch.Tensor, allowed: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Compute the cross entropy of attention to a set of keys.

    Args:
        query: `[P, 64]`.
        keys: `[P, K, 64]`.
        allowed: bool `[P, K]`, keys that the query can see.
        target: bool `[P, K]`, keys that it should attend to.
    """
    logits = torch.einsum("pd,pkd->pk", query, keys).float() / 8
    log = logits.masked_fill(~allowed, float("-inf")).log_softmax(-1)
    return -log.masked_fill(~target, float("-inf")).logsumexp(-1).mean()


class Company(nn.Module):
    """Readers used only in training, which make states carry what they should know.

    A visual token should know its own frame and the one before, a name in a question the frames
    that it looked at.

    Args:
        width: size of the states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kinds = len(COLOUR_NAMES) + 1, len(SHAPES) + 1
        self.own = nn.Linear(width, 4 * sum(self.kinds))
        self.previous = nn.Linear(width, 4 * sum(self.kinds))
        self.looked = nn.ModuleDict(
            {str(layer): nn.Linear(width, 4 * sum(self.kinds)) for layer in (FRAME, TOLD)}
        )
        self.where = nn.ModuleDict({str(layer): nn.Linear(width, 4) for layer in (FRAME, TOLD)})
        self.sought = nn.Linear(width, sum(self.kinds))

    def forward(self, past: Past, batch: Batch, prefix: int) -> torch.Tensor:
        """Compute the cross entropy of colour and shape in every quadrant seen so far.

        Args:
            past: the frames' states.
            batch: the clips.
            prefix: tokens before the frames.
        """
        rows, frames = batch.scenes.shape[:2]
        number = batch.scenes[:, :, None].expand(-1, -1, TOKENS, -1)  # [B, F, 16, 4]
        seen = torch.arange(TOKENS)[:, None] >= torch.tensor(LAST_CELL)
        seen = seen.expand(rows, frames, TOKENS, 4)
        losses = []
        for layer, reader in ((OWN, self.own), (PREVIOUS, self.previous)):
            states = past.outputs[layer][:, prefix:].float().unflatten(1, (frames, TOKENS))
            if layer == PREVIOUS:
                states, target = states[:, 1:], number[:, :-1]
                known = (batch.scenes[:, 1:] != batch.scenes[:, :-1]).any(-1)
                known = known[..., None, None].expand_as(target)
            else:
                target, known = number, seen
            if not bool(known.any()):
                continue
            logits = reader(states).unflatten(-1, (4, -1))[known]
            losses.append(self._loss(logits, target[known]))
        return torch.stack(losses).mean()

    def questions(self, batch: Batch, passed: list[Asked]) -> torch.Tensor:
        """Compute the same for what a name in a question knows, once its heads have looked.

        It is read for the frame with the named object and for the one that knows the answer. Where
        a colour or shape is asked for, also the quadrant of the object, and its colour and shape.

        Args:
            batch: the questions.
            passed: what happened in each layer.
        """
        losses, picks = [], []
        for layer, frames in ((FRAME, batch.pointed.any(-1)), (TOLD, batch.told)):
            asked = passed[layer]
            number = frames.int().argmax(-1)  # [B, Q]
            seen = (were_shown(asked.shown, frames.shape[-1]) & frames).any(-1)
            row, ask = (seen & (batch.pointer >= 0)).nonzero(as_tuple=True)
            if not len(row):
                continue
            states = asked.output[row, batch.pointer[row, ask]].float()
            logits = self.looked[str(layer)](states).unflatten(-1, (4, -1)).flatten(0, 1)
            scene = batch.scenes[row, number[row, ask]]  # [n, 4]
            losses.append(self._loss(logits, scene.flatten()))
            corner = batch.sought[row, ask]
            picked = corner >= 0
            if bool(picked.any()):
                states, scene, corner = states[picked], scene[picked], corner[picked]
                picks.append(F.cross_entropy(self.where[str(layer)](states), corner))
                if layer == TOLD:
                    target = scene.gather(1, corner[:, None])[:, 0]
                    picks.append(self._loss(self.sought(states), target))
        return torch.stack(losses).mean() + (torch.stack(picks).mean() if picks else 0.0)

    def _loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross entropy of colour and shape, -1 is an empty quadrant."""
        colour = torch.where(target < 0, self.kinds[0] - 1, target // len(SHAPES))
        shape = torch.where(target < 0, self.kinds[1] - 1, target % len(SHAPES))
        first = self.kinds[0]
        return (
            F.cross_entropy(logits[:, :first], colour) + F.cross_entropy(logits[:, first:], shape)
        ) / 2
