"""What a question gives back."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from mmkv.answer.html import figure, row
from mmkv.answer.retriever import LayerChoice
from mmkv.archive import CachedBlock
from mmkv.archive.blocks import index_of
from mmkv.config.units import clock

_SHOWN = 8  # frames of an answer that a notebook shows


@dataclass(frozen=True, slots=True, repr=False)
class FrameRef:
    """A moment that an answer was given from.

    Attributes:
        index: number of its (first) frame in the stream.
        seconds: its presentation time.
        score: how well it matches the question, standardised per layer and averaged over layers.
        layers: the layers in which it is among the best matches.
        recent: whether it was shown because it is recent, not retrieved.
        thumbnail: a small JPEG of it, where `CacheConfig(thumbnails=True)`; else None.
    """

    index: int
    seconds: float
    score: float
    layers: tuple[int, ...]
    recent: bool = False
    thumbnail: bytes | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        how = "recent" if self.recent else f"of {len(self.layers)} layers"
        picture = ", thumbnail" if self.thumbnail else ""
        at = f"frame {self.index} at {self.seconds:.2f} s"
        return f"<FrameRef {at}: score {self.score:.2f}, {how}{picture}>"

    def _repr_html_(self) -> str:
        return figure(self.thumbnail, clock(self.seconds), repr(self))


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """An answer and where it comes from.

    Attributes:
        text: the answer.
        token_ids: its tokens, the stop token left out.
        finish_reason: "stop", "length" or "cancelled".
        as_of: seconds of the newest frame it may have used.
        frames: what it was answered from, best match first.
        timings: seconds per stage: wait, prefill (of which score, load and unpack), first_token
            (after the question came), decode, total.
        hint: a sentence for the user if the question has words that the model cannot know.
        foreseen: share of the frames read by a layer that the layer before it had chosen as well,
            so that they were read ahead; None where nothing was retrieved.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    as_of: float
    frames: tuple[FrameRef, ...]
    timings: dict[str, float] = field(default_factory=dict)
    hint: str | None = None
    foreseen: float | None = None

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 60 else self.text[:57] + "..."
        end = "" if self.finish_reason == "stop" else f", {self.finish_reason}"
        best = f", best at {self.frames[0].seconds:.1f} s" if self.frames else ""
        seen = f"seen up to {self.as_of:.1f} s, {len(self.frames)} frames"
        return f"<Answer {text!r}: {seen}{best}{end}>"

    def _repr_html_(self) -> str:
        shown = [
            figure(frame.thumbnail, clock(frame.seconds), f"score {frame.score:.2f}")
            for frame in self.frames[:_SHOWN]
        ]
        notes = [f"seen up to {clock(self.as_of)}"] if self.as_of >= 0 else []
        if self.finish_reason != "stop":
            notes.append("cut off" if self.finish_reason == "length" else self.finish_reason)
        if self.hint:
            notes.append(self.hint)
        text = escape(self.text).replace("\n", "<br>")
        small = f"<p><small>{escape('; '.join(notes))}</small></p>"
        return f"<div><p><b>{text}</b></p>{row(shown)}{small}</div>"

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON; without token ids and thumbnails."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "as_of": self.as_of,
            "frames": [
                {
                    "index": f.index,
                    "seconds": f.seconds,
                    "score": f.score,
                    "layers": list(f.layers),
                    "recent": f.recent,
                }
                for f in self.frames
            ],
            "timings": dict(self.timings),
            "hint": self.hint,
            "foreseen": self.foreseen,
        }


def rank(
    choices: Sequence[LayerChoice],
    candidates: Sequence[CachedBlock],
    recent: Sequence[CachedBlock],
    hits: int,
    thumbnail: Callable[[CachedBlock], bytes | None] = lambda block: None,
) -> tuple[FrameRef, ...]:
    """List the blocks in an answer's context as frames, by score and then by number of layers.

    The score, standardised in each layer and averaged, says by how much a layer preferred a block;
    a count of layers alone would let the first layer decide, which knows single words only.

    A recent block is shown in every layer; it counts as a layer's match where its score is among
    the layer's `hits` best, which are retrieved for their score (or among the best half, when
    nothing is retrieved).

    Args:
        hits: see `Retriever.hits`.
        thumbnail: gives a block's small picture, or None.
    """
    scored = [*candidates, *recent]
    scores = np.stack([c.scores for c in choices]) if choices else np.empty((0, 0))  # [L, N]
    scored, unscored = scored[: scores.shape[1]], scored[scores.shape[1] :]
    matches: dict[int, list[int]] = {}  # place among the scored -> layers
    for layer, choice in enumerate(choices):
        for index in choice.chosen:
            matches.setdefault(bisect_left(scored, index, key=index_of), []).append(layer)
    if scored:
        enough = max(1, min(hits or len(scored) // 2, len(scored)))
        bar = np.partition(scores, -enough, axis=1)[:, -enough]
        for i in range(len(candidates), len(scored)):
            matches[i] = np.flatnonzero(scores[:, i] >= bar).tolist()
    frames = [
        FrameRef(
            index=scored[i].frame,
            seconds=scored[i].seconds[0],
            score=float(scores[:, i].mean()),
            layers=tuple(layers),
            recent=i >= len(candidates),
            thumbnail=thumbnail(scored[i]),
        )
        for i, layers in matches.items()
    ]
    frames.sort(key=lambda f: (-f.score, -len(f.layers)))
    frames += [
        FrameRef(b.frame, b.seconds[0], 0.0, (), recent=True, thumbnail=thumbnail(b))
        for b in unscored
    ]
    return tuple(frames)


def unknown_words(words: Sequence[str]) -> str | None:
    """Return a sentence on words that the tokenizer does not know; None if there are none."""
    if not words:
        return None
    listed = ", ".join(repr(word) for word in dict.fromkeys(words))
    return f"this model does not know the words {listed}; the answer may be meaningless"
