"""Questions and answers about clips; every question has exactly one right answer.

An object that a question names appears exactly once in the clip (never, for the "no" half of
`exists`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from mmkv.models.tiny.phrases import NUMBERS, PHRASES
from mmkv.models.tiny.world import (
    COLOUR_NAMES,
    EMPTY,
    N_OBJECTS,
    PLACES,
    SHAPES,
    Scene,
    object_name,
)

CAPTION_SCENES = 4  # longest clip that is captioned
CAPTION_SHAPES = 8


@dataclass(frozen=True)
class Clip:
    """Scenes in their order, and where each object was.

    Attributes:
        scenes: one after the other.
        found: for each object number, its `(scene, place)` pairs.
    """

    scenes: tuple[Scene, ...]
    found: dict[int, list[tuple[int, int]]] = field(init=False)  # object -> [(scene, place)]

    def __post_init__(self) -> None:
        found: dict[int, list[tuple[int, int]]] = {}
        for t, scene in enumerate(self.scenes):
            for place, number in enumerate(scene):
                if number != EMPTY:
                    found.setdefault(number, []).append((t, place))
        object.__setattr__(self, "found", found)

    def unique(self) -> list[int]:
        """List the objects that appear exactly once."""
        return [o for o, spots in self.found.items() if len(spots) == 1]


@dataclass(frozen=True)
class Question:
    """One question with its answer.

    Attributes:
        kind: one of `KINDS`.
        text: the question.
        answer: the only right one.
        scenes: those that the answer needs.
        turns: earlier questions and their answers.
    """

    kind: str
    text: str
    answer: str
    scenes: tuple[int, ...]
    turns: tuple[tuple[str, str], ...] = ()


def shapes_of(scene: Scene) -> list[int]:
    """List the objects of a scene in reading order."""
    return [o for o in scene if o != EMPTY]


def listing(scene: Scene) -> str:
    """Name the objects of a scene, such as `"red circle and blue star"`."""
    return " and ".join(object_name(o) for o in shapes_of(scene)) or object_name(EMPTY)


def _say(rng: Random, phrase: str, **names: str) -> str:
    return rng.choice(PHRASES[phrase]).format(**names)


def _pick(rng: Random, clip: Clip) -> tuple[int, int, int] | None:
    """A unique object, its scene and its place."""
    unique = clip.unique()
    if not unique:
        return None
    number = rng.choice(unique)
    return (number, *clip.found[number][0])


def _attribute(rng: Random, clip: Clip, kind: str) -> Question | None:
    """Colour of a shape, or shape of a colour; named alone if unique, else by what is beside it."""
    colours = kind == "colour"
    key: Callable[[int], int] = (
        (lambda o: o % len(SHAPES)) if colours else (lambda o: o // len(SHAPES))
    )

    def name(o: int) -> dict[str, str]:
        return {"s": SHAPES[key(o)]} if colours else {"c": COLOUR_NAMES[key(o)]}

    def reply(o: int) -> str:
        return COLOUR_NAMES[o // len(SHAPES)] if colours else SHAPES[o % len(SHAPES)]

    everything = [(o, t) for t, scene in enumerate(clip.scenes) for o in shapes_of(scene)]
    keys = [key(o) for o, _ in everything]
    alone = [(o, t) for o, t in everything if keys.count(key(o)) == 1]
    if alone and rng.random() < 0.5:
        o, t = rng.choice(alone)
        return Question(kind, _say(rng, f"{kind} alone", **name(o)), reply(o), (t,))
    picked = _pick(rng, clip)
    if picked is None:
        return None
    number, t, _ = picked
    others = [o for o in shapes_of(clip.scenes[t]) if o != number]
    clear = [o for o in others if [key(p) for p in others].count(key(o)) == 1]
    clear = [o for o in clear if key(o) != key(number)]
    if not clear:
        return None
    o = rng.choice(clear)
    text = _say(rng, kind, o=object_name(number), **name(o))
    return Question(kind, text, reply(o), (t,))


def _place(rng: Random, clip: Clip, kind: str) -> Question | None:
    if (picked := _pick(rng, clip)) is None:
        return None
    number, t, place = picked
    return Question(kind, _say(rng, kind, o=object_name(number)), PLACES[place], (t,))


def _other_place(rng: Random, scene: Scene, taken: int | None = None) -> int:
    """A place, more often a filled one."""
    places = [p for p in range(4) if p != taken]
    filled = [p for p in places if scene[p] != EMPTY]
    return rng.choice(filled if filled and rng.random() < 0.8 else places)


def _with(rng: Random, clip: Clip, kind: str) -> Question | None:
    if (picked := _pick(rng, clip)) is None:
        return None
    number, t, place = picked
    p = _other_place(rng, clip.scenes[t], place)
    text = _say(rng, kind, o=object_name(number), p=PLACES[p])
    return Question(kind, text, object_name(clip.scenes[t][p]), (t,))


def _now(rng: Random, clip: Clip, kind: str) -> Question:
    t = len(clip.scenes) - 1
    if rng.random() < 0.35:
        return Question(kind, _say(rng, "now all"), listing(clip.scenes[t]), (t,))
    p = _other_place(rng, clip.scenes[t])
    return Question(kind, _say(rng, kind, p=PLACES[p]), object_name(clip.scenes[t][p]), (t,))


def _neighbour(rng: Random, clip: Clip, kind: str) -> Question | None:
    if (picked := _pick(rng, clip)) is None:
        return None
    number, t, _ = picked
    other = t - 1 if kind == "before" else t + 1
    if not 0 <= other < len(clip.scenes):
        return None
    scene = clip.scenes[other]
    if len(shapes_of(scene)) == 1 and rng.random() < 0.7:
        text = _say(rng, kind, o=object_name(number))
        return Question(kind, text, listing(scene), (t, other))
    p = _other_place(rng, scene)
    text = _say(rng, f"{kind} place", o=object_name(number), p=PLACES[p])
    return Question(kind, text, object_name(scene[p]), (t, other))


def _parts_seen(number: int, clip: Clip) -> bool:
    """Whether an object's colour and its shape both appear in the clip."""
    n = len(SHAPES)
    return any(o // n == number // n for o in clip.found) and any(
        o % n == number % n for o in clip.found
    )


def _exists(rng: Random, clip: Clip, kind: str) -> Question | None:
    if rng.random() < 0.5:
        absent = [o for o in range(N_OBJECTS) if o not in clip.found]
        near = [o for o in absent if _parts_seen(o, clip)]
        absent = near if near and rng.random() < 0.5 else absent
        if not absent:
            return None
        return Question(kind, _say(rng, kind, o=object_name(rng.choice(absent))), "no", ())
    if (picked := _pick(rng, clip)) is None:
        return None
    return Question(kind, _say(rng, kind, o=object_name(picked[0])), "yes", (picked[1],))


def _count(rng: Random, clip: Clip, kind: str) -> Question | None:
    if rng.random() < 0.25:
        t = len(clip.scenes) - 1
        text = _say(rng, "count now")
    else:
        if (picked := _pick(rng, clip)) is None:
            return None
        t = picked[1]
        text = _say(rng, kind, o=object_name(picked[0]))
    return Question(kind, text, NUMBERS[len(shapes_of(clip.scenes[t]))], (t,))


def _caption(rng: Random, clip: Clip, kind: str) -> Question | None:
    total = sum(len(shapes_of(s)) for s in clip.scenes)
    if len(clip.scenes) > CAPTION_SCENES or total > CAPTION_SHAPES:
        return None
    answer = " then ".join(listing(s) for s in clip.scenes)
    return Question(kind, _say(rng, kind), answer, tuple(range(len(clip.scenes))))


def _follow(rng: Random, clip: Clip, kind: str) -> Question | None:
    """A second turn that refers to "it"."""
    if (picked := _pick(rng, clip)) is None:
        return None
    number, t, place = picked
    scene = clip.scenes[t]
    first = (_say(rng, "exists", o=object_name(number)), "yes")
    choice = rng.choice(("with", "place", "count"))
    if choice == "place":
        return Question(kind, _say(rng, "follow place"), PLACES[place], (t,), (first,))
    if choice == "count":
        number_of = NUMBERS[len(shapes_of(scene))]
        return Question(kind, _say(rng, "follow count"), number_of, (t,), (first,))
    if rng.random() < 0.5:
        first = (_say(rng, "place", o=object_name(number)), PLACES[place])
    p = _other_place(rng, scene, place)
    text = _say(rng, "follow with", p=PLACES[p])
    return Question(kind, text, object_name(scene[p]), (t,), (first,))


KINDS: dict[str, Callable[[Random, Clip, str], Question | None]] = {
    "colour": _attribute,
    "shape": _attribute,
    "place": _place,
    "with": _with,
    "now": _now,
    "before": _neighbour,
    "after": _neighbour,
    "exists": _exists,
    "count": _count,
    "caption": _caption,
    "follow": _follow,
}


def ask(kind: str, clip: Clip, rng: Random) -> Question | None:
    """Ask a question of one kind.

    Returns:
        the question, or None where the clip does not allow it (or chance decided against it).
    """
    return KINDS[kind](rng, clip, kind)


def random_clip(rng: Random, scenes: int, *, repeat: float = 0.12, alike: float = 0.4) -> Clip:
    """Draw a clip whose objects are mostly different.

    Args:
        rng: decides.
        scenes: length of the clip.
        repeat: share of objects that may have been drawn before.
        alike: share of short clips with few colours and shapes, so that only both together
            distinguish objects. In the same share of clips of more than 16 scenes every other
            object comes from half of all, so that neighbouring scenes often have one in common.
    """
    deck = list(range(N_OBJECTS))
    if scenes <= 6 and rng.random() < alike:
        colours = rng.sample(range(len(COLOUR_NAMES)), min(8, 2 + scenes))
        shapes = rng.sample(range(len(SHAPES)), min(6, 2 + (scenes + 1) // 2))
        deck = [c * len(SHAPES) + s for c in colours for s in shapes]
    rng.shuffle(deck)
    every = tuple(deck)
    if scenes > 16 and rng.random() < alike:
        repeat, every = 0.5, every[: len(deck) // 2]
        deck = deck[len(deck) // 2 :]
    result = []
    for _ in range(scenes):
        scene = [EMPTY] * 4
        for place in rng.sample(range(4), rng.choices((1, 2, 3, 4), (35, 30, 22, 13))[0]):
            again = len(deck) <= len(every) // 8 or rng.random() < repeat
            number = rng.choice(every) if again else deck.pop()
            if number not in scene:
                scene[place] = number
        if all(o == EMPTY for o in scene):
            scene[rng.randrange(4)] = rng.choice(every)
        result.append((scene[0], scene[1], scene[2], scene[3]))
    return Clip(tuple(result))
