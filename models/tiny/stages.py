"""The curricula of mmkv-tiny and its sibling: what a training stage sees, and when it is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sees = Literal["words", "frames"]


@dataclass(frozen=True)
class Stage:
    """One stage of language model training.

    A stage ends at `goal` exact answers (mean over kinds of each kind's running mean) or after
    `steps`.

    Attributes:
        name: also of its file in the work folder.
        sees: "words" writes visual tokens as sums of word embeddings (no vision tower runs);
            "frames" shows drawn frames.
        frames: clip lengths, one drawn per step.
        steps: most steps.
        rate: learning rate.
        goal: share of exact answers that ends the stage; above 1: only `steps` does.
        clips: clips per step, over all processes.
        questions: questions about each clip.
        retrieval: weight of the retrieval loss.
        pointer: weight of the pointer loss.
        company: weight of what visual tokens should know of their frames.
        looked: weight of what names should know of the frames they looked at.
        retrieve: frames chosen in clips longer than this and the recent ones, one drawn per step.
        helped: share of questions that are shown what they need, whatever they find.
        crowded: share of questions whose past holds the batch's other clips too; of the hybrid
            family, that go on from the recurrent states of another clip.
        hidden: share of questions that have to do with what the recurrent states hold of all but
            the newest scenes; the hybrid family's.
        carried: share of steps whose clips go on from the states that those of the step before
            left; the hybrid family's.
        leave_out: kinds that are not asked.
        twice: kinds asked twice as often, for each time they are named.
        train_words: whether word embeddings are trained.
    """

    name: str
    sees: Sees
    frames: tuple[int, ...]
    steps: int
    rate: float
    goal: float = 1.01
    clips: int = 32
    questions: int = 12
    retrieval: float = 0.0
    pointer: float = 0.0
    company: float = 0.0
    looked: float = 0.0
    retrieve: tuple[int, ...] = (12,)
    helped: float = 0.5
    crowded: float = 0.0
    hidden: float = 0.0
    carried: float = 0.0
    leave_out: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    train_words: bool = False


STAGES: tuple[Stage, ...] = (
    Stage(
        "words-2", "words", (1, 2, 3), 900, 2e-3, 0.92, clips=16, pointer=0.3,
        leave_out=("follow",), train_words=True,
    ),
    Stage("video-6", "frames", (2, 3, 4, 6), 500, 2e-3, 0.95, clips=16, pointer=0.3),
    Stage(
        "video-8", "frames", (2, 4, 8), 500, 2e-3, 0.95, clips=16, pointer=0.4, company=0.5,
    ),
    Stage(
        "video-8b", "frames", (2, 3, 5, 8), 400, 2e-3, 0.95, clips=16, pointer=0.5, company=0.3,
    ),
    Stage(
        "video-16", "frames", (2, 4, 8, 16), 400, 2e-3, clips=16, pointer=0.2, company=0.15,
        retrieval=0.3,
    ),
    Stage(
        "video-16b", "frames", (2, 5, 10, 16), 430, 1.5e-3, clips=16, pointer=0.2, company=0.1,
        retrieval=1.0,
    ),
    Stage(
        "video-16d", "frames", (3, 4, 8, 16), 700, 2e-3, clips=16, pointer=0.2, company=0.1,
        retrieval=0.3,
    ),
    Stage(
        "stream-32", "frames", (3, 4, 8, 16, 24, 32), 1000, 2e-3, clips=16, pointer=0.15,
        company=0.05, retrieval=1.0, retrieve=(6, 8, 12),
    ),
    Stage(
        "stream-32b", "frames", (4, 8, 16, 16, 32), 1400, 1.5e-3, clips=16, pointer=0.3,
        company=0.05, retrieval=0.6, retrieve=(8, 12, 12), helped=0.3,
    ),
    Stage(
        "stream-32c", "frames", (3, 4, 8, 16, 16, 32), 900, 1.5e-3, clips=16, pointer=0.3,
        company=0.05, looked=0.2, retrieval=0.5, retrieve=(8, 12, 12), helped=0.3,
        twice=("colour", "shape", "caption"),
    ),
    Stage(
        "stream-32d", "frames", (3, 4, 4, 8, 16, 16, 32, 32), 900, 1.5e-3, clips=16, pointer=0.3,
        company=0.05, looked=0.3, retrieval=0.5, retrieve=(8, 8, 12), helped=0.4, crowded=0.6,
        twice=("colour", "shape", "caption"),
    ),
    Stage(
        "stream-32e", "frames", (3, 4, 4, 8, 16, 16, 32, 32), 700, 1.5e-3, clips=16, pointer=0.3,
        company=0.05, looked=0.4, retrieval=0.5, retrieve=(8, 8, 12), helped=0.4, crowded=0.6,
        twice=("colour", "shape", "caption"),
    ),
    Stage(
        "stream-32f", "frames", (4, 4, 8, 16, 16, 32), 400, 1e-3, clips=16, pointer=0.3,
        company=0.05, looked=0.5, retrieval=0.5, retrieve=(8, 8, 12), helped=0.4, crowded=0.6,
        twice=("shape", "shape", "caption", "caption"),
    ),
)  # fmt: skip

_CLIPS = ("caption", "follow", "before", "after")  # not taught to the hybrid model

HYBRID_STAGES: tuple[Stage, ...] = (
    Stage(
        "words-1", "words", (1, 1, 2), 400, 3e-3, clips=8, questions=8, pointer=0.3, company=0.3,
        leave_out=_CLIPS, train_words=True,
    ),
    Stage(
        "words-2", "words", (1, 2, 3), 700, 3e-3, 0.92, clips=8, questions=8, pointer=0.3,
        company=0.3, leave_out=_CLIPS, train_words=True,
    ),
    Stage(
        "words-8", "words", (2, 4, 6, 8), 450, 3e-3, 0.96, clips=8, questions=12, pointer=0.3,
        company=0.2, crowded=0.3, leave_out=_CLIPS,
    ),
    Stage(
        "frames-8", "frames", (2, 4, 8, 8), 350, 2e-3, clips=8, questions=12, pointer=0.3,
        company=0.2, crowded=0.5, leave_out=_CLIPS, twice=("with",),
    ),
    Stage(
        "frames-8b", "frames", (3, 6, 8, 8), 500, 3e-3, clips=8, questions=16, pointer=0.3,
        company=0.2, hidden=0.25, crowded=0.2, carried=0.8, leave_out=_CLIPS,
        twice=("with", "colour", "shape"),
    ),
)  # fmt: skip
