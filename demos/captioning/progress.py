"""How far a run has come: videos per hour, and when it will be done.

The rate counts captioned videos, since the first one began: start-up, in which the model is
loaded, is told apart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts of a run.

    Attributes:
        total: videos of this part.
        before: captioned by earlier runs.
        done: captioned by this run.
        failed: failed in this run.
        seconds_of_video: seconds of the videos captioned by this run.
        first_failure: of this run, in words.
        began: when the clock was started, by `time.monotonic`.
        startup: seconds before that in which the model was loaded; None: not known, and in the
            rate.
    """

    total: int
    before: int = 0
    done: int = 0
    failed: int = 0
    seconds_of_video: float = 0.0
    first_failure: str = ""
    began: float = field(default_factory=time.monotonic)
    startup: float | None = None

    def restart(self) -> None:
        """Start the clock anew, once the model is loaded."""
        now = time.monotonic()
        self.startup, self.began = now - self.began, now

    @property
    def elapsed(self) -> float:
        """Seconds since the model was loaded, where that is known."""
        return max(1e-9, time.monotonic() - self.began)

    @property
    def per_hour(self) -> float:
        """Captioned videos per hour of this run."""
        return 3600 * self.done / self.elapsed

    @property
    def left(self) -> int:
        """Videos still to come."""
        return self.total - self.before - self.done - self.failed

    @property
    def eta(self) -> float | None:
        """Seconds until the end, if the rest goes like this; None before the first video."""
        tried = self.done + self.failed
        return self.left * self.elapsed / tried if tried else None

    def line(self, now: str = "") -> str:
        """Format one line: how many, how fast, when done, and what is being done `now`."""
        from mmkv.config.units import counted, took

        parts = [f"{self.before + self.done}/{counted(self.total, 'video')}"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.done:
            parts.append(f"{self.per_hour:.0f} videos/h")
        if self.left and self.eta is not None:
            parts.append(f"ETA {took(self.eta)}")
        return ", ".join(parts) + (f"; {now}" if now else "")
