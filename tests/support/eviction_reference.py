"""Eviction and merging written a second time, from their descriptions: loops, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from mmkv.archive import CachedBlock
from mmkv.models.block import Layout

Scores = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]


def budget(keep_ratio: float, frames: int, tokens: int) -> int:
    """A page's tokens per head: its share, rounded, at least one of every frame, never too many."""
    return min(frames * tokens, max(frames, math.floor(keep_ratio * frames * tokens + 0.5)))


def counts(scores: np.ndarray, total: int, across: bool) -> list[int]:
    """Tokens that each frame keeps: where the heads' best are on average, or as many of each."""
    heads, frames, tokens = scores.shape
    found = [Fraction(total, frames)] * frames
    if across:
        found = [Fraction(0)] * frames
        for h in range(heads):
            best = {(f, int(scores[h, f].argmax())) for f in range(frames)}
            others = [(f, t) for f in range(frames) for t in range(tokens) if (f, t) not in best]
            others.sort(key=lambda place: -scores[h][place])
            for f, _ in [*best, *others[: total - frames]]:
                found[f] += Fraction(1, heads)
    whole = [math.floor(share) for share in found]
    order = sorted(range(frames), key=lambda f: (whole[f] - found[f], f))
    for f in order[: total - sum(whole)]:
        whole[f] += 1
    return whole


def kept(scores: np.ndarray, per_frame: Sequence[int]) -> np.ndarray:
    """Bool `[H, F, T]`: each frame's best tokens of every head."""
    found = np.zeros(scores.shape, dtype=bool)
    for h in range(scores.shape[0]):
        for f, count in enumerate(per_frame):
            found[h, f, np.argsort(-scores[h, f], kind="stable")[:count]] = True
    return found


def text_prior(key: np.ndarray, value: np.ndarray, mass: np.ndarray | None) -> np.ndarray:
    """A token's attention as a share of its frame's."""
    assert mass is not None
    return mass / mass.sum(axis=2, keepdims=True)


def snapkv(key: np.ndarray, value: np.ndarray, mass: np.ndarray | None) -> np.ndarray:
    """The largest attention within two tokens on either side, in the frame."""
    assert mass is not None
    found = np.zeros(mass.shape)
    for t in range(mass.shape[2]):
        found[:, :, t] = mass[:, :, max(0, t - 2) : t + 3].max(axis=2)
    return found


def change(key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Mean over keys and values of the squared distance to the first frame's token at the same
    place, over the mean squared distance of two tokens of the page; of the first frame's tokens,
    of the squared distance to the page's mean, over what that is on average.
    """
    found = np.zeros(key.shape[:3])
    for states in (key, value):
        for h in range(key.shape[0]):
            flat = states[h].reshape(-1, key.shape[3])
            pairs = ((flat[:, None] - flat[None]) ** 2).sum(axis=2).mean()
            middle = ((flat - flat.mean(axis=0)) ** 2).sum(axis=1)
            apart = ((states[h] - states[h, 0]) ** 2).sum(axis=2) / pairs
            apart[0] = (middle / middle.mean()).reshape(key.shape[1:3])[0]
            found[h] += apart / 2
    return found


def temporal(key: np.ndarray, value: np.ndarray, mass: np.ndarray | None) -> np.ndarray:
    """Any order in which what changed by less than a quarter comes last; in each part by change."""
    moved = change(key, value)
    unique = moved >= 0.25
    unique[:, 0] = True
    return np.where(unique, 1e6 + moved, moved)


def temporal_text(key: np.ndarray, value: np.ndarray, mass: np.ndarray | None) -> np.ndarray:
    """The same, what is new by the text's attention."""
    moved = change(key, value)
    unique = moved >= 0.25
    unique[:, 0] = True
    return np.where(unique, 1e6 + 1e3 * text_prior(key, value, mass), moved)


def diverse(key: np.ndarray, value: np.ndarray, mass: np.ndarray | None) -> np.ndarray:
    """In each frame farthest point sampling over keys and values, each less its mean over the page
    and over its root mean square: how far a token was from the mean and from all taken before it.
    """
    heads, frames, tokens, _ = key.shape
    found = np.zeros(key.shape[:3])
    for h in range(heads):
        sides = [states[h].reshape(frames * tokens, -1) for states in (key, value)]
        sides = [side - side.mean(axis=0) for side in sides]
        sides = [side / np.sqrt((side**2).mean()) for side in sides]
        page = np.concatenate(sides, axis=1).reshape(frames, tokens, -1)
        for f, x in enumerate(page):
            taken = [np.zeros(x.shape[1])]
            left = set(range(tokens))
            while left:
                far = {t: min(((x[t] - y) ** 2).sum() for y in taken) for t in left}
                best = max(left, key=lambda t: far[t])
                found[h, f, best] = far[best]
                taken.append(x[best])
                left.discard(best)
    return found


REFERENCES: dict[str, Scores] = {
    "text-prior": text_prior,
    "snapkv": snapkv,
    "temporal": temporal,
    "temporal+text-prior": temporal_text,
    "diverse": diverse,
}


def folded(
    key: np.ndarray, value: np.ndarray, kept: np.ndarray, evicted: np.ndarray, mode: str
) -> tuple[np.ndarray, np.ndarray]:
    """Merging of one head, `[n, D]`, as LOOK-M describes it."""
    unit = key / np.linalg.norm(key, axis=1, keepdims=True)
    similar = unit[evicted] @ unit[kept].T
    goes, how = similar.argmax(axis=1), similar.max(axis=1)
    outs = []
    for states in (key, value):
        rows = []
        for place, pivot in enumerate(kept):
            mine = evicted[goes == place]
            if mode == "average":
                rows.append(np.mean([states[pivot], *states[mine]], axis=0))
            elif mode == "pivot":
                half = [(states[e] + states[pivot]) / 2 for e in mine]
                rows.append(np.mean([states[pivot], *half], axis=0))
            else:
                cosines = how[goes == place]
                weights = np.where(cosines > how.mean(), np.maximum(cosines, 0), 0)
                total = states[pivot] + (weights[:, None] * states[mine]).sum(axis=0)
                rows.append(total / (1 + weights.sum()))
        outs.append(np.stack(rows))
    return outs[0], outs[1]


def blocks(
    states: Tensor, frames: int, text: tuple[int, int] = (0, 0), mass: Tensor | None = None
) -> list[CachedBlock]:
    """Blocks of equal length out of keys and values `[L, 2, H_kv, F * T, D]`, with so many text
    tokens before and after the visual ones; mass `[L, H_kv, F * T]`.
    """
    size = states.shape[3] // frames
    before, after = tuple(range(text[0])), tuple(range(text[1]))
    layout = Layout(before, after, np.arange(size)[None], (size,))
    return [
        CachedBlock(
            i, i * size, i, 1, (float(i), float(i)), layout, np.array([i * size]),
            states[:, :, :, i * size : (i + 1) * size],
            mass=None if mass is None else mass[:, :, i * size : (i + 1) * size],
        )
        for i in range(frames)
    ]  # fmt: skip


def random_page(
    seed: int, layers: int, heads: int, frames: int, tokens: int, dim: int = 8
) -> tuple[Tensor, Tensor]:
    """Keys and values `[L, 2, H_kv, F * T, D]` in which frames resemble each other, and mass."""
    generator = torch.Generator().manual_seed(seed)
    scene = torch.randn(layers, 2, heads, 1, tokens, dim, generator=generator)
    shape = (layers, 2, heads, frames, tokens, dim)
    moved = torch.rand(layers, 1, heads, frames, tokens, 1, generator=generator) < 0.5
    noise = torch.where(moved, 1.0, 0.1) * torch.randn(shape, generator=generator)
    bias = 5 * torch.randn(layers, 2, heads, 1, 1, dim, generator=generator)
    mass = torch.rand(layers, heads, frames * tokens, generator=generator)
    return (scene + noise + bias).flatten(3, 4), mass
