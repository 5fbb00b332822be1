"""What opening and decoding one visitor's file may take."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of the process that reads a file; there, more means that it is ended.

    Attributes:
        memory_bytes: of address space.
        cpu_seconds: for opening the file, and again for each frame that is chosen from it.
        pixels: of a frame.
        streams: of the file, whatever they hold.
    """

    memory_bytes: int = 4_000_000_000
    cpu_seconds: int = 30
    pixels: int = 40_000_000
    streams: int = 100

    def begin(self) -> None:
        """Set the limits of this process, which may write no file and start with little time."""
        limit("RLIMIT_AS", self.memory_bytes)
        limit("RLIMIT_CORE", 0)
        limit("RLIMIT_FSIZE", 0)
        limit("RLIMIT_NOFILE", 64)
        self.extend()

    def extend(self) -> None:
        """Give this process the time for one more frame."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime) + 1
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (spent + self.cpu_seconds, hard))


def limit(name: str, value: int) -> None:
    """Set a limit of this process, where the system has it."""
    kind: Any = getattr(resource, name, None)
    if kind is None:
        return
    try:
        resource.setrlimit(kind, (value, value))
    except (ValueError, OSError):  # macOS refuses some
        return
