"""What a stream remembers, and how; checked once, here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from mmkv.config.defaults import MAX_RAM, PAGE_SECONDS
from mmkv.config.policies import UNNAMED, check_score, check_thinning
from mmkv.config.resolved import ResolvedConfig
from mmkv.config.rules import check_focus, check_keep_ratio, check_whole
from mmkv.config.units import parse_bytes, parse_seconds
from mmkv.retrieval.text_image import TextImage

if TYPE_CHECKING:
    from mmkv.codecs import Codec
    from mmkv.eviction import Eviction
    from mmkv.merging import Merge

log = logging.getLogger("mmkv")

_WINDOW, _RECENT, _RETRIEVE, _LANDMARKS = 64, 4, 32, 5
_PROMPT_TOKENS = 64
_DEFAULTS = {  # once parsed
    "max_ram": parse_bytes("max_ram", MAX_RAM),
    "index_bytes": 10**9,
    "snapshot_ram": 10**9,
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CacheConfig:
    """Memory of one stream.

    Attributes:
        window_frames: frames in the sliding window that new frames attend to, at least 1.
            None: 64, or as many as fit the context that the model was trained on.
        recent_frames: newest frames shown to every question, at most `window_frames`. None: 4.
        retrieve_frames: earlier frames a question retrieves in all; 0 answers from the window.
            None: 32, or as many as fit beside the recent ones. "all": the packed past stays on the
            device, and every answer attends to all of it.
        neighbours: frames retrieved along with each best match, on either side; they count
            towards `retrieve_frames`. What came after an event is found by the event's frame.
        retrieve_run: frames that are scored together and retrieved as a run (ReKV's chunks).
        score: how frames are compared with a question: "attention", "mean-key" (ReKV), "cosine";
            see `mmkv.retrieval`. "uniform": not at all, frames are spread evenly over the past.
            "external": by a text-image model, the same in all layers.
        encoder: that model: a Hub id, a local folder, or a `TextImage`.
        landmarks: unusual tokens of each frame whose keys are kept besides the frame's mean key;
            "attention" finds small things by them. Each takes as much of the index as the mean.
            None: 5.
        thumbnails: whether a small JPEG of each frame is kept, for `answer.frames` to show; in
            host memory within `max_ram`, and in the store. None: no.
        codec: how keys and values of the past are packed: a name of `mmkv.codecs.CODECS`, a codec
            of your own, or None for what the bits imply, by default "fp16", which loses nothing.
            With `retrieve_frames="all"` the default is "fitted".
        key_bits: bits per element of packed keys, such as 1.5.
        value_bits: bits per element of packed values, such as 2.
        group_size: tokens that share a scale. None: the codec's, mostly all of a page.
        transform: over channels at 1 bit: "hadamard", "fft" or "none". None: the codec's.
        remove_mean: whether a channel's mean is subtracted before packing. None: the codec's.
        keep_ratio: share of earlier frames' visual tokens that is kept, above 0; 1 keeps all. At
            least one token of every frame and head is kept. The window and recent frames stay
            whole. None: 1.
        eviction: which are kept: a name of `mmkv.eviction.EVICTIONS`, "temporal+" and one of
            them, or a policy of your own. None: "diverse".
        merging: what becomes of the others: a name of `mmkv.merging.MERGINGS`, or a policy.
            None: "none".
        focus: what the frames are watched for, in words, such as "watch the door"; "text-prior"
            and "snapkv" keep what these words attend to, and codec="stp" stores what is similar to
            them (and to the chat template around them) in more bits.
        answer_keep_ratio: share of the retrieved visual tokens that an answer is generated from,
            those that its question attended to most.
        protected_layers: layers packed at `protected_bits` (None: 4) instead; -1 is the last.
        page_tokens: tokens after which frames are packed together; only kept ones count.
            None: 512 where a frame has 128 or more, else 64.
        page_seconds: seconds of the stream after which they are packed in any case.
        max_ram: bytes of host memory for frames that may be retrieved, or a text such as
            "8GB". Beyond it the oldest are forgotten; in a stream with a store, the least recently
            used are then only on disk. None: no limit.
        index_bytes: bytes on the devices for the summaries by which frames are found, or a text;
            older ones are in host memory. None: no limit.
        snapshot_frames: for models with layers that carry a state instead of keys and values:
            frames between two snapshots of it, by which `until=` and stores go back to an earlier
            moment. 0: none are kept, and neither works. None: chosen so that snapshots take about
            as much as what is kept between them.
        snapshot_ram: bytes of host memory for these, or a text; beyond it the oldest are dropped,
            and `until=` reaches back less far. In a stream with a store they are in the store.
            None: no limit.
        max_disk: bytes that a store may take, or a text such as "500GB"; beyond it the oldest
            frames leave it. None: no limit.
        max_age: seconds that a store reaches back, or a text such as "12h" or "7d".
            None: no limit.
        chunk_frames: frames encoded per forward pass, where that many are waiting.

    For a stream that is opened again, None means what its store was made with in all that affects
    what is kept: the window, the codec, `landmarks`, `thumbnails`, and thinning.

    Raises:
        ValueError: a field is out of range; the message says which, the value, and what is allowed.
    """

    window_frames: int | None = None
    recent_frames: int | None = None
    retrieve_frames: int | Literal["all"] | None = None
    neighbours: int = 1
    retrieve_run: int = 1
    score: str = "attention"
    encoder: str | TextImage | None = None
    landmarks: int | None = None
    thumbnails: bool | None = None
    codec: str | Codec | None = None
    key_bits: float | None = None
    value_bits: float | None = None
    group_size: int | None = None
    transform: str | None = None
    remove_mean: bool | None = None
    protected_layers: Sequence[int] | None = None
    protected_bits: float | None = None
    keep_ratio: float | None = None
    eviction: str | Eviction | None = None
    merging: str | Merge | None = None
    focus: str | None = None
    answer_keep_ratio: float = 1.0
    page_tokens: int | None = None
    page_seconds: float = PAGE_SECONDS
    max_ram: int | str | None = MAX_RAM
    index_bytes: int | str | None = "1GB"
    snapshot_frames: int | None = None
    snapshot_ram: int | str | None = "1GB"
    max_disk: int | str | None = None
    max_age: float | str | None = None
    chunk_frames: int = 8

    def __post_init__(self) -> None:
        check_whole("window_frames", self.window_frames, 1, optional=True)
        check_whole("recent_frames", self.recent_frames, 0, optional=True)
        if self.retrieve_frames != "all":
            check_whole("retrieve_frames", self.retrieve_frames, 0, optional=True, also=' or "all"')
        check_whole("neighbours", self.neighbours, 0)
        check_whole("retrieve_run", self.retrieve_run, 1)
        check_whole("landmarks", self.landmarks, 0, optional=True)
        check_whole("chunk_frames", self.chunk_frames, 1)
        check_whole("page_tokens", self.page_tokens, 1, optional=True)
        check_whole("snapshot_frames", self.snapshot_frames, 0, optional=True)
        check_score(self.score, self.encoder)
        check_focus(self.focus)
        check_thinning(self.keep_ratio, self.eviction, self.merging)
        check_keep_ratio("answer_keep_ratio", self.answer_keep_ratio)
        if self.retrieve_frames == "all" and self.answer_keep_ratio < 1:
            raise ValueError(
                f"answer_keep_ratio={self.answer_keep_ratio} thins what a question retrieved, but "
                "retrieve_frames='all' retrieves nothing; leave it out, or set keep_ratio"
            )
        window, recent = self.window_frames, self.recent_frames
        if window is not None and recent is not None and recent > window:
            raise ValueError(
                f"recent_frames={recent} is more than window_frames={window}; recent frames come "
                "from the window, so lower it or widen the window"
            )
        for name in ("max_ram", "index_bytes", "snapshot_ram", "max_disk"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, parse_bytes(name, getattr(self, name)))
        for name in ("page_seconds", "max_age"):
            if name == "page_seconds" or getattr(self, name) is not None:
                object.__setattr__(self, name, parse_seconds(name, getattr(self, name)))

    def __repr__(self) -> str:
        changed = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) != _DEFAULTS.get(field.name, field.default)
        ]
        return f"CacheConfig({', '.join(changed)})"

    def resolve(self, context_tokens: int, tokens_per_frame: float) -> ResolvedConfig:
        """Decide every default, for a model trained on `context_tokens` and its frames' tokens."""
        fit = max(1, int((context_tokens - _PROMPT_TOKENS) / tokens_per_frame))
        recent = min(_RECENT, fit) if self.recent_frames is None else self.recent_frames
        window = self.window_frames
        if window is None:
            window = max(min(_WINDOW, fit), recent)
        if window > fit:
            log.warning(
                "window_frames=%d is more than the %d frames that fit the %d tokens this model "
                "was trained on; answers may suffer",
                window,
                fit,
                context_tokens,
            )
        recent = min(recent, window)
        retrieve, resident = self.retrieve_frames, self.retrieve_frames == "all"
        if retrieve is None or retrieve == "all":
            retrieve = max(1, min(_RETRIEVE, fit - recent))
        named = {name: getattr(self, name) for name in UNNAMED}
        thinning = UNNAMED | {name: value for name, value in named.items() if value is not None}
        return ResolvedConfig(
            window_frames=window,
            recent_frames=recent if retrieve else window,
            retrieve_frames=retrieve,
            neighbours=self.neighbours,
            retrieve_run=self.retrieve_run,
            score=self.score,
            landmarks=_LANDMARKS if self.landmarks is None else self.landmarks,
            thumbnails=bool(self.thumbnails),
            chunk_frames=self.chunk_frames,
            resident=resident,
            codec="fitted" if resident and not self._packed else self.codec,
            key_bits=self.key_bits,
            value_bits=self.value_bits,
            group_size=self.group_size,
            transform=self.transform,
            remove_mean=self.remove_mean,
            protected_layers=self.protected_layers,
            protected_bits=self.protected_bits,
            **thinning,
            focus=self.focus,
            answer_keep_ratio=float(self.answer_keep_ratio),
            page_tokens=self.page_tokens,
            page_seconds=float(self.page_seconds),
            max_ram=None if self.max_ram is None else int(self.max_ram),
            index_bytes=None if self.index_bytes is None else int(self.index_bytes),
            snapshot_frames=self.snapshot_frames,
            snapshot_ram=None if self.snapshot_ram is None else int(self.snapshot_ram),
            max_disk=None if self.max_disk is None else int(self.max_disk),
            max_age=None if self.max_age is None else float(self.max_age),
        )

    @property
    def _packed(self) -> bool:
        """Whether a codec is named or implied."""
        return (self.codec, self.key_bits, self.value_bits) != (None, None, None)
