"""How large and how old a store may become: whole segments are dropped, the oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmkv.store.segment import Segment

_SEGMENT_BYTES = 1 << 30
_PARTS = 16  # segments per limit, so that a store exceeds it by at most one of them


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a store; None: no limit.

    Attributes:
        max_disk: bytes that the store may take.
        max_age: how far it may reach back, in seconds of the stream.
    """

    max_disk: int | None = None
    max_age: float | None = None

    @property
    def segment_bytes(self) -> int:
        """Bytes after which a new segment is begun."""
        if self.max_disk is None:
            return _SEGMENT_BYTES
        return min(_SEGMENT_BYTES, self.max_disk // _PARTS)

    @property
    def segment_seconds(self) -> float | None:
        """Seconds of the stream after which a new segment is begun."""
        return None if self.max_age is None else self.max_age / _PARTS


@dataclass(slots=True)
class Held:
    """A segment of the store.

    Attributes:
        first, stop: numbers of its first block and of the one after its last.
        oldest, newest: times of its first and last frame, in seconds.
        nbytes: size of its files.
    """

    segment: Segment
    first: int
    stop: int
    oldest: float
    newest: float
    nbytes: int


def expendable(held: Sequence[Held], limits: Limits, keep: int) -> int:
    """How many of the oldest segments must go; those with blocks from number `keep` on stay."""
    count, now = 0, held[-1].newest if held else 0.0
    size = sum(one.nbytes for one in held)
    for one in held[:-1]:
        large = limits.max_disk is not None and size > limits.max_disk
        old = limits.max_age is not None and now - one.newest > limits.max_age
        if one.stop > keep or not (large or old):
            break
        size -= one.nbytes
        count += 1
    return count
