"""Two rules for the distance at which far sinks are seen, on streams far past the trained length.

InfLLM's: every sink at the one distance `n_local - 1`. StreamingLLM's: positions inside the cache,
so the sinks stand in their order right before the window. Clips of 12 frames follow a long stream;
questions about each clip are answered from its frames, whose keys and values were encoded with the
rule. "alone" is the same clip at the start of a stream of its own: the best that can be expected.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import numpy as np
import torch

import mmkv
import mmkv.encode.window
from benchmarks.common import save, show
from mmkv.models.tiny.questions import Clip, Question, ask, random_clip
from mmkv.models.tiny.world import Bank, draw, make_bank

SCENES = 12
KINDS = ("colour", "shape", "place", "with", "exists", "count", "now", "after", "before")


def run(vlm: mmkv.VideoLM, clips: int = 60, before: int = 500) -> dict[str, Any]:
    """Measure and print the share of exact answers."""
    if vlm.name != "mmkv-tiny":
        print("\nThe sink rules are compared on mmkv-tiny, whose answers can be checked.")
        return {}
    rng = Random(20_261)
    bank = make_bank(64, seed=5)
    lead = [_frames(random_clip(rng, 100), bank, i) for i in range(before // 100)]
    clipped = [(c := random_clip(rng, SCENES), _questions(c, rng)) for _ in range(clips)]
    right: dict[str, list[bool]] = {}
    config = mmkv.CacheConfig(window_frames=SCENES + 3, recent_frames=SCENES, retrieve_frames=0)
    for rule in ("fixed distance", "positions in the cache"):
        with _rule(rule), vlm.stream(config) as stream:
            for frames in lead:
                _feed(stream, frames)
            right[rule] = [
                hit
                for i, (clip, questions) in enumerate(clipped)
                for hit in _answers(stream, _frames(clip, bank, 1000 + i), questions)
            ]
    right["alone"] = []
    for i, (clip, questions) in enumerate(clipped):
        with vlm.stream(config) as stream:
            right["alone"] += _answers(stream, _frames(clip, bank, 1000 + i), questions)
    result = {
        "questions": len(right["alone"]),
        "stream_frames": before + clips * SCENES,
        "exact": {rule: float(np.mean(hits)) for rule, hits in right.items()},
    }
    show(
        f"Sinks out of the window: {result['questions']} questions on clips of {SCENES} frames",
        [
            ("rule", "exact answers", ""),
            *((rule, f"{100 * share:.1f} %", "") for rule, share in result["exact"].items()),
        ],
    )
    save("sinks", result)
    return result


@contextmanager
def _rule(name: str) -> Iterator[None]:
    if name == "fixed distance":
        yield
        return
    sinks, queries = mmkv.encode.window.far_sinks, mmkv.encode.window.far_queries
    opening = 0

    def in_order(positions: np.ndarray, advances: np.ndarray) -> np.ndarray:
        nonlocal opening
        opening = positions.shape[1]
        return positions

    def behind(positions: np.ndarray, advances: np.ndarray, distance: int) -> np.ndarray:
        return queries(positions, advances, distance + opening)

    mmkv.encode.window.far_sinks, mmkv.encode.window.far_queries = in_order, behind
    try:
        yield
    finally:
        mmkv.encode.window.far_sinks, mmkv.encode.window.far_queries = sinks, queries


def _questions(clip: Clip, rng: Random) -> list[Question]:
    asked = (ask(kind, clip, rng) for kind in KINDS for _ in range(2))
    return [q for q in asked if q is not None and not q.turns]


def _frames(clip: Clip, bank: Bank, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scenes = torch.tensor(clip.scenes)
    variant = torch.randint(0, bank.variants, scenes.shape, generator=generator)
    return draw(scenes, variant, bank, generator).permute(0, 2, 3, 1).contiguous()


def _feed(stream: mmkv.Stream, frames: torch.Tensor) -> float:
    start = 0.0 if stream.seconds is None else stream.seconds + 1.0
    stream.feed(frames, [start + i for i in range(len(frames))])
    return start


def _answers(stream: mmkv.Stream, frames: torch.Tensor, asked: list[Question]) -> list[bool]:
    start = _feed(stream, frames)
    return [
        stream.ask(q.text, since=start, max_new_tokens=24).text.strip() == q.answer for q in asked
    ]
