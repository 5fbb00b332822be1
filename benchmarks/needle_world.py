"""Streams of drawn scenes with objects that appear once, and questions about them.

An object can be asked about only where it appears once, and there are no more than 48. So 16 are
kept for needles, 4 for objects seen one to four times and 4 never appear; every
other place in every scene draws from the 24 that are left. A needle's object is thus seen in one
scene of the stream and nowhere else, however long the stream is. Needles stand in groups at each
delay, three scenes apart, and every kind of question is asked about every needle, in wordings that
name it. Scenes hold as many shapes as those of the training clips.

The harder questions need several scenes each. mmkv-tiny was never taught to answer them: what they
show is whether all of the scenes are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch

from mmkv.models.tiny.phrases import NUMBERS
from mmkv.models.tiny.questions import Clip, Question, ask
from mmkv.models.tiny.world import EMPTY, N_OBJECTS, Bank, Scene, draw, object_name

KINDS = ("place", "with", "colour", "shape", "exists", "count", "before", "after", "follow")
HARD = ("order", "two events", "times")
NEEDLES, REPEATED, ABSENT = 16, 4, 4
GAP = 3  # scenes from one needle of a group to the next
_SHAPES = ((1, 2, 3, 4), (35, 30, 22, 13))  # in a scene, and how often


@dataclass(frozen=True)
class Case:
    """A question, its `scenes` numbered within the stream.

    Attributes:
        delay: how many scenes ago its group of needles was; of several, the longest.
    """

    question: Question
    delay: int


@dataclass(frozen=True)
class World:
    """One stream's scenes, and the questions about it."""

    scenes: list[Scene]
    cases: list[Case]


def make_world(seed: int, frames: int, delays: tuple[int, ...]) -> World:
    """A stream of `frames` scenes with needles these delays before its end."""
    rng = Random(f"needles {seed} {frames}")
    deck = rng.sample(range(N_OBJECTS), N_OBJECTS)
    needles, deck = deck[:NEEDLES], deck[NEEDLES:]
    repeated, deck = deck[:REPEATED], deck[REPEATED:]
    absent, fill = deck[:ABSENT], deck[ABSENT:]
    scenes = [_scene(rng, fill) for _ in range(frames)]
    spots: list[tuple[int, int, int]] = []  # scene, delay, object
    each = min(NEEDLES // len(delays), frames // (4 * len(delays)))
    for delay in delays:
        for i in range(each):
            at = max(1, frames - 1 - delay - GAP * (each - 1)) + GAP * i
            number = needles.pop()
            scenes[at] = _scene(rng, fill, number)
            spots.append((at, delay, number))
    taken = {at + step for at, _, _ in spots for step in (-1, 0, 1)}
    free = [t for t in range(frames - max(min(delays), 8)) if t not in taken]
    rng.shuffle(free)
    times = {number: sorted(free.pop() for _ in range(n)) for n, number in enumerate(repeated, 1)
             if n <= len(free)}  # fmt: skip
    for number, places in times.items():
        for at in places:
            others = [o for o in scenes[at] if o in fill]
            scenes[at] = _scene(rng, others or fill, number)
    cases = [
        Case(question, delay)
        for at, delay, number in spots
        for kind in KINDS
        if (question := _about(rng, kind, scenes, at, number, absent)) is not None
    ]
    cases += _order(rng, spots) + _two_events(rng, spots, absent) + _times(frames, times)
    return World(scenes, cases)


def pictures(scenes: list[Scene], bank: Bank, seed: int) -> torch.Tensor:
    """Frames uint8 `[n, 64, 64, 3]`."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.tensor(scenes)
    variant = torch.randint(0, bank.variants, numbers.shape, generator=generator)
    return draw(numbers, variant, bank, generator).permute(0, 2, 3, 1).contiguous()


def _scene(rng: Random, fill: list[int], needle: int | None = None) -> Scene:
    count = min(rng.choices(*_SHAPES)[0], len(fill))
    chosen = rng.sample(fill, count)
    if needle is not None:
        chosen[0] = needle
    scene = [EMPTY] * 4
    for place, number in zip(rng.sample(range(4), count), chosen, strict=True):
        scene[place] = number
    return (scene[0], scene[1], scene[2], scene[3])


def _about(
    rng: Random, kind: str, scenes: list[Scene], at: int, number: int, absent: list[int]
) -> Question | None:
    """A question of this kind that names the needle; None where its scene allows none.

    Half of `exists` asks about an object that never appears.
    """
    if kind == "exists" and rng.random() < 0.5:
        missing = Clip(((rng.choice(absent), EMPTY, EMPTY, EMPTY),))
        while (asked := ask(kind, missing, rng)) is None or asked.answer == "no":
            pass
        return Question(kind, asked.text, "no", ())
    around = Clip(tuple(scenes[at - 1 : at + 2]))
    for _ in range(60):  # wordings are drawn at random, and so is the object they name
        q = ask(kind, around, rng)
        if q is None or not q.scenes or q.scenes[0] != 1:
            continue
        said = " ".join((*(text for text, _ in q.turns), q.text))
        if f" {object_name(number)}" in said:
            needed = tuple(at - 1 + scene for scene in q.scenes)
            return Question(kind, q.text, q.answer, needed, q.turns)
    return None


def _pairs(
    rng: Random, spots: list[tuple[int, int, int]], count: int
) -> list[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """Pairs of needles of different groups, the earlier one first."""
    found = []
    while len(found) < count:
        a, b = sorted(rng.sample(spots, 2))
        if a[1] != b[1]:
            found.append((a, b))
    return found


def _order(rng: Random, spots: list[tuple[int, int, int]]) -> list[Case]:
    cases = []
    for i, (a, b) in enumerate(_pairs(rng, spots, 8)):
        first, then = (a, b) if i % 2 else (b, a)
        text = f"was there a {object_name(first[2])} before the {object_name(then[2])}?"
        asked = Question("order", text, "yes" if i % 2 else "no", (a[0], b[0]))
        cases.append(Case(asked, a[1]))
    return cases


def _two_events(rng: Random, spots: list[tuple[int, int, int]], absent: list[int]) -> list[Case]:
    cases = []
    for i, (a, b) in enumerate(_pairs(rng, spots, 8)):
        other = b[2] if i % 2 else rng.choice(absent)
        scenes = (a[0], b[0]) if i % 2 else (a[0],)
        text = f"was there a {object_name(a[2])} and a {object_name(other)}?"
        asked = Question("two events", text, "yes" if i % 2 else "no", scenes)
        cases.append(Case(asked, a[1]))
    return cases


def _times(frames: int, times: dict[int, list[int]]) -> list[Case]:
    return [
        Case(
            Question(
                "times",
                f"how many {object_name(number)} did you see?",
                NUMBERS[len(places)],
                tuple(places),
            ),
            frames - 1 - places[0],
        )
        for number, places in times.items()
    ]
