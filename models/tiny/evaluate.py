"""Exact answers of mmkv-tiny on held-out clips, by kind: `python -m mmkv.models.tiny.evaluate`.

`--family qwen3_5 --checkpoint DIR` judges its hybrid sibling. Clips come from seeds that training
never uses. Every clip length gets `--n` questions of each kind; captions are asked on clips of up
to 4 frames only. The controls show what is lost at the longest length when frames keep a random
fifth of their tokens, or 1-bit keys and ternary values; for the hybrid model, when questions go on
from the recurrent states of another clip, or full attention sees the newest scenes only.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from mmkv.models.tiny import CHECKPOINT
from mmkv.models.tiny.batches import Batch, Encoder, make_batch, torch_generator
from mmkv.models.tiny.families import Family
from mmkv.models.tiny.llava import Llava
from mmkv.models.tiny.questions import CAPTION_SCENES, KINDS
from mmkv.models.tiny.train import FAMILIES
from mmkv.models.tiny.world import Bank, make_bank

Table = dict[str, list[int]]  # kind -> [right, asked]
CLIPS, QUESTIONS = 25, 12


def add(table: Table, batch: Batch, exact: torch.Tensor, most: int) -> None:
    """Count the answers of a batch in a table, up to `most` per kind.

    Args:
        table: changed in place.
        batch: the questions.
        exact: bool `[B, Q]`, which were answered exactly.
        most: answers of a kind beyond these are ignored.
    """
    for row, questions in zip(exact.tolist(), batch.questions, strict=True):
        for right, q in zip(row, questions, strict=True):
            counts = table.setdefault(q.kind, [0, 0])
            if counts[1] < most:
                counts[0] += right
                counts[1] += 1


def measure(
    family: Family,
    model: Any,
    bank: Bank,
    encoder: Encoder,
    *,
    frames: int,
    kinds: list[str],
    n: int,
    seed: int,
    columns: list[str],
    words: bool = False,
) -> dict[str, Table]:
    """Measure one clip length, all columns on the same questions.

    Args:
        family: the model's.
        model: with the weights to judge.
        bank: drawings.
        encoder: makes the token ids.
        frames: length of the clips, in scenes.
        kinds: kinds of questions.
        n: questions of each kind.
        seed: of clips and questions; training uses others.
        columns: names in the family's `controls`, the whole first.
        words: write visual tokens in words instead of running the vision tower.

    Returns:
        a table for each column.
    """
    rng = Random(f"held out {seed} {frames} {len(kinds)}")
    generator = torch_generator(rng)
    tables: dict[str, Table] = {c: {} for c in columns}
    first = tables[columns[0]]
    while min((first.get(k, [0, 0])[1] for k in kinds), default=0) < n:
        # A clip may not allow the kinds that still lack questions, so every kind stays possible.
        open_kinds = {k: 1.0 if first.get(k, [0, 0])[1] < n else 0.02 for k in kinds}
        open_kinds.setdefault("now", 0.02)
        batch = make_batch(
            rng, encoder, clips=CLIPS, frames=frames, questions=QUESTIONS, weights=open_kinds,
            variants=bank.variants,
        )  # fmt: skip
        scenes, variant = batch.scenes.flatten(0, 1), batch.variant.flatten(0, 1)
        with torch.no_grad():
            if words:
                visual = family.spoken(model, scenes, variant, bank, encoder)
            else:
                visual = family.see_drawn(model, scenes, variant, bank, generator)
        visual = visual.reshape(CLIPS, -1, visual.shape[-1])
        for column in columns:
            control = family.controls[column]
            exact = family.exact_answers(model, batch, visual, encoder, control, generator)
            add(tables[column], batch, exact, n)
    return tables


def percent(table: Table, kind: str) -> float:
    """Return the share of exact answers in percent; `kind` "all" is the mean over kinds."""
    if kind == "all":
        return sum(percent(table, k) for k in table) / len(table)
    right, asked = table[kind]
    return 100 * right / asked


def markdown(columns: dict[str, Table]) -> str:
    """Render tables as one in Markdown, a row for each kind."""
    lines = ["| kind | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for kind in (*KINDS, "all"):
        cells = [
            f"{percent(t, kind):.1f}" if kind == "all" or kind in t else ""
            for t in columns.values()
        ]
        if any(cells):
            lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", choices=FAMILIES, default=Llava.name)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--n", type=int, default=300, help="questions per kind and length")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--frames", type=int, nargs="+", default=[4, 8, 16], help="scenes of the clips"
    )
    parser.add_argument("--words", action="store_true", help="tokens in words, no vision tower")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    family = FAMILIES[args.family]
    model = family.load(args.checkpoint)
    encoder = Encoder(PreTrainedTokenizerFast.from_pretrained(args.checkpoint))
    bank = make_bank(seed=10_000 + args.seed)
    kinds = [k for k in family.kinds if k != "caption"]
    longest = max(args.frames)
    lengths: dict[str, Table] = {}
    controls: dict[str, Table] = {}
    for frames in args.frames:
        tables = measure(
            family, model, bank, encoder, frames=frames, kinds=kinds, n=args.n, seed=args.seed,
            columns=list(family.controls) if frames == longest else ["whole"],
            words=args.words,
        )  # fmt: skip
        if frames <= CAPTION_SCENES and "caption" in family.kinds:
            extra = measure(
                family, model, bank, encoder, frames=frames, kinds=["caption"], n=args.n,
                seed=args.seed, columns=["whole"], words=args.words,
            )  # fmt: skip
            tables["whole"]["caption"] = extra["whole"]["caption"]
        lengths[f"{frames} {family.unit}"] = tables["whole"]
        if frames == longest:
            controls = tables
    report = [
        f"Exact answers in percent, {args.n} questions per kind and length:",
        markdown(lengths),
        f"Controls on clips of {longest} {family.unit}:",
        markdown(controls),
    ]
    print("\n\n".join(report))  # noqa: T201
    if args.out:
        content = {"n": args.n, "seed": args.seed, "lengths": lengths, "controls": controls}
        args.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
