"""Teach the vision tower and projector to say in words what each visual token shows."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random
from typing import Any

import torch

from mmkv.models.tiny import parallel
from mmkv.models.tiny.batches import Encoder, torch_generator
from mmkv.models.tiny.families import Family
from mmkv.models.tiny.llava import Llava
from mmkv.models.tiny.questions import random_clip
from mmkv.models.tiny.world import Bank

AGAIN_VARIANTS = 4096  # the last stage: more ways to draw a shape than before
FRAMES = 96
RATE = 2e-3


def fit(
    model: Any,
    bank: Bank,
    encoder: Encoder,
    log: Path,
    seed: int,
    steps: int,
    name: str = "vision",
    family: Family | None = None,
) -> None:
    """Regress every visual token onto the words of what it shows; word embeddings are frozen.

    Args:
        model: its tower and projector are trained in place.
        bank: drawings.
        encoder: for the ids of words.
        log: JSON Lines file that progress is appended to.
        seed: decides everything, with the name and the process's number.
        steps: training steps.
        name: of the stage.
        family: the model's; None: LLaVA-OneVision.
    """
    family = family or Llava()
    rng = Random(f"{seed} {name} {parallel.rank()}")
    generator = torch_generator(rng)
    parts = family.sight_modules(model)
    parameters = [p for part in parts for p in part.requires_grad_(True).parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps, pct_start=0.05)
    count = FRAMES // parallel.workers()
    started = time.time()
    for step in range(steps):
        scenes = torch.tensor([random_clip(rng, 1).scenes[0] for _ in range(count)])
        variant = torch.randint(bank.variants, scenes.shape, generator=generator)
        target = family.spoken(model, scenes, variant, bank, encoder).detach()
        with torch.autocast("cpu", torch.bfloat16, enabled=family.autocast):
            tokens = family.see_drawn(model, scenes, variant, bank, generator).float()
        loss = (tokens - target).square().mean() / target.var()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parallel.average(parameters, 0.0)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 49 and parallel.rank() == 0:
            line = {"stage": name, "step": step + 1, "loss": round(loss.item(), 4)}
            line["seconds"] = round(time.time() - started)
            with log.open("a") as out:
                out.write(json.dumps(line) + "\n")


def fit_or_load(
    model: Any,
    bank: Bank,
    encoder: Encoder,
    work: Path,
    log: Path,
    seed: int,
    *,
    family: Family,
    steps: int,
    name: str = "vision",
) -> dict[str, float]:
    """Fit once per work folder; only the vision parts of the saved weights are loaded.

    Args:
        model, bank, encoder, log, seed, steps, name, family: see `fit`.
        work: folder that the result is kept in.

    Returns:
        the stage's name with the seconds that it took.
    """
    done = work / f"{name}.pt"
    if not done.exists():
        started = time.time()
        fit(model, bank, encoder, log, seed, steps, name, family)
        parts = {
            k: v
            for k, v in model.state_dict().items()
            if any(f"model.{part}." in k for part in family.sight)
        }
        if parallel.rank() == 0:
            torch.save({"model": parts, "seconds": time.time() - started}, done)
        parallel.barrier()
    saved = torch.load(done)
    model.load_state_dict(saved["model"], strict=False)
    return {name: saved["seconds"]}
