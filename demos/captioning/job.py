"""What passes between a run and the process that captions for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from mmkv import __version__
from mmkv.demos.captioning.captions import Captions
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.settings import Captioning

TINY = "mmkv-tiny"


@dataclass(frozen=True, slots=True)
class Job:
    """What is the same for every video of a run.

    Attributes:
        settings: how videos are captioned.
        model: a name for `mmkv.load`.
        loading: its other arguments.
        threads: of torch on a CPU; None: torch's default.
        debug: print tracebacks.
    """

    settings: Captioning
    model: str = TINY
    loading: dict[str, Any] = field(default_factory=dict)
    threads: int | None = None
    debug: bool = False

    @property
    def digest(self) -> str:
        """A digest of everything that captions depend on."""
        named = [self.model, *(str(self.loading.get(key, "")) for key in ("revision", "dtype"))]
        named.append(str(self.loading.get("max_pixels", "")))
        return self.settings.for_model(self.model).digest("|".join(named))

    def row(self, video: Video, captions: Captions) -> dict[str, Any]:
        """Make a video's row of the output."""
        return {
            "id": video.id,
            "path": video.shown,
            "model": self.model,
            "config_hash": self.digest,
            **captions.to_dict(),
            "config": self.settings.for_model(self.model).to_dict(),
            "mmkv": __version__,
        }

    def failure(self, video: Video, failure: Failure) -> dict[str, Any]:
        """Make the row of a video that failed, for the file of errors."""
        return {
            "id": video.id,
            "path": video.shown,
            "kind": failure.kind,
            "reason": failure.reason,
            "model": self.model,
            "config_hash": self.digest,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a video has no captions.

    Attributes:
        kind: "video", "timeout", "stalled", "died", "memory" (the host's) or "error".
        reason: one sentence.
    """

    kind: str
    reason: str


class CaptioningError(ValueError):
    """Nothing can be captioned at all, for example because the model cannot be loaded."""
