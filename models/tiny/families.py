"""What differs between the architectures that learn the drawn world."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from mmkv.models.tiny.batches import Batch, Encoder
from mmkv.models.tiny.questions import KINDS
from mmkv.models.tiny.stages import Stage
from mmkv.models.tiny.world import Bank

TOKEN_NOISE = 0.15  # of a written token's size: what is seen is never exact


@dataclass
class Outcome:
    """What a batch gave.

    Attributes:
        total: the loss to minimise.
        exact: bool `[B, Q]`, questions answered exactly.
        fine: bool `[B, Q]`, questions that could be answered at all.
        figures: the losses by name, for the log.
    """

    total: Tensor
    exact: Tensor
    fine: Tensor
    figures: dict[str, Any] = field(default_factory=dict)


class Lesson(ABC):
    """One stage's way from batches to losses.

    Attributes:
        readers: modules that are trained beside the model and thrown away after the stage.
    """

    readers: nn.Module

    @abstractmethod
    def __call__(self, batch: Batch, rng: Random, generator: torch.Generator) -> Outcome:
        """Compute the losses of a batch; `rng` and `generator` decide what is random."""


class Family(ABC):
    """An architecture: how it is built, what it sees of a scene, and how it is taught.

    Attributes:
        name: on the command line.
        stages: its curriculum.
        sight: names of the modules, inside `model.model`, that turn frames into visual tokens.
        autocast: whether training computes in bfloat16.
        tower_steps: steps of the two stages of the tower; 0: not trained a second time.
        unit: what a clip is counted in; a scene is a frame, or a pair of them.
        drawings: ways to draw each shape, besides those of the tower's second stage.
        kinds: kinds of questions that it is taught.
        controls: what `evaluate` compares, by name: options of `exact_answers`; the whole first.
    """

    name: ClassVar[str]
    stages: ClassVar[tuple[Stage, ...]]
    sight: ClassVar[tuple[str, ...]]
    autocast: ClassVar[bool]
    tower_steps: ClassVar[tuple[int, int]]
    unit: ClassVar[str] = "frames"
    drawings: ClassVar[int] = 256
    kinds: ClassVar[tuple[str, ...]] = tuple(KINDS)
    controls: ClassVar[dict[str, dict[str, Any]]]

    @abstractmethod
    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """Make the tokenizer with its chat template."""

    @abstractmethod
    def build_model(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
        """Make the model with random weights."""

    @abstractmethod
    def load(self, folder: Path) -> Any:
        """Load a checkpoint in float32."""

    @abstractmethod
    def save(self, model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
        """Write weights, configuration, tokenizer, chat template and preprocessing."""

    @abstractmethod
    def spoken(
        self, model: Any, scenes: Tensor, variant: Tensor, bank: Bank, encoder: Encoder
    ) -> Tensor:
        """Write scenes `[N, 4]` in words: the visual tokens `[N, T, D]` that the tower learns."""

    @abstractmethod
    def see_drawn(
        self, model: Any, scenes: Tensor, variant: Tensor, bank: Bank, generator: torch.Generator
    ) -> Tensor:
        """Draw scenes `[N, 4]` and return their visual tokens `[N, T, D]`."""

    @abstractmethod
    def lesson(
        self, model: Any, stage: Stage, bank: Bank, encoder: Encoder, summary: str
    ) -> Lesson:
        """Prepare a stage; `summary` is what stands for a frame in retrieval, where it is trained.

        Args:
            model: the model that is taught.
            stage: what to train on.
            bank: drawings.
            encoder: makes the token ids.
            summary: "mean" or "max", see `streaming.Past`.
        """

    @abstractmethod
    def exact_answers(
        self,
        model: Any,
        batch: Batch,
        visual: Tensor,
        encoder: Encoder,
        control: dict[str, Any],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Say which questions are answered exactly by a model that sees the whole clip.

        Args:
            model: with the weights to judge.
            batch: clips and questions.
            visual: visual tokens `[B, F * T, D]`.
            encoder: makes the token ids.
            control: what is damaged or hidden, an entry of `controls`.
            generator: decides what is drawn in a control.

        Returns:
            bool `[B, Q]`.
        """

    def sight_modules(self, model: Any) -> list[nn.Module]:
        """Return the modules that turn frames into visual tokens."""
        return [getattr(model.model, name) for name in self.sight]

    def loose(self, model: Any) -> list[nn.Parameter]:
        """Return parameters outside the language model that are trained with it."""
        return []

    def visual_tokens(
        self,
        model: Any,
        stage: Stage,
        batch: Batch,
        bank: Bank,
        encoder: Encoder,
        generator: torch.Generator,
    ) -> Tensor:
        """Make the clips' visual tokens `[B, F*T, D]`, written in words or seen by the tower."""
        scenes, variant = batch.scenes.flatten(0, 1), batch.variant.flatten(0, 1)
        if stage.sees == "frames":
            with torch.no_grad():
                tokens = self.see_drawn(model, scenes, variant, bank, generator)
        else:
            tokens = self.spoken(model, scenes, variant, bank, encoder)
            noise = torch.randn(tokens.shape, generator=generator)
            tokens = tokens + noise * TOKEN_NOISE * tokens.detach().std()
        return tokens.reshape(len(batch.ids), -1, tokens.shape[-1])
