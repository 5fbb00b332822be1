"""The forward pass of training: what stands for a frame, and whether answers are right."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from transformers import LlavaOnevisionForConditionalGeneration

from mmkv.models.tiny.batches import IGNORE, TOKENS, Batch, Encoder
from mmkv.models.tiny.build import PREPROCESSOR
from mmkv.models.tiny.world import COLOUR_NAMES, NOTHING, PLACES, SHAPES, Bank

QUADRANT_OF_TOKEN = [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]
FULL_COVER = 0.22  # a token covered this much shows its shape fully


def token_cover(scenes: torch.Tensor, variant: torch.Tensor, bank: Bank) -> torch.Tensor:
    """Say how clearly each visual token shows its quadrant's shape.

    Args:
        scenes: int64 `[N, 4]`, object numbers.
        variant: int64 `[N, 4]`, rows of the bank.
        bank: drawings.

    Returns:
        float32 `[N, 16]` in [0, 1].
    """
    cover = bank.cover[scenes.clamp(min=0) % len(SHAPES), variant] * (scenes >= 0)[..., None]
    shown = ((cover - 0.02) / FULL_COVER).clamp(0, 1)  # [N, 4, 4]
    return shown.view(-1, 2, 2, 2, 2).transpose(2, 3).reshape(-1, TOKENS)


def spoken_tokens(
    scenes: torch.Tensor,
    shown: torch.Tensor,
    quadrants: list[int],
    table: torch.Tensor,
    encoder: Encoder,
) -> torch.Tensor:
    """Write visual tokens in words: the sum of the embeddings of what a token shows.

    A covered token is colour + shape, an empty one "nothing", both plus the words of the quadrant.

    Args:
        scenes: int64 `[N, 4]`, object numbers.
        shown: float32 `[N, T]` in [0, 1], how clearly each token shows its quadrant's shape.
        quadrants: for each token, the quadrant that it lies in.
        table: word embeddings `[V, D]`.
        encoder: for the ids of words.

    Returns:
        `[N, T, D]`.
    """
    colours = table[[encoder.ids[w] for w in COLOUR_NAMES]]
    shapes = table[[encoder.ids[w] for w in SHAPES]]
    places = torch.stack([table[encoder(p)].sum(0) for p in PLACES])
    number = scenes.clamp(min=0)
    thing = colours[number // len(SHAPES)] + shapes[number % len(SHAPES)]  # [N, 4, D]
    quadrant = torch.tensor(quadrants)
    shown = shown[..., None]
    nothing = table[encoder.ids[NOTHING]]
    return shown * thing[:, quadrant] + (1 - shown) * nothing + places[quadrant]


def word_table(model: LlavaOnevisionForConditionalGeneration) -> torch.Tensor:
    """Return the word embeddings `[V, D]`, which are the output weights too."""
    table = model.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    return table


def pixels_of(frames: torch.Tensor) -> torch.Tensor:
    """Normalise the pixels of uint8 frames as the preprocessor configuration says."""
    mean, std = PREPROCESSOR["image_mean"][0], PREPROCESSOR["image_std"][0]
    return (frames.float() / 255 - mean) / std


def see(model: LlavaOnevisionForConditionalGeneration, frames: torch.Tensor) -> torch.Tensor:
    """Run the vision tower: uint8 frames `[N, 3, 64, 64]` to visual tokens `[N, 16, D]`."""
    inner = model.model
    states = inner.vision_tower(pixels_of(frames), output_hidden_states=True).hidden_states[-1]
    return inner.apply_pooling(inner.multi_modal_projector(states))


def opening(
    model: LlavaOnevisionForConditionalGeneration, visual: torch.Tensor, encoder: Encoder
) -> torch.Tensor:
    """Put the prefix before visual tokens `[B, F*16, D]`; returns `[B, P + F*16, D]`."""
    prefix = word_table(model)[encoder.prefix].expand(len(visual), -1, -1)
    return torch.cat([prefix, visual], dim=1)


def answer_loss(
    model: LlavaOnevisionForConditionalGeneration,
    batch: Batch,
    states: torch.Tensor,
    counted: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the loss of the answers.

    Args:
        model: for the output weights.
        batch: the questions.
        states: last hidden states `[B, L, D]` of the questions' tokens.
        counted: bool `[B, Q]`, questions that enter the loss; None: all.

    Returns:
        the cross entropy, and which questions are answered exactly, bool `[B, Q]`.
    """
    target = batch.labels[:, 1:]
    chosen = target != IGNORE
    logits = model.lm_head(states[:, :-1][chosen].float())
    rows = torch.arange(len(batch.ids))[:, None].expand_as(target)[chosen]
    block = batch.block[:, 1:][chosen]
    loss = F.cross_entropy(logits, target[chosen], reduction="none")
    if counted is not None:
        loss = loss[counted[rows, block]]
    wrong = torch.zeros(batch.required.shape[:2])
    miss = (logits.detach().argmax(-1) != target[chosen]).float()
    wrong.index_put_((rows, block), miss, accumulate=True)
    return loss.sum() / max(1, len(loss)), wrong == 0
