"""Train mmkv-tiny from scratch on a CPU: `python -m mmkv.models.tiny.train --work DIR`.

1. The language model learns the questions on scenes written in words (`words-*` stages): what a
   visual token shows is the sum of its words' embeddings, so no frame has to be drawn or seen.
2. The vision tower and projector learn to say those same sums for drawn frames (`vision.py`).
3. The language model continues with the tokens that the tower delivers, on growing clips
   (`video-*`), then on streams (`stream-*`).
4. The tower is trained once more, with many more drawings of every shape.

Every finished stage is kept in the work folder and not repeated; the seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from random import Random

import torch
from transformers import LlavaOnevisionForConditionalGeneration

from mmkv.models.tiny import forward, losses, parallel, recall, stages, streaming, vision
from mmkv.models.tiny.batches import Batch, Encoder, make_batch
from mmkv.models.tiny.build import build_model, save_checkpoint
from mmkv.models.tiny.questions import KINDS
from mmkv.models.tiny.scores import Scores
from mmkv.models.tiny.streaming import WINDOW
from mmkv.models.tiny.tokenizer import build_tokenizer
from mmkv.models.tiny.world import Bank, make_bank

TOKEN_NOISE = 0.15  # of a written token's size: what is seen is never exact


def optimisers(
    model: LlavaOnevisionForConditionalGeneration, stage: stages.Stage
) -> list[torch.optim.Optimizer]:
    """Make the optimisers: Muon for the language model's matrices, AdamW for the rest.

    Args:
        model: its vision parts are frozen, its word embeddings as the stage says.
        stage: for the learning rate.
    """
    table = forward.word_table(model)
    table.requires_grad_(stage.train_words)
    model.model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(False)
    parameters = [p for p in model.model.language_model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim == 2 and p is not table]
    rest = [p for p in parameters if p.ndim != 2 or p is table]
    rest.append(model.model.image_newline)
    return [
        torch.optim.Muon(
            matrices, lr=stage.rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=stage.rate / 2, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def visual_tokens(
    model: LlavaOnevisionForConditionalGeneration,
    stage: stages.Stage,
    batch: Batch,
    bank: Bank,
    encoder: Encoder,
    generator: torch.Generator,
) -> torch.Tensor:
    """Make the clips' visual tokens, `[B, F*16, D]`, written in words or seen by the tower."""
    scenes, variant = batch.scenes.flatten(0, 1), batch.variant.flatten(0, 1)
    if stage.sees == "frames":
        with torch.no_grad():
            tokens = vision.see_drawn(model, scenes, variant, bank, generator)
    else:
        table = forward.word_table(model)
        tokens = forward.spoken_tokens(scenes, variant, bank, table, encoder)
        noise = torch.randn(tokens.shape, generator=generator)
        tokens = tokens + noise * TOKEN_NOISE * tokens.detach().std()
    return tokens.reshape(len(batch.ids), -1, tokens.shape[-1])


def train_stage(
    model: LlavaOnevisionForConditionalGeneration,
    stage: stages.Stage,
    bank: Bank,
    encoder: Encoder,
    *,
    seed: int,
    summary: str,
    log: Path,
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

    Returns:
        seconds that it took.
    """
    rng = Random(f"{seed} {stage.name} {parallel.rank()}")
    generator = torch.Generator().manual_seed(rng.getrandbits(62))
    scores = Scores([k for k in KINDS if k not in stage.leave_out], stage.twice)
    torch.manual_seed(seed)
    company = losses.Company(forward.word_table(model).shape[1])
    parameters = [*model.parameters(), *company.parameters()]
    groups = optimisers(model, stage)
    groups[1].add_param_group({"params": list(company.parameters())})
    prefix = len(encoder.prefix)
    found: list[float] = []  # per layer, in the last long clips
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
        choice = recall.Choice(
            batch,
            rng.choice(stage.retrieve),
            neighbours=rng.random() < 0.5,
            helped=torch.rand(batch.required.shape[:2], generator=generator) < stage.helped,
            crowded=torch.rand(batch.required.shape[:2], generator=generator) < stage.crowded,
        )
        with torch.autocast("cpu", torch.bfloat16):
            tokens = visual_tokens(model, stage, batch, bank, encoder, generator)
            past = streaming.watch(model, forward.opening(model, tokens, encoder), prefix, summary)
            states, passed = streaming.answer(model, batch, past, encoder, choice)
        fine = choice.answerable(passed)
        loss, exact = forward.answer_loss(model, batch, states, fine)
        total, search, point, known, looked = loss, 0.0, 0.0, 0.0, 0.0
        if stage.company:
            extra = company(past, batch, prefix)
            total, known = total + stage.company * extra, extra.item()
        if stage.looked and bool((batch.pointer >= 0).any()):
            extra = company.questions(batch, passed)
            total, looked = total + stage.looked * extra, extra.item()
        if stage.pointer and bool((batch.pointer >= 0).any()):
            extra = recall.pointer_loss(batch, passed, bank, prefix)
            total, point = total + stage.pointer * extra, extra.item()
        if stage.retrieval and frames > 1 and bool(batch.needed.any()):
            extra = recall.retrieval_loss(batch, past, passed, prefix)
            total, search = total + stage.retrieval * extra, extra.item()
        if frames > WINDOW:
            found = recall.found(batch, passed)
        total.backward()
        scores.add(batch, exact, fine)
        mean = parallel.average(parameters, scores.mean)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in groups:
            group.step()
        model.zero_grad(set_to_none=True)
        company.zero_grad(set_to_none=True)
        if step % 25 == 24 and parallel.rank() == 0:
            line = {
                "stage": stage.name,
                "step": step + 1,
                "seconds": round(time.time() - started),
                "frames": frames,
                "loss": round(loss.item(), 3),
                "retrieval": round(search, 3),
                "found": [round(share, 2) for share in found],
                "pointer": round(point, 3),
                "company": round(known, 3),
                "looked": round(looked, 3),
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
    tokenizer = build_tokenizer()
    encoder = Encoder(tokenizer)
    model = build_model(tokenizer, args.seed)
    bank = make_bank(seed=args.seed)
    log = args.work / "log.jsonl"
    seconds: dict[str, float] = {}
    for stage in stages.STAGES:
        if not stage.train_words and "vision" not in seconds:  # word embeddings are final now
            seconds |= vision.fit_or_load(model, bank, encoder, args.work, log, args.seed)
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
            )
            if parallel.rank() == 0:
                torch.save({"model": model.state_dict(), "seconds": taken}, done)
            parallel.barrier()
        saved = torch.load(done)
        model.load_state_dict(saved["model"])
        seconds[stage.name] = saved["seconds"]
    drawings = make_bank(vision.AGAIN_VARIANTS, seed=args.seed)
    seconds |= vision.fit_or_load(
        model, drawings, encoder, args.work, log, args.seed, name="vision-2",
        steps=vision.AGAIN_STEPS,
    )  # fmt: skip
    if args.out and parallel.rank() == 0:
        save_checkpoint(model, tokenizer, args.out)
        (args.work / "seconds.json").write_text(json.dumps(seconds, indent=2))


def main() -> None:
    """Read the options and start the workers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
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
