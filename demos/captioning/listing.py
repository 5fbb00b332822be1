"""Which videos a run is about, and the id of each."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmkv.demos.captioning.list_file import read_list
from mmkv.models.tiny import SAMPLE_VIDEO
from mmkv.video.animation import is_animation
from mmkv.video.redact import redact
from mmkv.video.suffixes import MAYBE_ANIMATED, VIDEOS, passed_over


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
        return cls(id or hashlib.sha256(_bytes(redact(path))).hexdigest()[:16], path)


def listed(named: Sequence[str], list_file: str | None) -> list[Video]:
    """List the videos that are named, those in named folders at any depth, and those of a list.

    Animated pictures are videos. Other pictures of a folder are passed over, which a warning says.

    Args:
        named: paths, addresses and folders.
        list_file: a file that `read_list` reads, with one path a line; "-" is standard input.

    Returns:
        each video once.

    Raises:
        FileNotFoundError: a named file, or the list, does not exist.
        ValueError: a folder has no videos, nothing is named at all, two videos have one id, or
            the list is no text.
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
    return int.from_bytes(hashlib.sha256(_bytes(id)).digest()[:8], "big")


def _bytes(text: str) -> bytes:
    # a file's name may be anything, also no UTF-8
    return text.encode("utf-8", "surrogateescape")


def _named(named: Sequence[str]) -> Iterator[Video]:
    for name in named:
        path = Path(name).expanduser()
        if name == "sample" and not path.exists():
            yield Video.of(str(SAMPLE_VIDEO))
        elif "://" in name:
            yield Video.of(name)
        elif path.is_dir():
            files = [p for p in sorted(path.rglob("*")) if p.is_file()]
            inside = [p for p in files if _is_video(p)]
            others = passed_over(set(files).difference(inside), "videos")
            if not inside:
                raise ValueError(
                    f"{name}: there are no videos in it (looked for {' '.join(VIDEOS)} and "
                    f"animated pictures{'; ' + others if others else ''})"
                )
            if others:
                warnings.warn(f"{name}: {others}", stacklevel=3)
            yield from (Video.of(str(p)) for p in inside)
        elif not path.exists():
            raise FileNotFoundError(
                f"{redact(name)}: no such file or folder; `sample` is the bundled video"
            )
        else:
            yield Video.of(name)


def _is_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    # one that may not be opened is listed, so that the run says why it failed
    return suffix in VIDEOS or (
        suffix in MAYBE_ANIMATED and (not os.access(path, os.R_OK) or is_animation(path))
    )


def _in_list(list_file: str) -> Iterator[Video]:
    for id, path in read_list(list_file):
        yield Video.of(path, id)
