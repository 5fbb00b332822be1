"""Which videos a run is about, and the id of each."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmkv.models.tiny import SAMPLE_VIDEO
from mmkv.video.redact import redact

SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)


@dataclass(frozen=True, slots=True)
class Video:
    """A video of a run.

    Attributes:
        id: by which a rerun recognises it; given in a list, or made from the path.
        path: absolute, or an address.
    """

    id: str
    path: str

    @property
    def shown(self) -> str:
        """The path without a password."""
        return redact(self.path)

    @classmethod
    def of(cls, path: str, id: str | None = None) -> Video:
        """Make a video from its path or address.

        Args:
            path: a path, or an address.
            id: None: made from the path, without passwords.
        """
        if "://" not in path:
            path = os.path.abspath(os.path.expanduser(path))
        return cls(id or hashlib.sha256(redact(path).encode()).hexdigest()[:16], path)


def listed(named: Sequence[str], list_file: str | None) -> list[Video]:
    """List the videos that are named, those in named folders at any depth, and those of a list.

    Args:
        named: paths, addresses and folders.
        list_file: a file with one path a line, with an id and a tab in front if wanted; empty
            lines and lines that begin with # are left out. "-" is standard input.

    Returns:
        each video once.

    Raises:
        FileNotFoundError: a named file, or the list, does not exist.
        ValueError: a folder has no videos, nothing is named at all, or two videos have one id.
    """
    found: dict[str, Video] = {}
    for video in [*_named(named), *([] if list_file is None else _in_list(list_file))]:
        known = found.setdefault(video.id, video)
        if known.path != video.path:
            raise ValueError(
                f"{video.shown} and {known.shown} have the same id {video.id!r}; ids must differ"
            )
    if not found:
        raise ValueError("no videos given; name files or a folder, or use --list FILE")
    return list(found.values())


def shard(videos: Iterable[Video], count: int, index: int) -> list[Video]:
    """Select one part of the videos, by their ids: a video stays in its part if others change.

    Args:
        videos: all of them.
        count: number of parts.
        index: which part, from 0.

    Raises:
        ValueError: there is no such part.
    """
    if count < 1 or not 0 <= index < count:
        raise ValueError(
            f"shard_index={index} of num_shards={count} does not exist; indices begin at 0"
        )
    return [video for video in videos if _number(video.id) % count == index]


def _number(id: str) -> int:
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big")


def _named(named: Sequence[str]) -> Iterator[Video]:
    for name in named:
        path = Path(name).expanduser()
        if name == "sample" and not path.exists():
            yield Video.of(str(SAMPLE_VIDEO))
        elif "://" in name:
            yield Video.of(name)
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise ValueError(f"{name}: there are no videos in it ({' '.join(SUFFIXES)})")
            yield from (Video.of(str(p)) for p in inside if p.is_file())
        elif not path.exists():
            raise FileNotFoundError(
                f"{redact(name)}: no such file or folder; `sample` is the bundled video"
            )
        else:
            yield Video.of(name)


def _in_list(list_file: str) -> Iterator[Video]:
    if list_file == "-":
        text = sys.stdin.read()
    else:
        text = Path(list_file).expanduser().read_text(encoding="utf-8")
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        id, tab, path = line.rpartition("\t")
        yield Video.of(path.strip(), id.strip() if tab else None)
