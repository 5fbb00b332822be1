"""Does a question find a scene from long ago, and is it answered correctly?

    python -m benchmarks.needles --n 40                     a first look, about a minute
    python -m benchmarks.needles                            everything; writes results/needles.json
    python -m benchmarks.needles --checkpoint DIR --frames 500 --only mean-key
    python -m benchmarks.needles --checkpoint HYBRID --kinds place with colour shape exists count \
        --only "state only" "window only" mean-key attention+1

Streams of 50, 500 and 5,000 scenes (`needle_world.py`), one frame each (for a model that takes
frames in pairs, two that are the same), window 16 scenes. The same questions, of kinds that the
model was taught, are answered from

- state only: what recurrent layers carry, for a model that has such layers; no frame is shown,
- window only: the newest 16 frames, nothing retrieved (a hybrid has its state as well),
- uniform: 8 frames spread evenly over the past, and the newest 4,
- a score: the 8 frames that it finds, and the newest 4; "+1": neighbours=1,
- handed over: the frames that hold the answer, and the newest 4,
- handed among 8: the same with as many other frames beside them as a score brings.

"exact" is the share of answers that are right to the letter, "found" the share of needed frames,
of those not recent, that a layer was shown, over all layers.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mmkv
from benchmarks.common import median, rss, save
from benchmarks.needle_world import HARD, KINDS, Case, make_world, pictures
from mmkv.answer.context import Context, capture
from mmkv.answer.generation import Generation
from mmkv.answer.past import Retrieved
from mmkv.answer.reply import Reply
from mmkv.answer.retriever import LayerRetriever, Retriever
from mmkv.engine.sampling import Sampling
from mmkv.models.prompt import Prompt
from mmkv.models.tiny.world import make_bank
from mmkv.retrieval.registry import SCORES

WINDOW, RECENT, RETRIEVE = 16, 4, 8
DELAYS = {50: (8, 20, 35), 500: (8, 20, 100, 400), 5000: (20, 100, 1000, 4500)}
NEVER_SEEN = ("place", "with", "before", "after", "follow")  # by the contrastive loss in training
STAGES = ("wait", "score", "load", "unpack", "prefill", "first_token", "decode", "total")
_SEED = 50_000  # far from those of training


class Given(Retriever):
    """The same blocks in every layer, whatever the question says."""

    def __init__(self, context: Context, blocks: Sequence[int]) -> None:
        super().__init__(context.candidates, context.recent, len(blocks))
        every = [*context.candidates, *context.recent]
        self._given = torch.tensor([float(block.index in set(blocks)) for block in every])

    def scores(self, layer: int, words: Tensor) -> Tensor:
        return self._given


Make = Callable[[Context, Case], Retriever]


@dataclass(frozen=True)
class Method:
    """A way to choose frames; `recent` is the number of frames shown to every question."""

    make: Make
    recent: int = RECENT


def _scored(name: str, neighbours: int) -> Make:
    def make(context: Context, case: Case) -> Retriever:
        return LayerRetriever(
            context.past, SCORES[name](), context.candidates, context.recent, RETRIEVE,
            neighbours=neighbours,
        )  # fmt: skip

    return make


def _uniform(context: Context, case: Case) -> Retriever:
    spread = np.linspace(0, len(context.candidates) - 1, RETRIEVE)
    return Given(context, sorted(set(spread.round().astype(int).tolist())))


def _handed(context: Context, case: Case) -> Retriever:
    return Given(context, needed(context, case))


def _among(context: Context, case: Case) -> Retriever:
    wanted = needed(context, case)
    spread = np.linspace(0, len(context.candidates) - 1, RETRIEVE).round().astype(int).tolist()
    others = [block for block in spread if block not in wanted]
    return Given(context, wanted + others[: RETRIEVE - len(wanted)])


def needed(context: Context, case: Case) -> list[int]:
    """The frames an answer needs that are not among the recent ones."""
    return [scene for scene in case.question.scenes if scene < len(context.candidates)]


METHODS: dict[str, Method] = {
    "state only": Method(lambda context, case: Given(context, []), 0),
    "window only": Method(lambda context, case: Given(context, []), WINDOW),
    "uniform": Method(_uniform),
    **{
        f"{name}{'+1' if neighbours else ''}": Method(_scored(name, neighbours))
        for neighbours in (0, 1)
        for name in SCORES
    },
    "handed among 8": Method(_among),
    "handed over": Method(_handed),
}


@dataclass(frozen=True)
class Row:
    """One answer."""

    method: str
    kind: str
    delay: int
    exact: bool
    found: tuple[float, ...]  # per layer; empty where nothing needed is old
    timings: dict[str, float]


def run(
    vlm: mmkv.VideoLM,
    n: int,
    frames: Sequence[int],
    methods: Sequence[str],
    *,
    seed: int = _SEED,
    kinds: Sequence[str] = (*KINDS, *HARD),
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Measure and print; at least `n` questions per length and kind, as far as scenes allow."""
    result: dict[str, Any] = {
        "questions_per_kind": n,
        "kinds": list(kinds),
        "settings": dict(settings),
        "window_frames": WINDOW,
        "recent_frames": RECENT,
        "retrieve_frames": RETRIEVE,
        "seed": seed,
    }
    if not vlm.adapter.carries:
        methods = [name for name in methods if name != "state only"]
    bank = make_bank(64, seed=10_000 + seed)
    for length in frames:
        rows: list[Row] = []
        grown = None
        for i in range(max(1, -(-n // 16))):
            world = make_world(seed + i, length, DELAYS[length])
            cases = [case for case in world.cases if case.question.kind in kinds]
            patch = vlm.adapter.temporal_patch
            shown = pictures(world.scenes, bank, seed + i).repeat_interleave(patch, dim=0)
            with vlm.stream(_config(patch, settings)) as stream:
                grown = _encode(stream, shown) or grown
                rows += _ask_all(vlm, stream, cases, methods)
        result[str(length)] = summary(rows, DELAYS[length])
        if grown is not None:
            result[str(length)]["megabytes_beyond_archive"] = grown
        report(length, result[str(length)])
    return result


def _config(patch: int, settings: Mapping[str, Any]) -> mmkv.CacheConfig:
    return mmkv.CacheConfig(
        window_frames=WINDOW * patch,
        recent_frames=RECENT * patch,
        retrieve_frames=RETRIEVE * patch,
        snapshot_ram="100MB",
        **settings,
    )


def _encode(stream: mmkv.Stream, frames: Tensor) -> float | None:
    """Feed all frames; returns, for a long stream, the megabytes that its last four fifths took
    beyond the archive and its index."""
    early = max(len(frames) // 5, 1000)
    stream.feed(frames[:early], np.arange(min(early, len(frames)), dtype=float))
    if len(frames) <= early:
        return None
    before = _beyond(stream)
    stream.feed(frames[early:], np.arange(early, len(frames), dtype=float))
    return (_beyond(stream) - before) / 1e6


def _beyond(stream: mmkv.Stream) -> int:
    gc.collect()
    stats = stream.stats()
    return rss() - stats.archive_bytes - stats.index_bytes


def _ask_all(
    vlm: mmkv.VideoLM, stream: mmkv.Stream, cases: Sequence[Case], methods: Sequence[str]
) -> Iterator[Row]:
    for case in cases:
        prompt = stream._template.prompt(case.question.text, case.question.turns)
        for name in methods:
            yield _asked(vlm, stream, case, prompt, name)


def _asked(vlm: mmkv.VideoLM, stream: mmkv.Stream, case: Case, prompt: Prompt, name: str) -> Row:
    method, began = METHODS[name], time.perf_counter()
    with torch.inference_mode():
        recent = method.recent * vlm.adapter.temporal_patch
        context = capture(stream._state, vlm.rotary, recent, None, None)
    retriever = method.make(context, case)
    wanted = needed(context, case)
    generation = Generation(vlm, context, prompt, retriever, Retrieved(), 16)
    reply = Reply(generation, Sampling(max_new_tokens=16), began).start()
    chosen = [set(choice.chosen) for choice in generation.choices]
    answer = reply.finish()
    return Row(
        name,
        case.question.kind,
        case.delay,
        answer.text == case.question.answer,
        tuple(float(np.mean([w in c for w in wanted])) for c in chosen) if wanted else (),
        answer.timings,
    )


def summary(rows: Sequence[Row], delays: Sequence[int]) -> dict[str, Any]:
    """Shares in percent by method: of all, by delay, by kind; frames found; milliseconds."""
    return {name: _of([r for r in rows if r.method == name], delays)
            for name in dict.fromkeys(r.method for r in rows)}  # fmt: skip


def _of(rows: Sequence[Row], delays: Sequence[int]) -> dict[str, Any]:
    plain = [r for r in rows if r.kind in KINDS]
    found = [r.found for r in plain if r.found]
    return {
        "exact": _percent(r.exact for r in plain),
        "questions": len(plain),
        "by_delay": {d: _percent(r.exact for r in plain if r.delay == d) for d in delays},
        "by_kind": {
            kind: _percent(r.exact for r in rows if r.kind == kind) for kind in (*KINDS, *HARD)
        },
        "never_in_contrastive_loss": _percent(r.exact for r in plain if r.kind in NEVER_SEEN),
        "found": _percent(x for layers in found for x in layers),
        "found_by_layer": [_percent(layer) for layer in zip(*found, strict=True)],
        "found_hard": {
            kind: _percent(x for r in rows if r.kind == kind for x in r.found) for kind in HARD
        },
        "milliseconds": {
            stage: round(1e3 * median([r.timings.get(stage, 0.0) for r in rows]), 3)
            for stage in STAGES
        },
    }


def _percent(shares: Iterator[float] | Sequence[float]) -> float | None:
    values = list(shares)
    return round(100 * float(np.mean(values)), 1) if values else None


def report(length: int, result: dict[str, Any]) -> None:
    """Print one length's table."""
    methods = {k: v for k, v in result.items() if isinstance(v, dict)}
    first = next(iter(methods.values()))
    head = ["", "exact", *(f"{d} ago" for d in first["by_delay"]), *first["by_kind"],
            "found", "by layer", "first token, ms"]  # fmt: skip
    rows = [tuple(head)]
    for name, cell in methods.items():
        numbers = [cell["exact"], *cell["by_delay"].values(), *cell["by_kind"].values()]
        rows.append(
            (
                name,
                *("" if x is None else f"{x:.1f}" for x in (*numbers, cell["found"])),
                " ".join(f"{x:.0f}" for x in cell["found_by_layer"] if x is not None),
                f"{cell['milliseconds'].get('first_token', 0):.1f}",
            )
        )
    beyond = result.get("megabytes_beyond_archive")
    more = "" if beyond is None else f"; {beyond:.1f} MB beyond the archive over four fifths"
    print(f"\n{length} frames, {first['questions']} questions per row{more}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)), flush=True)


def main() -> None:
    """Run the chosen lengths and methods."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="weights other than the bundled ones")
    parser.add_argument("--n", type=int, default=200, help="questions per length and kind")
    parser.add_argument("--frames", type=int, nargs="+", choices=DELAYS, default=[*DELAYS])
    parser.add_argument("--only", nargs="+", choices=METHODS, default=[*METHODS], metavar="NAME")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, *HARD], default=[*KINDS, *HARD])
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=NUMBER",
                        help="settings of CacheConfig, such as key_bits=2")  # fmt: skip
    parser.add_argument("--seed", type=int, default=_SEED)
    parser.add_argument("--save", help="results/NAME.json; a full run writes needles.json")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    vlm = mmkv.load(str(chosen.checkpoint) if chosen.checkpoint else "mmkv-tiny")
    result = run(
        vlm,
        chosen.n,
        chosen.frames,
        chosen.only,
        seed=chosen.seed,
        kinds=chosen.kinds,
        settings={name: float(value) for name, value in (one.split("=") for one in chosen.set)},
    )
    full = chosen.n >= 200 and not chosen.checkpoint and set(chosen.frames) == set(DELAYS)
    if chosen.save or full:
        save(chosen.save or "needles", result)


if __name__ == "__main__":
    main()
