"""What one visitor may take."""

from __future__ import annotations

from dataclasses import dataclass

from mmkv.config.units import parse_bytes, parse_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a server, checked once.

    Attributes:
        sessions: visitors with a video at the same time; others wait in a queue.
        stream_seconds: how much of a video, or of a camera, is watched.
        upload_bytes: largest file.
        disk_bytes: file and stored stream of one session together.
        ram_bytes: host memory for one session's earlier frames.
        idle_seconds: without a sign of the visitor, until a session ends and is deleted.
        leave_seconds: after a page was closed, until its session ends; a reload before that finds
            everything again.
        question_chars: longest question.
        answer_tokens: longest answer.

    Raises:
        ValueError: a field is out of range.
    """

    sessions: int = 4
    stream_seconds: float = 2 * 3600.0
    upload_bytes: int = 500_000_000
    disk_bytes: int = 2_000_000_000
    ram_bytes: int = 1_000_000_000
    idle_seconds: float = 600.0
    leave_seconds: float = 15.0
    question_chars: int = 500
    answer_tokens: int = 256

    def __post_init__(self) -> None:
        for name in ("sessions", "question_chars", "answer_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name}={value!r} is not allowed; use a whole number of 1 or more"
                )
        for name in ("upload_bytes", "disk_bytes", "ram_bytes"):
            object.__setattr__(self, name, parse_bytes(name, getattr(self, name)))
        for name in ("stream_seconds", "idle_seconds", "leave_seconds"):
            object.__setattr__(self, name, parse_seconds(name, getattr(self, name)))
        if self.disk_bytes <= self.upload_bytes:
            raise ValueError(
                f"disk_bytes={self.disk_bytes} has to be more than upload_bytes="
                f"{self.upload_bytes}: a session's disk holds the file and the stream"
            )
