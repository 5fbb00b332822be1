"""Frames of a store that can no longer be read, in words."""

from __future__ import annotations

from dataclasses import dataclass

from mmkv.archive.blocks import CachedBlock

_MOST = 8  # causes of one loss that are named


@dataclass(frozen=True, slots=True)
class Loss:
    """Frames `first` to `stop - 1`, which are lost.

    Attributes:
        first: the first of them; None where it is not known.
        stop: the one after the last; None where nothing readable follows.
        since: seconds of the frame before them; None where nothing comes before.
        until: seconds of the frame after them; None where nothing readable follows.
        why: what is wrong with which file.
    """

    first: int | None
    stop: int | None
    since: float | None
    until: float | None
    why: str

    @classmethod
    def none(cls, why: str) -> Loss:
        """No frames, though something is wrong."""
        return cls(0, 0, None, None, why)

    def __str__(self) -> str:
        if self.stop == 0:
            frames = "no frames"
        elif self.stop is None:
            frames = f"frames from {self.first or 0} on"
        elif self.first is None:
            frames = f"frames up to {self.stop - 1}"
        elif self.stop == self.first + 1:
            frames = f"frame {self.first}"
        else:
            frames = f"frames {self.first} to {self.stop - 1}"
        after = None if self.since is None else f"after {self.since:.2f} s"
        before = None if self.until is None else f"before {self.until:.2f} s"
        times = " and ".join(filter(None, (after, before)))
        return f"{frames}{f' ({times})' if times else ''}: {self.why}"


class Ledger:
    """Follows pages as they are read, and records what is missing between them."""

    def __init__(self) -> None:
        self.losses: list[Loss] = []
        self._block: int | None = 0  # the next one; None: not known
        self._last: CachedBlock | None = None
        self._why: list[str] = []

    def damage(self, why: str) -> None:
        """Record that something cannot be read where the next page would be."""
        if why in self._why:
            return
        if len(self._why) < _MOST:
            self._why.append(why)
        elif len(self._why) == _MOST:
            self._why.append("and more")

    @property
    def next(self) -> int:
        """Number of the block after the last one that was read; 0 if none was."""
        return 0 if self._last is None else self._last.index + 1

    @property
    def damaged(self) -> bool:
        """Whether something cannot be read where the next page would be."""
        return bool(self._why)

    def skip_to(self, first: int | None) -> None:
        """Record that blocks before this one were dropped on purpose; None: not known which."""
        if self._last is None:
            self._block = first

    def read(self, blocks: list[CachedBlock], why: str) -> None:
        """Record that a page was read.

        Args:
            why: the reason to give if pages before it are missing and nothing else is known.
        """
        begin, expected = blocks[0], self._block
        if expected is None or begin.index > expected:
            first = None
            if expected is not None:
                first = begin.frame - (begin.index - expected) * begin.frames
            since = None if self._last is None else self._last.seconds[1]
            reason = "; ".join(self._why) or why
            self.losses.append(Loss(first, begin.frame, since, begin.seconds[0], reason))
        self._why.clear()
        self._last, self._block = blocks[-1], blocks[-1].index + 1

    @property
    def tail(self) -> Loss | None:
        """What is missing after the last page that was read."""
        if not self._why:
            return None
        last, why = self._last, "; ".join(self._why)
        if last is None:
            return Loss(None, None, None, None, why)
        return Loss(last.frame + last.frames, None, last.seconds[1], None, why)
