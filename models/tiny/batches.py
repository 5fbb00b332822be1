"""Training batches: clips and many questions on each, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random

import torch
from transformers import PreTrainedTokenizerFast

from mmkv.models.tiny.questions import Clip, Question, ask, random_clip
from mmkv.models.tiny.tokenizer import END, START, SYSTEM
from mmkv.models.tiny.world import (
    COLOUR_NAMES,
    EMPTY,
    N_OBJECTS,
    SHAPES,
    object_name,
    object_number,
)

TOKENS = 16  # visual tokens per frame
IGNORE = -100
IN_RETRIEVAL_LOSS = ("colour", "shape", "exists", "count")


class Encoder:
    """Turns questions into token ids, as the chat template renders them.

    Args:
        tokenizer: that of mmkv-tiny.

    Attributes:
        ids: token ids by word.
        prefix: token ids before the video.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.ids = tokenizer.get_vocab()
        self.prefix = self("{s} system " + SYSTEM + " {e} {s} user")

    def __call__(self, text: str) -> list[int]:
        named = text.replace("?", "").replace("{s}", START).replace("{e}", END)
        return [self.ids[w] for w in named.split()]

    def question(self, q: Question) -> tuple[list[int], list[int], list[int]]:
        """Encode a question with its earlier turns and its answer.

        Returns:
            token ids; labels of the answer's tokens, `IGNORE` elsewhere; and 1 for the user's own
            words, else 0.
        """
        ids: list[int] = []
        probe: list[int] = []
        for i, (text, answer) in enumerate((*q.turns, (q.text, q.answer))):
            words = self(text)
            head = self("{s} user") if i else []
            tail = self("{e} {s} assistant")
            said = self(answer + " {e}")
            ids += head + words + tail + said
            probe += [0] * len(head) + [1] * len(words) + [0] * (len(tail) + len(said))
        labels = [IGNORE] * (len(ids) - len(said)) + said
        return ids, labels, probe


@dataclass
class Batch:
    """`B` clips of `F` frames with `Q` questions each, padded to `L` question tokens.

    Attributes:
        scenes: int64 `[B, F, 4]`, object numbers.
        variant: int64 `[B, F, 4]`, rows of the bank.
        ids: int64 `[B, L]`.
        labels: int64 `[B, L]`.
        block: int64 `[B, L]`, number of the question; -1: padding.
        place: int64 `[B, L]`, position within the question.
        probe: bool `[B, L]`, the user's own words.
        required: bool `[B, Q, F]`, frames that the answer needs.
        needed: bool `[B, Q, F]`, frames of the retrieval loss; none where the kind is left out.
        pointer: int64 `[B, Q]`, token (of L) that names the object asked about; -1: none.
        pointed: bool `[B, Q, F, 4]`, quadrants where that object is.
        told: bool `[B, Q, F]`, frames whose last tokens know the answer.
        asked: int64 `[B, Q]`, the object named by colour and shape; -1: none.
        sought: int64 `[B, Q]`, quadrant of the answer to colour and shape; -1: other kinds.
        known: int64 `[B, Q]`, token (of L) with the known half of that object; -1: none.
        shunned: bool `[B, Q, O]`, objects that frames of other clips may not hold.
        questions: per clip.
    """

    scenes: torch.Tensor
    variant: torch.Tensor
    ids: torch.Tensor
    labels: torch.Tensor
    block: torch.Tensor
    place: torch.Tensor
    probe: torch.Tensor
    required: torch.Tensor
    needed: torch.Tensor
    pointer: torch.Tensor
    pointed: torch.Tensor
    told: torch.Tensor
    asked: torch.Tensor
    sought: torch.Tensor
    known: torch.Tensor
    shunned: torch.Tensor
    questions: list[list[Question]]


def named(q: Question, clip: Clip) -> tuple[int, int, int] | None:
    """Find the object that a question is about.

    Returns:
        index of its last word (turns joined), scene and place; None where it is not unique.
    """
    words = " ".join([t for t, _ in q.turns] + [q.text]).replace("?", "").split()
    for i, (a, b) in enumerate(pairwise(words)):
        if a in COLOUR_NAMES and b in SHAPES:
            spots = clip.found.get(object_number(f"{a} {b}"), [])
            return (i + 1, *spots[0]) if len(spots) == 1 else None
    for i, word in enumerate(words):
        if q.kind in ("colour", "shape") and word in (*COLOUR_NAMES, *SHAPES):
            hits = [s for o, spots in clip.found.items() if word in name_words(o) for s in spots]
            return (i, *hits[0]) if len(hits) == 1 else None
    return None


def known_word(q: Question) -> int | None:
    """Find the word that sets a colour or shape question's object apart from those beside it.

    Returns:
        its index among the question's words, or None.
    """
    words = q.text.replace("?", "").split()
    names = [i for i, (a, b) in enumerate(pairwise(words)) if a in COLOUR_NAMES and b in SHAPES]
    if q.kind not in ("colour", "shape") or not names:
        return None
    rest = [
        i
        for i, word in enumerate(words)
        if word in (*COLOUR_NAMES, *SHAPES) and i not in (names[0], names[0] + 1)
    ]
    return rest[0] if rest else None


def sought(q: Question, clip: Clip) -> int:
    """Find the quadrant of the object whose colour or shape is the answer; -1 for other kinds."""
    if q.kind not in ("colour", "shape"):
        return EMPTY
    words, at = q.text.replace("?", "").split(), known_word(q)
    given = [w for w in words if w in (*COLOUR_NAMES, *SHAPES)] if at is None else [words[at]]
    for place, number in enumerate(clip.scenes[q.scenes[0]]):
        if number != EMPTY and {*name_words(number)} == {q.answer, *given}:
            return place
    return EMPTY


def shunned(q: Question, clip: Clip) -> list[int]:
    """List objects that would make the question ambiguous if another frame showed them too."""
    words = " ".join([t for t, _ in q.turns] + [q.text]).replace("?", "").split()
    named = [n for n in range(N_OBJECTS) if name_words(n) in map(list, pairwise(words))]
    if named or q.kind not in ("colour", "shape"):
        return named
    return [n for n in range(N_OBJECTS) if {*name_words(n)} & {*words}]


def name_words(number: int) -> list[str]:
    """Return an object's colour and shape, such as `["red", "circle"]`."""
    return object_name(number).split()


def questions_for(rng: Random, clip: Clip, weights: dict[str, float], count: int) -> list[Question]:
    """Ask `count` questions about a clip, their kinds drawn by weight."""
    kinds, odds = list(weights), list(weights.values())
    found: list[Question] = []
    while len(found) < count:
        q = ask(rng.choices(kinds, odds)[0], clip, rng)
        if q is not None:
            found.append(q)
    return found


def make_batch(
    rng: Random,
    encoder: Encoder,
    *,
    clips: int,
    frames: int,
    questions: int,
    weights: dict[str, float],
    variants: int,
) -> Batch:
    """Draw a batch of clips whose scenes last one frame each.

    Args:
        rng: decides everything.
        encoder: makes the token ids.
        clips: number of clips, `B`.
        frames: frames of each clip, `F`.
        questions: questions about each clip, `Q`.
        weights: how often each kind of question is asked, in proportion.
        variants: how many drawings there are of each shape.
    """
    all_clips = [random_clip(rng, frames) for _ in range(clips)]
    all_questions = [questions_for(rng, clip, weights, questions) for clip in all_clips]
    scenes = torch.tensor([clip.scenes for clip in all_clips])
    base = torch.randint(variants, scenes.shape, generator=torch_generator(rng))
    encoded = [[encoder.question(q) for q in qs] for qs in all_questions]
    length = max(sum(len(e[0]) for e in es) for es in encoded)
    ids = torch.zeros(clips, length, dtype=torch.long)
    labels = torch.full((clips, length), IGNORE)
    block = torch.full((clips, length), EMPTY)
    place = torch.zeros(clips, length, dtype=torch.long)
    probe = torch.zeros(clips, length, dtype=torch.bool)
    required = torch.zeros(clips, questions, frames, dtype=torch.bool)
    needed = torch.zeros(clips, questions, frames, dtype=torch.bool)
    pointer = torch.full((clips, questions), -1)
    pointed = torch.zeros(clips, questions, frames, 4, dtype=torch.bool)
    asked = torch.full((clips, questions), EMPTY)
    told = torch.zeros(clips, questions, frames, dtype=torch.bool)
    place_sought = torch.full((clips, questions), EMPTY)
    known = torch.full((clips, questions), -1)
    shun = torch.zeros(clips, questions, N_OBJECTS, dtype=torch.bool)
    for b, es in enumerate(encoded):
        ids[b, : sum(len(e[0]) for e in es)] = torch.tensor([i for e in es for i in e[0]])
        at = 0
        for k, (tokens, answer, own) in enumerate(es):
            end = at + len(tokens)
            labels[b, at:end] = torch.tensor(answer)
            block[b, at:end] = k
            place[b, at:end] = torch.arange(len(tokens))
            probe[b, at:end] = torch.tensor(own, dtype=torch.bool)
            q = all_questions[b][k]
            spots = [i for i, mine in enumerate(own) if mine]  # of the user's words
            if (found := named(q, all_clips[b])) is not None:
                word, scene, corner = found
                pointer[b, k] = at + spots[word]
                pointed[b, k, :, corner] = torch.tensor([t == scene for t in range(frames)])
                number = all_clips[b].scenes[scene][corner]
                asked[b, k] = number if object_name(number) in q.text else EMPTY
                answers = scene + (q.kind == "after")
                told[b, k] = torch.tensor([t == answers for t in range(frames)])
            if (other := known_word(q)) is not None:
                known[b, k] = at + spots[other]
            at = end
            place_sought[b, k] = sought(q, all_clips[b])
            shun[b, k, shunned(q, all_clips[b])] = True
            required[b, k] = torch.tensor([t in q.scenes for t in range(frames)])
            if q.kind in IN_RETRIEVAL_LOSS and " now" not in q.text:
                needed[b, k] = required[b, k]
    return Batch(
        scenes, base, ids, labels, block, place, probe, required, needed, pointer, pointed, told,
        asked, place_sought, known, shun, all_questions,
    )  # fmt: skip


def torch_generator(rng: Random) -> torch.Generator:
    """Make a torch generator seeded from a Python one."""
    return torch.Generator().manual_seed(rng.getrandbits(62))
