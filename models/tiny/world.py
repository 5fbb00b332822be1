"""The world of mmkv-tiny: dark frames that hold up to four coloured shapes, one per quadrant.

A scene is four object numbers, one per quadrant (top left, top right, bottom left, bottom right);
an object number is `colour * len(SHAPES) + shape`, and -1 is an empty quadrant. A shape covers 12
to 20 of a frame's 64 pixels, that is one to four of the frame's 16 visual tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "green": (30, 170, 50),
    "blue": (45, 75, 235),
    "yellow": (235, 225, 40),
    "orange": (245, 130, 15),
    "purple": (155, 45, 195),
    "cyan": (45, 215, 225),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
PLACES = ("top left", "top right", "bottom left", "bottom right")
NOTHING = "nothing"
COLOUR_NAMES = tuple(COLOURS)
N_OBJECTS = len(COLOURS) * len(SHAPES)
EMPTY = -1

FRAME = 64  # pixels per side
QUADRANT = FRAME // 2
CELL = 16  # pixels per side of one visual token
SIZES = (12.0, 20.0)  # pixels, smallest and largest shape

Scene = tuple[int, int, int, int]


def object_name(number: int) -> str:
    """Name an object number, such as `"red circle"`; an empty quadrant is `"nothing"`."""
    if number == EMPTY:
        return NOTHING
    return f"{COLOUR_NAMES[number // len(SHAPES)]} {SHAPES[number % len(SHAPES)]}"


def object_number(name: str) -> int:
    """Return the object number of a name such as `"red circle"`."""
    colour, shape = name.split()
    return COLOUR_NAMES.index(colour) * len(SHAPES) + SHAPES.index(shape)


def inside(shape: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Say whether points lie inside a shape.

    Args:
        shape: index in `SHAPES`.
        u: to the right; the shape spans [-1, 1].
        v: downwards, the same way.
    """
    name = SHAPES[shape]
    r = np.hypot(u, v)
    if name == "circle":
        return r < 1
    if name == "square":
        return np.maximum(np.abs(u), np.abs(v)) < 0.88
    if name == "triangle":
        return (v < 0.85) & (np.abs(u) < (v + 1) / 1.85)
    if name == "cross":
        a, b = np.abs(u), np.abs(v)
        return (np.minimum(a, b) < 0.32) & (np.maximum(a, b) < 1)
    if name == "ring":
        return (r < 1) & (r > 0.52)
    # star: fold the angle onto one edge from an outer point (1, 0) to an inner point
    fold = 2 * np.pi / 5
    angle = np.abs(np.mod(np.arctan2(u, -v) + fold / 2, fold) - fold / 2)
    x, y = r * np.cos(angle), r * np.sin(angle)
    inner = 0.42
    ex, ey = inner * np.cos(fold / 2) - 1, inner * np.sin(fold / 2)
    return ex * y - ey * (x - 1) > 0


def shape_mask(
    shape: int, size: float, x: float, y: float, *, scale: int = 1, sub: int = 4
) -> np.ndarray:
    """Compute how much of each pixel of one quadrant a shape covers.

    Args:
        shape: index in `SHAPES`.
        size: width, in pixels of the 64-pixel frame.
        x: of the centre, in the same pixels.
        y: of the centre, in the same pixels.
        scale: how many times finer the result is.
        sub: points per pixel and side that are averaged.

    Returns:
        float32 `[32 * scale, 32 * scale]` in [0, 1].
    """
    n = QUADRANT * scale
    grid = (np.arange(n * sub, dtype=np.float32) + 0.5) / (scale * sub)
    u, v = np.meshgrid((grid - x) * 2 / size, (grid - y) * 2 / size)
    hits = inside(shape, u, v).astype(np.float32)
    return hits.reshape(n, sub, n, sub).mean(axis=(1, 3))


@dataclass(frozen=True)
class Bank:
    """Shapes drawn in advance, so that drawing a frame is one lookup per quadrant.

    Attributes:
        masks: uint8 `[len(SHAPES), K, 32, 32]`; 255: covered.
        cover: float32 `[len(SHAPES), K, 4]`, covered share of each visual token.
    """

    masks: torch.Tensor
    cover: torch.Tensor

    @property
    def variants(self) -> int:
        """Drawings per shape (sizes and positions)."""
        return self.masks.shape[1]


def random_placement(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw the size and centre, in pixels, of a shape that stays one pixel inside its quadrant."""
    size = float(rng.uniform(*SIZES))
    low, high = size / 2 + 1, QUADRANT - size / 2 - 1
    return size, float(rng.uniform(low, high)), float(rng.uniform(low, high))


def make_bank(variants: int = 256, seed: int = 0) -> Bank:
    """Draw `variants` sizes and positions of every shape."""
    rng = np.random.default_rng(seed)
    masks = np.stack(
        [
            np.stack([shape_mask(s, *random_placement(rng)) for _ in range(variants)])
            for s in range(len(SHAPES))
        ]
    )
    half = QUADRANT // 2
    cover = masks.reshape(len(SHAPES), variants, 2, half, 2, half).mean(axis=(3, 5))
    return Bank(
        torch.from_numpy((masks * 255).round().astype(np.uint8)),
        torch.from_numpy(cover.reshape(len(SHAPES), variants, 4)),
    )


def draw(
    scenes: torch.Tensor, variant: torch.Tensor, bank: Bank, generator: torch.Generator
) -> torch.Tensor:
    """Draw frames with the small variations that a compressed video has.

    Args:
        scenes: int64 `[N, 4]`, object numbers.
        variant: int64 `[N, 4]`, rows of the bank.
        bank: shapes drawn in advance.
        generator: decides the variations.

    Returns:
        uint8 `[N, 3, 64, 64]`.
    """
    n = len(scenes)
    palette = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
    there = scenes >= 0
    number = scenes.clamp(min=0)
    masks = bank.masks[number % len(SHAPES), variant].float() / 255  # [N, 4, 32, 32]
    masks = masks * there[..., None, None]
    alpha = masks.view(n, 2, 2, QUADRANT, QUADRANT).transpose(2, 3).reshape(n, 1, FRAME, FRAME)
    paint = palette[number // len(SHAPES)]  # [N, 4, 3]
    paint = paint + torch.randn(paint.shape, generator=generator) * 8
    paint = paint.view(n, 2, 2, 3).permute(0, 3, 1, 2)
    paint = paint.repeat_interleave(QUADRANT, 2).repeat_interleave(QUADRANT, 3)
    ground = torch.rand(n, 1, 1, 1, generator=generator) * 45 + 12
    ground = ground + torch.randn(n, 3, 1, 1, generator=generator) * 4
    gain = 1 + torch.randn(n, 1, 1, 1, generator=generator) * 0.04
    noise = torch.randn(n, 3, FRAME, FRAME, generator=generator)
    noise = noise * torch.rand(n, 1, 1, 1, generator=generator) * 5
    frame = (ground + alpha * (paint - ground)) * gain + noise
    return frame.round().clamp(0, 255).to(torch.uint8)
