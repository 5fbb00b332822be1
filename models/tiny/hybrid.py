"""A hybrid family: Qwen3.5, whose layers mostly carry a state, taught on whole clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3_5ForConditionalGeneration

from mmkv.models.tiny import clips, forward
from mmkv.models.tiny.batches import Batch, Encoder
from mmkv.models.tiny.build import save_checkpoint
from mmkv.models.tiny.clip_lesson import ClipLesson, wander
from mmkv.models.tiny.families import Family, Lesson
from mmkv.models.tiny.hybrid_build import GRID_PREPROCESSOR, PAIR, build_model
from mmkv.models.tiny.stages import HYBRID_STAGES, Stage
from mmkv.models.tiny.tokenizer import build_clock_tokenizer
from mmkv.models.tiny.world import Bank, draw

OLDEST = Version("5.24.0")  # that training was tried with; 5.17 records no attention weights


class Hybrid(Family):
    """`Qwen3_5ForConditionalGeneration`, one scene per pair of frames."""

    name = "qwen3_5"
    stages: ClassVar[tuple[Stage, ...]] = HYBRID_STAGES
    sight = ("visual",)
    autocast = False
    tower_steps = (450, 250)
    unit = "scenes"
    drawings = 1024
    kinds = ("colour", "shape", "place", "with", "now", "exists", "count")
    controls: ClassVar[dict[str, dict[str, Any]]] = {
        "whole": {},
        "states of another clip": {"astray": True},
        "newest 2 scenes in attention": {"hidden": True},
    }

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        return build_clock_tokenizer()

    def build_model(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
        if Version(transformers.__version__) < OLDEST:
            raise RuntimeError(
                f"the hybrid family is trained with transformers {OLDEST} or newer, and "
                f"{transformers.__version__} is installed; update it"
            )
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
        # AutoTokenizer gives every qwen3_5 checkpoint the byte-level rules of Qwen's own tokenizer,
        # but one with an `auto_map` the class that its configuration names
        path = folder / "tokenizer_config.json"
        named = {**json.loads(path.read_text()), "auto_map": {"AutoTokenizer": [None, None]}}
        path.write_text(json.dumps(named, indent=2) + "\n")

    def spoken(
        self, model: Any, scenes: Tensor, variant: Tensor, bank: Bank, encoder: Encoder
    ) -> Tensor:
        shown = (scenes >= 0).float()
        table = forward.word_table(model)
        return forward.spoken_tokens(scenes, shown, list(range(clips.TOKENS)), table, encoder)

    def see_drawn(
        self, model: Any, scenes: Tensor, variant: Tensor, bank: Bank, generator: torch.Generator
    ) -> Tensor:
        pair = [draw(scenes, variant, bank, generator) for _ in range(PAIR)]
        return clips.see(model, torch.stack(pair, 1))

    def lesson(
        self, model: Any, stage: Stage, bank: Bank, encoder: Encoder, summary: str
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
        layout = clips.Clips(model, encoder, batch.required.shape[2], 0.0)
        astray = torch.full(batch.required.shape[:2], control.get("astray", False))
        with torch.no_grad():
            carry, _ = clips.watch(model, layout, visual)
            states_of = wander(batch, astray)
            hidden = torch.full_like(astray, control.get("hidden", False))
            told = clips.answer(model, batch, layout, carry, states_of, hidden)
            return forward.answer_loss(model, batch, told.last)[1]
