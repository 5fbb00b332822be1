"""Clips as Qwen3.5 sees them: their layout, the pass over them, and the questions after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmkv.models.tiny import forward
from mmkv.models.tiny.batches import Batch, Encoder
from mmkv.models.tiny.carry import Carry
from mmkv.models.tiny.hybrid_build import MERGE, PAIR, PATCH, ROWS
from mmkv.models.tiny.tokenizer import VIDEO_PAD, VISION_END, VISION_START
from mmkv.models.tiny.world import FRAME

TOKENS = ROWS**2  # visual tokens per pair of frames
RECENT = 2  # newest scenes, seen even where older ones are hidden


class Clips:
    """Where the tokens of clips of `F` scenes stand, the same in all of them.

    Args:
        model: for the ids of tokens and for positions.
        encoder: for the prefix and the clock.
        frames: scenes of a clip, `F`, each seen for two frames.
        start: seconds of the first frame.

    Attributes:
        ids: int64 `[n]`, the tokens of prefix and scenes.
        visual: bool `[n]`, which are visual.
        ends: int64 `[F]`, the last token of each scene.
        scene: int64 `[n]`, the scene that a token belongs to; -1: prefix.
        positions: int64 `[3, n]`.
    """

    def __init__(self, model: Any, encoder: Encoder, frames: int, start: float) -> None:
        marks = [encoder.ids[w] for w in (VISION_START, *[VIDEO_PAD] * TOKENS, VISION_END)]
        ids, scene, ends = list(encoder.prefix), [-1] * len(encoder.prefix), []
        for t in range(frames):
            middle = start + PAIR * t + (PAIR - 1) / 2
            clock = encoder.tokenizer(f"<{middle:.1f} seconds>", add_special_tokens=False)
            ids += [*clock.input_ids, *marks]
            scene += [t] * (len(ids) - len(scene))
            ends.append(len(ids) - 1)
        self.ids, self.scene = torch.tensor(ids), torch.tensor(scene)
        self.visual = self.ids == encoder.ids[VIDEO_PAD]
        self.ends = torch.tensor(ends)
        grid = torch.tensor([[frames, ROWS * MERGE, ROWS * MERGE]])
        kinds = 2 * self.visual[None].int()
        self.positions = model.model.get_rope_index(self.ids[None], kinds, video_grid_thw=grid)[0][
            :, 0
        ]


@dataclass
class Told:
    """What the questions' tokens become; `n` tokens of the clip, questions of up to `M`.

    Attributes:
        last: last states `[B, L, D]`.
        before: states that the last full attention reads, `[B, L, D]`.
        attention: weights of each full layer, `[B, L, heads, n + M]`, the clip's first.
    """

    last: Tensor
    before: Tensor
    attention: tuple[Tensor, ...]


def see(model: Any, frames: Tensor) -> Tensor:
    """Run the vision tower: pairs of uint8 frames `[N, 2, 3, 64, 64]` to tokens `[N, 4, D]`."""
    number, side = len(frames), FRAME // PATCH
    pixels = forward.pixels_of(frames)
    folded = pixels.view(number, PAIR, 3, ROWS, MERGE, PATCH, ROWS, MERGE, PATCH)
    folded = folded.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    patches = folded.reshape(number * side**2, -1)
    grid = torch.tensor([[number, side, side]])
    return model.model.visual(patches, grid_thw=grid).pooler_output.view(number, TOKENS, -1)


def watch(
    model: Any, clips: Clips, tokens: Tensor, before: Carry | None = None
) -> tuple[Carry, Tensor]:
    """Run the language model over prefix and scenes.

    Args:
        model: the model.
        clips: the layout.
        tokens: visual tokens `[B, F*T, D]`.
        before: what earlier scenes of the same `B` streams left behind. Their recurrent states go
            on, but full attention sees no scene of them, as if they had left its window.

    Returns:
        what the layers hold, and the states `[B, n, D]` that the last full layer reads.
    """
    table = forward.word_table(model)
    embeds = table[clips.ids].expand(len(tokens), -1, -1).clone()
    embeds[:, clips.visual] = tokens.to(embeds.dtype)
    n, carry, states = len(clips.ids), Carry(), []
    seen = torch.ones(n, n, dtype=torch.bool).tril()
    prefix = int((clips.scene < 0).sum())
    parts = [slice(0, n)] if before is None else [slice(0, prefix), slice(prefix, n)]
    for part in parts:
        output = model.model.language_model(
            inputs_embeds=embeds[:, part],
            position_ids=clips.positions[:, None, part].expand(-1, len(tokens), -1),
            attention_mask=masks(seen[None, part, : part.stop]),
            cache=carry,
            use_cache=False,
            output_hidden_states=True,
        )
        states.append(output.hidden_states[max(carry.kv)])
        if before is not None and part.stop == prefix:
            carry.conv, carry.state = dict(before.conv), dict(before.state)
    return carry, torch.cat(states, 1)


def answer(
    model: Any,
    batch: Batch,
    clips: Clips,
    carry: Carry,
    states_of: Tensor,
    hidden: Tensor | None = None,
) -> Told:
    """Run the language model over the questions, each for itself.

    Args:
        model: the model.
        batch: the questions.
        clips: the layout of their clips.
        carry: what the clips left behind.
        states_of: int64 `[B * Q]`, the clip whose recurrent states a question goes on from.
        hidden: bool `[B, Q]`, questions whose full attention sees the newest scenes only; None: no
            question's.
    """
    rows, count = batch.required.shape[:2]
    there = batch.block >= 0
    row = torch.arange(rows)[:, None] * count + batch.block.clamp(min=0)
    size = int(batch.place[there].max()) + 1
    ids = torch.zeros(rows * count, size, dtype=torch.long)
    ids[row[there], batch.place[there]] = batch.ids[there]
    n, first = len(clips.ids), int(clips.positions.max()) + 1
    old = (clips.scene >= 0) & (clips.scene < len(clips.ends) - RECENT)
    before = torch.ones(1, size, n, dtype=torch.bool)
    if hidden is not None:
        before = ~(hidden.flatten()[:, None, None] & old).expand(-1, size, -1)
    own = torch.ones(size, size, dtype=torch.bool).tril().expand(len(before), -1, -1)
    seen = torch.cat([before, own], -1)
    output = model.model.language_model(
        inputs_embeds=forward.word_table(model)[ids],
        position_ids=(first + torch.arange(size)).expand(3, len(ids), -1),
        attention_mask=masks(seen),
        cache=carry.branch(count, states_of),
        use_cache=False,
        output_attentions=True,
        output_hidden_states=True,
        chunk_size=size,
    )
    where = row, batch.place
    weights = tuple(w.transpose(1, 2)[where] for w in output.attentions if w is not None)
    before = output.hidden_states[max(carry.kv)]
    return Told(output.last_hidden_state[where], before[where], weights)


def masks(seen: Tensor) -> dict[str, Tensor | None]:
    """Make the masks of both kinds of layers from what queries see, bool `[B or 1, n, m]`."""
    bias = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return {"full_attention": bias[:, None], "linear_attention": None}
