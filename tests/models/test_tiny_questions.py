"""The small world's questions have one right answer, and its frames show what they say."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
import torch

from mmkv.models.tiny import phrases, questions, world


def clips(n: int, scenes: int) -> list[questions.Clip]:
    rng = Random(n)
    return [questions.random_clip(rng, scenes) for _ in range(n)]


def named_objects(text: str) -> list[int]:
    words = text.replace("?", "").split()
    return [
        world.object_number(f"{a} {b}")
        for a, b in pairwise(words)
        if a in world.COLOUR_NAMES and b in world.SHAPES
    ]


def solve(q: questions.Question, clip: questions.Clip) -> str:
    """Answer by looking at the scenes, from the words of the question alone."""
    whole = " ".join([t for turn in q.turns for t in turn] + [q.text])
    objects = named_objects(whole)
    place = next((i for i, p in enumerate(world.PLACES) if p in q.text), None)
    if q.kind == "exists":
        return "yes" if objects[0] in clip.found else "no"
    if "now" in q.text:
        scene = clip.scenes[-1]
    elif objects:
        ((t, _),) = clip.found[objects[0]]
        scene = clip.scenes[t + {"before": -1, "after": 1}.get(q.kind, 0)]
    else:
        scene = max(clip.scenes, key=lambda s: any(w in q.text for o in s for w in own_words(o)))
    if "how many" in q.text:
        return phrases.NUMBERS[len(questions.shapes_of(scene))]
    if "where" in q.text or "corner" in q.text:
        return world.PLACES[scene.index(objects[0])]
    if q.kind in ("colour", "shape"):
        words = q.text.replace("?", "").split()
        known = next(w for w in words if w in (*world.COLOUR_NAMES, *world.SHAPES[::-1]))
        found = {
            world.object_name(o)
            for s in ([scene] if objects else clip.scenes)
            for o in s
            if o not in objects and known in world.object_name(o).split()
        }
        assert len(found) == 1
        return found.pop().split()[0 if q.kind == "colour" else 1]
    return questions.listing(scene) if place is None else world.object_name(scene[place])


def own_words(o: int) -> list[str]:
    return [] if o == world.EMPTY else world.object_name(o).split()


@pytest.mark.parametrize("kind", [k for k in questions.KINDS if k != "caption"])
def test_every_question_has_the_answer_that_the_scenes_give(kind: str) -> None:
    rng = Random(kind)
    asked = 0
    for clip in clips(60, 6):
        for _ in range(6):
            q = questions.ask(kind, clip, rng)
            if q is not None:
                assert q.answer == solve(q, clip), q
                asked += 1
    assert asked > 60


def test_yes_and_no_are_balanced() -> None:
    rng = Random(0)
    asked = [questions.ask("exists", clip, rng) for clip in clips(400, 8)]
    yes = [q.answer == "yes" for q in asked if q is not None]
    assert 0.42 < sum(yes) / len(yes) < 0.58


def test_a_caption_lists_the_scenes_in_their_order() -> None:
    scene = (world.object_number("red circle"), -1, -1, world.object_number("blue star"))
    clip = questions.Clip((scene, (-1, world.object_number("green ring"), -1, -1)))
    q = questions.ask("caption", clip, Random(0))
    assert q is not None
    assert q.answer == "red circle and blue star then green ring"


def test_a_shape_is_drawn_in_its_own_quadrant_and_colour() -> None:
    bank = world.make_bank(4)
    red = world.object_number("red square")
    frame = world.draw(
        torch.tensor([[-1, -1, red, -1]]), torch.zeros(1, 4, dtype=torch.long), bank,
        torch.Generator().manual_seed(0),
    )[0].float()  # fmt: skip
    redness = frame[0] - frame[1:].mean(0)
    assert (redness[32:, :32] > 100).sum() > 80
    assert (redness[:32] > 100).sum() == 0
    assert (redness[:, 32:] > 100).sum() == 0


def test_detail_lies_in_few_tokens() -> None:
    cover = world.make_bank(32).cover
    shown = (cover > 0.05).sum(-1)
    assert shown.min() >= 1
    assert shown.float().mean() < 3.2
