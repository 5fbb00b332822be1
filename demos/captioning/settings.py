"""How videos are captioned. Checked once, here."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mmkv.config.cache import CacheConfig
from mmkv.engine.sampling import Sampling

TINY = "mmkv-tiny"
EVERY = 8.0
MEMORY = CacheConfig(key_bits=1.5, value_bits=2, score="uniform", neighbours=0, landmarks=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioning:
    """What is asked of each video.

    Attributes:
        every: seconds of a segment.
        scenes: cut where the picture changes instead (`scenes.py`).
        prompt: asked about each segment while its frames are recent; None: what suits the model.
        summary: asked about the whole video at its end; None: what suits the model; "": nothing.
        fps: frames looked at per second of video.
        max_new_tokens: most tokens of a caption.
        memory: of the stream; by default keys at 1.5 and values at 2 bits, and frames spread
            evenly for the summary.
        reader: "auto", "pyav", "decord" or "opencv".
        live: False: addresses are read in full; None: it is found out whether they are live.

    Raises:
        ValueError: a field is out of range.
    """

    every: float | None = None
    scenes: bool = False
    prompt: str | None = None
    summary: str | None = None
    fps: float = 1.0
    max_new_tokens: int = 128
    memory: CacheConfig = field(default=MEMORY)
    reader: str = "auto"
    live: bool | None = None

    def __post_init__(self) -> None:
        Sampling(max_new_tokens=self.max_new_tokens)
        for name in ("every", "fps"):
            value = getattr(self, name)
            if value is None and name == "every":
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise ValueError(f"{name}={value!r} is not allowed; use a number above 0")
        if self.scenes and self.every is not None:
            raise ValueError(
                f"every={self.every} and scenes=True contradict each other; give one of them"
            )
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError(
                "prompt='' asks nothing; write what a caption should say, or leave it out"
            )

    def for_model(self, name: str) -> Captioning:
        """Decide every default for a model.

        The bundled model was trained on one scene per frame: a segment is one frame, and the
        prompt is the question that it knows about the newest frame.

        Args:
            name: the model's.
        """
        tiny = name == TINY
        every = self.every
        if every is None and not self.scenes:
            every = 1.0 / self.fps if tiny else EVERY
        return replace(
            self,
            every=every,
            prompt=self.prompt or ("What is there now?" if tiny else "Describe what happens."),
            summary=(
                ("Describe the video." if tiny else "Summarise the whole video.")
                if self.summary is None
                else self.summary
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain types, for JSON; of the memory, what differs from a default stream's."""
        ordinary, memory = asdict(CacheConfig()), asdict(self.memory)
        changed = {k: v for k, v in memory.items() if v != ordinary[k]}
        found = {**asdict(self), "memory": {k: _plain(v) for k, v in changed.items()}}
        if self.live is None:  # rows of earlier versions were made without it
            del found["live"]
        return found

    def digest(self, model: str) -> str:
        """Compute 12 characters that differ where the model, or a setting captions need, does."""
        facts = {"model": model, **self.to_dict()}
        text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
