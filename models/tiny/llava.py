"""mmkv-tiny's own family: LLaVA-OneVision, taught as the engine shows it streams."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from mmkv.models.tiny import controls, forward, losses, recall, streaming
from mmkv.models.tiny.batches import Batch, Encoder
from mmkv.models.tiny.build import build_model, save_checkpoint
from mmkv.models.tiny.families import Family, Lesson, Outcome
from mmkv.models.tiny.stages import STAGES, Stage
from mmkv.models.tiny.streaming import WINDOW
from mmkv.models.tiny.tokenizer import build_tokenizer
from mmkv.models.tiny.world import Bank, draw


class StreamLesson(Lesson):
    """Watch through the window, retrieve in every layer, answer; see `streaming` and `recall`.

    Args:
        family: makes the visual tokens.
        model: the model that is taught.
        stage: what to train on.
        bank: drawings.
        encoder: makes the token ids.
        summary: what stands for a frame in retrieval, see `streaming.Past`.
    """

    def __init__(
        self,
        family: Llava,
        model: Any,
        stage: Stage,
        bank: Bank,
        encoder: Encoder,
        summary: str,
    ) -> None:
        self.family, self.model, self.stage = family, model, stage
        self.bank, self.encoder, self.summary = bank, encoder, summary
        self.readers = self.company = losses.Company(forward.word_table(model).shape[1])
        self._found: list[float] = []  # per layer, in the last long clips

    def __call__(self, batch: Batch, rng: Random, generator: torch.Generator) -> Outcome:
        model, stage, encoder = self.model, self.stage, self.encoder
        prefix, frames = len(encoder.prefix), batch.required.shape[2]
        choice = recall.Choice(
            batch,
            rng.choice(stage.retrieve),
            neighbours=rng.random() < 0.5,
            helped=torch.rand(batch.required.shape[:2], generator=generator) < stage.helped,
            crowded=torch.rand(batch.required.shape[:2], generator=generator) < stage.crowded,
        )
        with torch.autocast("cpu", torch.bfloat16):
            tokens = self.family.visual_tokens(model, stage, batch, self.bank, encoder, generator)
            embeds = forward.opening(model, tokens, encoder)
            past = streaming.watch(model, embeds, prefix, self.summary)
            states, passed = streaming.answer(model, batch, past, encoder, choice)
        fine = choice.answerable(passed)
        loss, exact = forward.answer_loss(model, batch, states, fine)
        total, search, point, known, looked = loss, 0.0, 0.0, 0.0, 0.0
        if stage.company:
            extra = self.company(past, batch, prefix)
            total, known = total + stage.company * extra, extra.item()
        if stage.looked and bool((batch.pointer >= 0).any()):
            extra = self.company.questions(batch, passed)
            total, looked = total + stage.looked * extra, extra.item()
        if stage.pointer and bool((batch.pointer >= 0).any()):
            extra = recall.pointer_loss(batch, passed, self.bank, prefix)
            total, point = total + stage.pointer * extra, extra.item()
        if stage.retrieval and frames > 1 and bool(batch.needed.any()):
            extra = recall.retrieval_loss(batch, past, passed, prefix)
            total, search = total + stage.retrieval * extra, extra.item()
        if frames > WINDOW:
            self._found = recall.found(batch, passed)
        figures = {
            "loss": round(loss.item(), 3),
            "retrieval": round(search, 3),
            "found": [round(share, 2) for share in self._found],
            "pointer": round(point, 3),
            "company": round(known, 3),
            "looked": round(looked, 3),
        }
        return Outcome(total, exact, fine, figures)


class Llava(Family):
    """`LlavaOnevisionForConditionalGeneration`, one scene per frame."""

    name = "llava_onevision"
    stages: ClassVar[tuple[Stage, ...]] = STAGES
    sight = ("vision_tower", "multi_modal_projector")
    autocast = True
    tower_steps = (1300, 2000)
    controls: ClassVar[dict[str, dict[str, Any]]] = {
        "whole": {},
        "20% of tokens": {"keep": "per frame"},
        "20% per head": {"keep": "per head"},
        "K1/V1.58": {"quantize": True},
    }

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        return build_tokenizer()

    def build_model(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
        return build_model(tokenizer, seed)

    def load(self, folder: Path) -> Any:
        return LlavaOnevisionForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32
        ).eval()

    def save(self, model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
        save_checkpoint(model, tokenizer, folder)

    def loose(self, model: Any) -> list[nn.Parameter]:
        return [model.model.image_newline]

    def spoken(
        self, model: Any, scenes: Tensor, variant: Tensor, bank: Bank, encoder: Encoder
    ) -> Tensor:
        shown = forward.token_cover(scenes, variant, bank)
        table = forward.word_table(model)
        return forward.spoken_tokens(scenes, shown, forward.QUADRANT_OF_TOKEN, table, encoder)

    def see_drawn(
        self, model: Any, scenes: Tensor, variant: Tensor, bank: Bank, generator: torch.Generator
    ) -> Tensor:
        return forward.see(model, draw(scenes, variant, bank, generator))

    def lesson(
        self, model: Any, stage: Stage, bank: Bank, encoder: Encoder, summary: str
    ) -> Lesson:
        return StreamLesson(self, model, stage, bank, encoder, summary)

    def exact_answers(
        self,
        model: Any,
        batch: Batch,
        visual: Tensor,
        encoder: Encoder,
        control: dict[str, Any],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return controls.exact_answers(model, batch, visual, encoder, **control, generator=generator)
