"""A hybrid family: Qwen3.5, whose layers mostly carry a state, taught on whole clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3_5ForConditionalGeneration

from mmkv.models.tiny import forward, stages
from mmkv.models.tiny.batches import IGNORE, Batch, Encoder
from mmkv.models.tiny.build import save_checkpoint
from mmkv.models.tiny.carry import Carry
from mmkv.models.tiny.families import Family, Lesson, Outcome
from mmkv.models.tiny.hybrid_build import GRID_PREPROCESSOR, MERGE, PAIR, PATCH, ROWS, build_model
from mmkv.models.tiny.tokenizer import VIDEO_PAD, VISION_END, VISION_START, build_clock_tokenizer
from mmkv.models.tiny.world import COLOUR_NAMES, FRAME, N_OBJECTS, SHAPES, Bank, draw

TOKENS = ROWS**2  # visual tokens per pair of frames
LATEST = 5000.0  # seconds, the latest start of a clip
SCENE_HEADS, THING_HEAD = (0, 1), 2  # of full attention, that learn where to look


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
        self, family: Hybrid, model: Any, stage: stages.Stage, bank: Bank, encoder: Encoder
    ) -> None:
        self.family, self.model, self.stage = family, model, stage
        self.bank, self.encoder = bank, encoder
        self.readers = self.reader = ClipReader(forward.word_table(model).shape[1])

    def __call__(self, batch: Batch, rng: Random, generator: torch.Generator) -> Outcome:
        model, stage, encoder = self.model, self.stage, self.encoder
        rows, count, frames = batch.required.shape
        start = float(int(LATEST ** rng.random()) - 1)
        astray = torch.rand(rows, count, generator=generator) < stage.crowded
        clips = Clips(model, encoder, frames, start)
        tokens = self.family.visual_tokens(model, stage, batch, self.bank, encoder, generator)
        carry, states = watch(model, clips, tokens)
        states_of = wander(batch, astray)
        told = answer(model, batch, clips, carry, states_of)
        loss, exact = forward.answer_loss(model, batch, told.last)
        total, point, known = loss, 0.0, 0.0
        if stage.company:
            extra = self.reader.scenes(states[:, clips.ends], batch.scenes)
            extra = extra + self.reader.answers(told.before, batch)
            total, known = total + stage.company * extra, extra.item()
        if stage.pointer:
            extra = pointer_loss(batch, clips, told.attention)
            total, point = total + stage.pointer * extra, extra.item()
        figures = {
            "loss": round(loss.item(), 3), "pointer": round(point, 3), "company": round(known, 3)
        }  # fmt: skip
        return Outcome(total, exact, torch.ones_like(exact), figures)


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


def watch(model: Any, clips: Clips, tokens: Tensor) -> tuple[Carry, Tensor]:
    """Run the language model over prefix and scenes.

    Args:
        model: the model.
        clips: the layout.
        tokens: visual tokens `[B, F*T, D]`.

    Returns:
        what the layers hold, and the states `[B, n, D]` that the last full layer reads.
    """
    table = forward.word_table(model)
    embeds = table[clips.ids].expand(len(tokens), -1, -1).clone()
    embeds[:, clips.visual] = tokens.to(embeds.dtype)
    n, carry = len(clips.ids), Carry()
    output = model.model.language_model(
        inputs_embeds=embeds,
        position_ids=clips.positions[:, None].expand(-1, len(tokens), -1),
        attention_mask=masks(torch.ones(n, n, dtype=torch.bool).tril()),
        cache=carry,
        use_cache=False,
        output_hidden_states=True,
    )
    full = max(carry.kv)
    return carry, output.hidden_states[full]


def answer(
    model: Any,
    batch: Batch,
    clips: Clips,
    carry: Carry,
    states_of: Tensor,
    blind: bool = False,
) -> Told:
    """Run the language model over the questions, each for itself.

    Args:
        model: the model.
        batch: the questions.
        clips: the layout of their clips.
        carry: what the clips left behind.
        states_of: int64 `[B * Q]`, the clip whose recurrent states a question goes on from.
        blind: whether full attention is kept from seeing the scenes.
    """
    rows, count = batch.required.shape[:2]
    there = batch.block >= 0
    row = torch.arange(rows)[:, None] * count + batch.block.clamp(min=0)
    size = int(batch.place[there].max()) + 1
    ids = torch.zeros(rows * count, size, dtype=torch.long)
    ids[row[there], batch.place[there]] = batch.ids[there]
    n, first = len(clips.ids), int(clips.positions.max()) + 1
    before = (clips.scene < 0 if blind else clips.scene < n).expand(size, -1)
    seen = torch.cat([before, torch.ones(size, size, dtype=torch.bool).tril()], 1)
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


def answering(batch: Batch) -> Tensor:
    """Say which tokens' states the answers are read from, bool `[B, L]`."""
    return F.pad(batch.labels[:, 1:] != IGNORE, (0, 1)) & (batch.block >= 0)


def masks(seen: Tensor) -> dict[str, Tensor | None]:
    """Make the masks of both kinds of layers from what queries see, bool `[n, m]`."""
    bias = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return {"full_attention": bias[None, None], "linear_attention": None}


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


def pointer_loss(batch: Batch, clips: Clips, attentions: tuple[Tensor, ...]) -> Tensor:
    """Teach some heads of full attention where to look.

    From the last word of the name that a question gives, and from its answer, they look at the
    scenes that the answer needs, and at the named object's own token.

    Args:
        batch: the questions.
        clips: the layout of their clips.
        attentions: weights of each full layer, see `Told`.
    """
    says = answering(batch)
    row, ask = (batch.pointer >= 0).nonzero(as_tuple=True)
    says[row, batch.pointer[row, ask]] = True
    row, at = says.nonzero(as_tuple=True)
    ask = batch.block[row, at]
    scene = F.pad(batch.required[row, ask], (0, 1))[:, clips.scene]  # the prefix reads the padding
    thing = torch.zeros_like(scene)  # [P, n]
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


class Hybrid(Family):
    """`Qwen3_5ForConditionalGeneration`, one scene per pair of frames."""

    name = "qwen3_5"
    stages: ClassVar[tuple[stages.Stage, ...]] = stages.HYBRID_STAGES
    sight = ("visual",)
    autocast = False
    tower_steps = (450, 0)
    drawings = 1024
    kinds = ("colour", "shape", "place", "with", "now", "exists", "count")
    controls: ClassVar[dict[str, dict[str, Any]]] = {
        "whole": {},
        "states of another clip": {"astray": True},
        "attention without frames": {"blind": True},
    }

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        return build_clock_tokenizer()

    def build_model(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
        model = build_model(tokenizer, seed)
        model.set_attn_implementation({"text_config": "eager"})  # attention weights are trained
        return model

    def load(self, folder: Path) -> Any:
        return Qwen3_5ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def save(self, model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
        save_checkpoint(
            model, tokenizer, folder, preprocessor=GRID_PREPROCESSOR,
            processors=("Qwen2VLImageProcessor", "Qwen3VLVideoProcessor"),
        )  # fmt: skip

    def spoken(
        self, model: Any, scenes: Tensor, variant: Tensor, bank: Bank, encoder: Encoder
    ) -> Tensor:
        shown = (scenes >= 0).float()
        table = forward.word_table(model)
        return forward.spoken_tokens(scenes, shown, list(range(TOKENS)), table, encoder)

    def see_drawn(
        self, model: Any, scenes: Tensor, variant: Tensor, bank: Bank, generator: torch.Generator
    ) -> Tensor:
        pair = [draw(scenes, variant, bank, generator) for _ in range(PAIR)]
        return see(model, torch.stack(pair, 1))

    def lesson(
        self, model: Any, stage: stages.Stage, bank: Bank, encoder: Encoder, summary: str
    ) -> Lesson:
        return ClipLesson(self, model, stage, bank, encoder)

    def exact_answers(
        self,
        model: Any,
        batch: Batch,
        visual: Tensor,
        encoder: Encoder,
        control: dict[str, Any],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        clips = Clips(model, encoder, batch.required.shape[2], 0.0)
        astray = torch.full(batch.required.shape[:2], control.get("astray", False))
        with torch.no_grad():
            carry, _ = watch(model, clips, visual)
            states_of = wander(batch, astray)
            blind = control.get("blind", False)
            told = answer(model, batch, clips, carry, states_of, blind)
            return forward.answer_loss(model, batch, told.last)[1]


def see(model: Any, frames: Tensor) -> Tensor:
    """Run the vision tower: pairs of uint8 frames `[N, 2, 3, 64, 64]` to tokens `[N, 4, D]`."""
    number, side = len(frames), FRAME // PATCH
    pixels = forward.pixels_of(frames)
    folded = pixels.view(number, PAIR, 3, ROWS, MERGE, PATCH, ROWS, MERGE, PATCH)
    folded = folded.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    patches = folded.reshape(number * side**2, -1)
    grid = torch.tensor([[number, side, side]])
    return model.model.visual(patches, grid_thw=grid).pooler_output.view(number, TOKENS, -1)
