"""At what distance should an answer see a past that is not in order? mmkv-tiny on drawn clips.

Every clip's questions are answered with the whole past visible: at its ordinary positions, and at
one fixed distance from every token of prompt and answer (`retrieve_frames="all"`), with several
choices of that distance. "loss" is how unlikely the right answer is, in nats per token.

    python -m benchmarks.far [--clips 20] [--frames 16 48]
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import replace
from random import Random
from typing import Any
from unittest import mock

import numpy as np

import mmkv
from benchmarks.common import save
from benchmarks.resident import judged
from mmkv.answer.context import block_positions
from mmkv.answer.resident_past import FarPast, ResidentPast
from mmkv.models.tiny.questions import ask, random_clip
from mmkv.models.tiny.sample import draw_scene

RECENT = 4
KINDS = ("colour", "shape", "place", "with", "exists", "before", "after", "now")
BITS: dict[str, Any] = {"key_bits": 4, "value_bits": 4}
ORDER: dict[str, Any] = {"retrieve_frames": 64}


def together(blocks: list[Any], origins: list[np.ndarray]) -> np.ndarray:
    """Every block at its own position, its tokens all at one."""
    flat = [np.repeat(o[:, None], b.tokens, axis=1) for b, o in zip(blocks, origins, strict=True)]
    return np.concatenate(flat, axis=1) if flat else block_positions(blocks, origins)


def in_one_place(blocks: list[Any], origins: list[np.ndarray]) -> np.ndarray:
    """All blocks where the first one is, tokens in their order."""
    return block_positions(blocks, [origins[0]] * len(blocks))


def at_one_point(blocks: list[Any], origins: list[np.ndarray]) -> np.ndarray:
    """All tokens where the first one is: a fixed distance, but in full precision."""
    return together(blocks, [origins[0]] * len(blocks))


def run(vlm: mmkv.VideoLM, frames: int, clips: int) -> dict[str, dict[str, float]]:
    """Share of exact answers and mean loss by variant."""
    tokens = int(vlm.tokens_per_frame(64, 64))
    window, recent = 16 * tokens, RECENT * tokens
    middle = recent + (window - recent) // 2
    ordered: dict[str, Any] = {
        "ordinary positions": nullcontext(),
        "frames in order, each at one point": _placed(together),
        "frames in one place, tokens in order": _placed(in_one_place),
        "one point": _placed(at_one_point),
    }
    resident: dict[str, Any] = {
        f"resident K4/V4, as far as the window reaches ({window})": _seen(window),
        f"resident K4/V4, the middle of what it holds beyond ({middle})": _seen(middle),
        f"resident K4/V4, right behind the recent frames ({recent + tokens})": _seen(
            recent + tokens
        ),
    }
    packed = {"ordinary positions, K4/V4": nullcontext()}
    found: dict[str, list[tuple[bool, float]]] = {}
    rng = Random(f"far {frames}")
    for _ in range(clips):
        clip = random_clip(rng, frames)
        asked = [q for kind in KINDS if (q := ask(kind, clip, rng)) is not None]
        pictures = np.random.default_rng(rng.randrange(1 << 30))
        stack = np.stack([draw_scene(scene, pictures) for scene in clip.scenes])
        for settings, variants in (
            (ORDER, ordered),
            ({**ORDER, **BITS}, packed),
            ({"retrieve_frames": "all", **BITS}, resident),
        ):
            config = mmkv.CacheConfig(window_frames=16, recent_frames=RECENT, **settings)
            with vlm.stream(config) as stream:
                stream.feed(stack, [float(i) for i in range(frames)])
                stream.flush()
                for name, patch in variants.items():
                    with patch:
                        rows = [judged(vlm, stream, q.text, q.answer) for q in asked]
                    found.setdefault(name, []).extend(rows)
    return {
        name: {
            "exact": float(np.mean([a for a, _ in rows])),
            "loss": float(np.mean([b for _, b in rows])),
        }
        for name, rows in found.items()
    }


def _placed(where: Any) -> Any:
    return mock.patch("mmkv.answer.retrieval_pass.block_positions", where)


def _seen(distance: int) -> Any:
    original = ResidentPast.see

    def see(self: ResidentPast, *args: Any) -> FarPast:
        return replace(original(self, *args), distance=distance)

    return mock.patch.object(ResidentPast, "see", see)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 48])
    given = parser.parse_args()
    vlm = mmkv.load("mmkv-tiny")
    result: dict[str, Any] = {"clips": given.clips}
    for frames in given.frames:
        rows = run(vlm, frames, given.clips)
        result[f"{frames} frames"] = rows
        print(f"\n{frames} frames, {given.clips} clips, {len(KINDS)} questions each")
        for name, row in rows.items():
            print(f"  {name:60} exact {row['exact']:.0%}  loss {row['loss']:.2f}")
    save("far", result)


if __name__ == "__main__":
    main()
