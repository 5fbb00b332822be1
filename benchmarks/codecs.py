"""What packing loses at how many bits, on the bundled model: about a minute.

    python -m benchmarks.codecs                  prints the table, writes results/codecs.json

- bits: stored bits per element, scales included, in pages of 64 tokens.
- error of keys and of values: squared, over their squared size, before RoPE, mean over layers.
- error of attention: the same for the output of attention over the packed frames, for the
  questions' own queries, mean over layers.
- loss: how much less likely the right answer becomes, in nats per token; exact: answers right to
  the letter. Both are measured on held-out clips of 16 frames, all of which a question sees packed.

Then the errors of the fitted codec and of VidKV's formulas at the same bits, also on synthetic
data; and the resident mode (`resident.py`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

import mmkv
from benchmarks import resident
from benchmarks.codec_errors import (
    KINDS_OF_NOISE,
    PAGE,
    Packing,
    equal_bits,
    mean,
    relative,
    synthetic,
)
from benchmarks.common import save, show
from mmkv.codecs import make_codec
from mmkv.models.tiny import forward, streaming
from mmkv.models.tiny.batches import Batch, Encoder, make_batch
from mmkv.models.tiny.llava import Llava
from mmkv.models.tiny.questions import KINDS
from mmkv.models.tiny.world import make_bank

CLIPS, QUESTIONS, FRAMES = 12, 12, 16
SETTINGS: dict[str, dict[str, Any]] = {
    "fitted K4/V4": {"key_bits": 4, "value_bits": 4},
    "fitted K2/V2": {"key_bits": 2, "value_bits": 2},
    "fitted K1.5/V2": {"key_bits": 1.5, "value_bits": 2},
    "fitted K1.5/V1.58": {"key_bits": 1.5, "value_bits": 1.58},
    "fitted K1.5/V1.58, no transform": {
        "key_bits": 1.5,
        "value_bits": 1.58,
        "transform": "none",
    },
    "fitted K1.5/V1.58, means kept": {
        "key_bits": 1.5,
        "value_bits": 1.58,
        "remove_mean": False,
    },
    "stp K1.5/V1.66": {"value_bits": 1.66},
    "vidkv K2/V2": {"codec": "vidkv", "key_bits": 2, "value_bits": 2},
    "vidkv K1.5/V2": {"codec": "vidkv", "key_bits": 1.5, "value_bits": 2},
    "vidkv K1.5/V1.58": {"codec": "vidkv"},
    "vidkv K1.5/V1.58, groups of 32": {"codec": "vidkv", "group_size": 32},
    "kivi K2/V2": {"codec": "kivi"},
}


@dataclass(frozen=True)
class Clips:
    """Held-out clips with their questions, watched in full precision."""

    model: Any
    batch: Batch
    encoder: Encoder
    past: streaming.Past
    prefix: int

    def answer(self, past: streaming.Past) -> tuple[float, Tensor, list[streaming.Asked]]:
        """Loss per token, which answers are exact, and each layer's queries and keys."""
        rows, count = self.batch.required.shape[:2]
        everything = streaming.whole_clips(rows, count, FRAMES)
        states, asked = streaming.answer(
            self.model, self.batch, past, self.encoder, lambda *_: everything
        )
        loss, exact = forward.answer_loss(self.model, self.batch, states)
        return float(loss), exact, asked


def make_clips(vlm: mmkv.VideoLM, clips: int) -> Clips:
    """Clips from a seed that training never uses."""
    rng, bank = Random("codecs"), make_bank(seed=77_000)
    encoder = Encoder(vlm.tokenizer)
    kinds = {kind: 1.0 for kind in KINDS if kind != "caption"}
    batch = make_batch(
        rng, encoder, clips=clips, frames=FRAMES, questions=QUESTIONS, weights=kinds,
        variants=bank.variants,
    )  # fmt: skip
    model: Any = vlm.model
    scenes, variant = batch.scenes.flatten(0, 1), batch.variant.flatten(0, 1)
    visual = Llava().see_drawn(model, scenes, variant, bank, torch.Generator().manual_seed(1))
    opening = forward.opening(model, visual.reshape(clips, -1, visual.shape[-1]), encoder)
    prefix = len(encoder.prefix)
    return Clips(model, batch, encoder, streaming.watch(model, opening, prefix), prefix)


def repacked(clips: Clips, packing: Packing) -> streaming.Past:
    """The clips' past, its frames packed and unpacked."""
    keys, values = [], []
    for layer, (k, v) in enumerate(zip(clips.past.keys, clips.past.values, strict=True)):
        k, v = k.clone(), v.clone()
        for row in range(len(k)):
            seen = (row, slice(clips.prefix, None))
            found = packing(k[seen].transpose(0, 1), v[seen].transpose(0, 1), layer)
            k[seen], v[seen] = (part.transpose(0, 1) for part in found)
        keys.append(k)
        values.append(v)
    return streaming.Past(clips.past.summary, keys, values, clips.past.outputs)


def attention_errors(
    clips: Clips, asked: list[streaming.Asked], changed: streaming.Past
) -> list[float]:
    """Per layer the relative squared error of attention over the frames."""
    found = []
    table = streaming.angles(clips.model, torch.arange(clips.past.keys[0].shape[1]))
    for layer, own in enumerate(asked):
        outs = []
        for past in (clips.past, changed):
            key, value = (
                streaming.recall(x[layer], own.shown, clips.prefix)
                for x in (past.keys, past.values)
            )
            nothing = torch.zeros(1)
            outs.append(streaming.attend(own.queries, streaming.turn(key, table), value, nothing))
        found.append(relative(outs[1], outs[0]))
    return found


def measure_clips(vlm: mmkv.VideoLM, clips: Clips) -> dict[str, Any]:
    """Every setting on the clips."""
    shape = vlm.adapter.shape
    loss, exact, asked = clips.answer(clips.past)
    result: dict[str, Any] = {
        "questions": exact.numel(),
        "unpacked": {"loss": loss, "exact": float(exact.float().mean())},
    }
    for label, settings in SETTINGS.items():
        packing = Packing(make_codec(shape=shape, **{"codec": None, **settings}), shape)
        past = repacked(clips, packing)
        changed, right, _ = clips.answer(past)
        frames = slice(clips.prefix, None)
        errors = [
            mean([relative(b[:, frames], a[:, frames]) for a, b in zip(*pair, strict=True)])
            for pair in ((clips.past.keys, past.keys), (clips.past.values, past.values))
        ]
        result[label] = {
            **packing.bits(),
            "key_error": errors[0],
            "value_error": errors[1],
            "attention_error": mean(attention_errors(clips, asked, past)),
            "loss": changed - loss,
            "exact": float(right.float().mean()),
            "answers_changed": float((right != exact).float().mean()),
        }
    return result


def run(vlm: mmkv.VideoLM, count: int = CLIPS) -> None:
    """Measure on `count` clips, print, and write."""
    with torch.inference_mode():
        clips = make_clips(vlm, count)
        on_clips = measure_clips(vlm, clips)
        own = torch.stack(
            [
                torch.stack([k[0], v[0]]).transpose(1, 2)[:, :, clips.prefix :]
                for k, v in zip(clips.past.keys, clips.past.values, strict=True)
            ]
        )
        at_equal_bits = {kind: equal_bits(synthetic(kind)) for kind in KINDS_OF_NOISE}
        at_equal_bits["mmkv-tiny"] = equal_bits(own)
    found = resident.measure(vlm)
    report(on_clips, at_equal_bits)
    resident.report(found)
    sizes = {"clips": count, "frames": FRAMES, "page_tokens": PAGE}
    tables = {"on_clips": on_clips, "equal_bits": at_equal_bits, "resident": found}
    save("codecs", {"model": vlm.name, **sizes, **tables})


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--model", default="mmkv-tiny", help="or a folder with a checkpoint of it")
    chosen = parser.parse_args()
    run(mmkv.load(chosen.model), chosen.clips)


def report(on_clips: dict[str, Any], at_equal_bits: dict[str, Any]) -> None:
    """The tables."""
    plain = on_clips["unpacked"]
    print(f"\nunpacked: loss {plain['loss']:.3f}, exact {plain['exact']:.1%}")
    head = f"{'':32} {'bits K/V':>11} {'error K':>8} {'V':>7} {'attn':>7} {'loss':>7} {'exact':>7}"
    print(head)
    for label in SETTINGS:
        row = on_clips[label]
        print(
            f"{label:32} {row['key_bits']:5.2f}/{row['value_bits']:5.2f} "
            f"{row['key_error']:8.4f} {row['value_error']:7.4f} {row['attention_error']:7.4f} "
            f"{row['loss']:+7.3f} {row['exact']:7.1%}"
        )
    rows = []
    for data, table in at_equal_bits.items():
        for bits, row in table.items():
            fitted, formula = row["fitted"], row["vidkv"]
            shares = [fitted[k] / formula[k] for k in ("key_error", "value_error")]
            rows.append(
                (f"{data}, {bits} bits", f"keys {shares[0]:.2f}, values {shares[1]:.2f}", "")
            )
    show("fitted error over vidkv's, the same groups and bits", rows)


if __name__ == "__main__":
    main()
