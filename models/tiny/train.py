"""Train mmkv-tiny from scratch on a CPU: `python -m mmkv.models.tiny.train --work DIR`.

`--family qwen3_5` trains its hybrid sibling, on whole clips only (`clip_lesson.py`).

1. The language model learns the questions on scenes written in words (`words-*` stages): what a
   visual token shows is the sum of its words' embeddings, so no frame has to be drawn or seen.
2. The vision tower and projector learn to say those same sums for drawn frames (`vision.py`).
3. The language model continues with the tokens that the tower delivers, on growing clips
   (`video-*`), then on streams (`stream-*`).
4. The tower is trained once more, with many more drawings of every shape (mmkv-tiny only).

Every finished stage is kept in the work folder and not repeated; the seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from random import Random
from typing import Any

import torch

from mmkv.models.tiny import forward, parallel, stages, vision
from mmkv.models.tiny.batches import Encoder, make_batch
from mmkv.models.tiny.families import Family
from mmkv.models.tiny.hybrid import Hybrid
from mmkv.models.tiny.llava import Llava
from mmkv.models.tiny.muon import Muon32
from mmkv.models.tiny.questions import KINDS
from mmkv.models.tiny.scores import Scores
from mmkv.models.tiny.world import Bank, make_bank

FAMILIES: dict[str, Family] = {family.name: family for family in (Llava(), Hybrid())}


def optimisers(model: Any, stage: stages.Stage, family: Family) -> list[torch.optim.Optimizer]:
    """Make the optimisers: Muon for the language model's matrices, AdamW for the rest.

    Args:
        model: its vision parts are frozen, its word embeddings as the stage says.
        stage: for the learning rate.
        family: the model's.
    """
    table = forward.word_table(model)
    table.requires_grad_(stage.train_words)
    for part in family.sight_modules(model):
        part.requires_grad_(False)
    parameters = [p for p in model.model.language_model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim == 2 and p is not table]
    rest = [p for p in parameters if p.ndim != 2 or p is table]
    rest += family.loose(model)
    muon: torch.optim.Optimizer = (
        torch.optim.Muon(matrices, lr=stage.rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
        if family.autocast
        else Muon32(matrices, lr=stage.rate)
    )
    return [
        muon,
        torch.optim.AdamW(rest, lr=stage.rate / 2, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train_stage(
    model: Any,
    stage: stages.Stage,
    bank: Bank,
    encoder: Encoder,
    *,
    seed: int,
    summary: str,
    log: Path,
    family: Family | None = None,
) -> float:
    """Run one stage.

    Args:
        model: trained in place.
        stage: what to train on.
        bank: drawings.
        encoder: makes the token ids.
        seed: decides everything, with the stage's name and the process's number.
        summary: what stands for a frame in retrieval, see `streaming.Past`.
        log: JSON Lines file that progress is appended to.
        family: the model's; None: LLaVA-OneVision.

    Returns:
        seconds that it took.
    """
    family = family or Llava()
    rng = Random(f"{seed} {stage.name} {parallel.rank()}")
    generator = torch.Generator().manual_seed(rng.getrandbits(62))
    scores = Scores([k for k in KINDS if k not in stage.leave_out], stage.twice)
    torch.manual_seed(seed)
    lesson = family.lesson(model, stage, bank, encoder, summary)
    parameters = [*model.parameters(), *lesson.readers.parameters()]
    groups = optimisers(model, stage, family)
    groups[1].add_param_group({"params": list(lesson.readers.parameters())})
    started = time.time()
    for step in range(stage.steps):
        warm = min(1.0, (step + 1) / 30)
        slow = 0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * step / stage.steps))
        for i, group in enumerate(groups):
            for part in group.param_groups:
                part["lr"] = stage.rate * warm * slow / (1 + i)
        frames = rng.choice(stage.frames)
        batch = make_batch(
            rng,
            encoder,
            clips=stage.clips // parallel.workers(),
            frames=frames,
            questions=stage.questions,
            weights=scores.weights(frames),
            variants=bank.variants,
        )
        outcome = lesson(batch, rng, generator)
        outcome.total.backward()
        scores.add(batch, outcome.exact, outcome.fine)
        mean = parallel.average(parameters, scores.mean)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in groups:
            group.step()
        model.zero_grad(set_to_none=True)
        lesson.readers.zero_grad(set_to_none=True)
        if step % 25 == 24 and parallel.rank() == 0:
            line = {
                "stage": stage.name,
                "step": step + 1,
                "seconds": round(time.time() - started),
                "frames": frames,
                **outcome.figures,
                "mean": round(mean, 3),
                **{k: round(v, 2) for k, v in scores.right.items()},
            }
            with log.open("a") as out:
                out.write(json.dumps(line) + "\n")
        if step % 100 == 99 and parallel.rank() == 0:
            torch.save({"model": model.state_dict()}, log.with_name("snapshot.pt"))
        if mean >= stage.goal and step > 100:
            break
    return time.time() - started


def run(args: argparse.Namespace) -> None:
    """Run the stages that the work folder does not hold yet, then write the checkpoint.

    Args:
        args: the command line, see `main`.
    """
    torch.set_num_threads(args.threads)
    family = FAMILIES[args.family]
    tokenizer = family.build_tokenizer()
    encoder = Encoder(tokenizer)
    model = family.build_model(tokenizer, args.seed)
    bank = make_bank(family.drawings, seed=args.seed)
    log = args.work / "log.jsonl"
    seconds: dict[str, float] = {}
    first, again = family.tower_steps
    for stage in family.stages:
        if stage.sees == "frames" and "vision" not in seconds:  # word embeddings are final now
            seconds |= vision.fit_or_load(
                model, bank, encoder, args.work, log, args.seed, family=family, steps=first
            )
        done = args.work / f"{stage.name}.pt"
        if not done.exists():
            taken = train_stage(
                model,
                stage,
                bank,
                encoder,
                seed=args.seed,
                summary=args.retrieval_loss,
                log=log,
                family=family,
            )
            if parallel.rank() == 0:
                torch.save({"model": model.state_dict(), "seconds": taken}, done)
            parallel.barrier()
        saved = torch.load(done)
        model.load_state_dict(saved["model"])
        seconds[stage.name] = saved["seconds"]
    if again:
        drawings = make_bank(vision.AGAIN_VARIANTS, seed=args.seed)
        seconds |= vision.fit_or_load(
            model, drawings, encoder, args.work, log, args.seed, family=family, steps=again,
            name="vision-2",
        )  # fmt: skip
    if args.out and parallel.rank() == 0:
        family.save(model, tokenizer, args.out)
        (args.work / "seconds.json").write_text(json.dumps(seconds, indent=2))


def main() -> None:
    """Read the options and start the workers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", choices=FAMILIES, default=Llava.name)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--out", type=Path, help="folder of the final checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument(
        "--retrieval-loss", choices=("mean", "max"), default="mean",
        help="what stands for a frame: its mean key, or its best matching token",
    )  # fmt: skip
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    parallel.launch(run, args, args.workers)


if __name__ == "__main__":
    main()
