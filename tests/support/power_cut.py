"""What a strict reading of POSIX leaves of a folder when the power goes.

`Recorder` writes down the file operations that a store makes under a folder. `survivors` makes what
is guaranteed to be there after the first of them: bytes that an fsync or fdatasync of their file
came after, and names that an fsync of their folder came after. All else is taken to be lost, or, to
be as unkind as POSIX allows, taken to be there in another order: see `survivors`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock


@dataclass
class File:
    """A file's bytes, whatever its names are."""

    now: bytearray = field(default_factory=bytearray)
    safe: bytes = b""


@dataclass
class Folder:
    """A folder's entries."""

    now: dict[str, File | Folder] = field(default_factory=dict)
    safe: dict[str, File | Folder] = field(default_factory=dict)


Step = tuple[Callable[..., None], tuple[Any, ...]]


class Recorder:
    """Writes down what is done to files under a folder.

    Attributes:
        steps: what was done, in order. told: (number of steps before it, what was said) of `tell`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps: list[Step] = []
        self.told: list[tuple[int, int]] = []

    def tell(self, blocks: int) -> None:
        """Note that this many blocks were reported as flushed."""
        self.told.append((len(self.steps), blocks))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Wrap the functions of `os` that change files."""
        real = {name: getattr(os, name) for name in _WRAPPED}

        def path_of(number: int) -> str | None:
            path = os.readlink(f"/proc/self/fd/{number}").removesuffix(" (deleted)")
            return self._inside(path)

        def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            there = os.path.lexists(path)
            number: int = real["open"](path, flags, *rest, **named)
            inside = self._inside(path)
            if inside is not None and flags & os.O_CREAT and not there:
                self.steps.append((_create, (inside,)))
            assert inside is None or not flags & os.O_TRUNC
            return number

        def wrote(number: int, pieces: Any, offset: int) -> int:
            done: int = real["pwritev"](number, pieces, offset)
            inside = path_of(number)
            if inside is not None:
                data = b"".join(bytes(piece) for piece in pieces)[:done]
                self.steps.append((_write, (inside, offset, data)))
            return done

        def synced(name: str) -> Callable[[int], None]:
            def sync(number: int) -> None:
                inside = path_of(number)
                if inside is not None:
                    self.steps.append((_sync, (inside,)))

            return sync

        def truncated(number: int, size: int) -> None:
            real["ftruncate"](number, size)
            inside = path_of(number)
            if inside is not None:
                self.steps.append((_truncate, (inside, size)))

        def named(name: str, step: Callable[..., None]) -> Callable[..., None]:
            def call(*paths: Any, **options: Any) -> None:
                real[name](*paths, **options)
                inside = [self._inside(path) for path in paths if not isinstance(path, int)]
                if inside[0] is not None:
                    self.steps.append((step, tuple(inside)))

            return call

        with (
            mock.patch.object(os, "open", opened),
            mock.patch.object(os, "pwritev", wrote),
            mock.patch.object(os, "fsync", synced("fsync")),
            mock.patch.object(os, "fdatasync", synced("fdatasync")),
            mock.patch.object(os, "ftruncate", truncated),
            mock.patch.object(os, "mkdir", named("mkdir", _mkdir)),
            mock.patch.object(os, "replace", named("replace", _rename)),
            mock.patch.object(os, "unlink", named("unlink", _unlink)),
        ):
            yield

    def _inside(self, path: Any) -> str | None:
        """A path relative to the folder; None if it is not in it."""
        path = Path(os.fsdecode(path))
        if path == self.root:
            return "."
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else None


def survivors(steps: list[Step], into: Path, *, early: Callable[[], bool]) -> None:
    """Make what is left on a disk after these steps.

    Args:
        into: an empty folder.
        early: asked of each name and each file that no fsync came after; whether the disk had it
            already, as it may, in any order.
    """
    root = Folder()
    for step, arguments in steps:
        step(root, *arguments)
    _make(root, into, early)


def _make(folder: Folder, into: Path, early: Callable[[], bool]) -> None:
    names = dict(folder.safe)
    for name in sorted({*folder.safe, *folder.now}):
        if folder.safe.get(name) is not folder.now.get(name) and early():
            names.pop(name, None)
            if name in folder.now:
                names[name] = folder.now[name]
    for name, entry in names.items():
        path = into / name
        if isinstance(entry, Folder):
            path.mkdir()
            _make(entry, path, early)
        else:
            path.write_bytes(bytes(entry.now) if early() else entry.safe)


def _at(root: Folder, path: str) -> tuple[Folder, str]:
    *above, name = Path(path).parts
    folder = root
    for part in above:
        inner = folder.now[part]
        assert isinstance(inner, Folder)
        folder = inner
    return folder, name


def _file(root: Folder, path: str) -> File | None:
    folder, name = _at(root, path)
    found = folder.now.get(name)
    assert not isinstance(found, Folder)
    return found


def _create(root: Folder, path: str) -> None:
    folder, name = _at(root, path)
    folder.now[name] = File()


def _mkdir(root: Folder, path: str) -> None:
    folder, name = _at(root, path)
    folder.now[name] = Folder()


def _write(root: Folder, path: str, offset: int, data: bytes) -> None:
    file = _file(root, path)
    if file is not None:
        file.now.extend(bytes(max(0, offset - len(file.now))))
        file.now[offset : offset + len(data)] = data


def _truncate(root: Folder, path: str, size: int) -> None:
    file = _file(root, path)
    if file is not None:
        del file.now[size:]
        file.now.extend(bytes(size - len(file.now)))


def _sync(root: Folder, path: str) -> None:
    entry: File | Folder | None = root
    if path != ".":
        folder, name = _at(root, path)
        entry = folder.now.get(name)
    if isinstance(entry, Folder):
        entry.safe = dict(entry.now)
    elif entry is not None:
        entry.safe = bytes(entry.now)


def _rename(root: Folder, before: str, after: str) -> None:
    (old, name), (new, other) = _at(root, before), _at(root, after)
    new.now[other] = old.now.pop(name)


def _unlink(root: Folder, path: str) -> None:
    folder, name = _at(root, path)
    folder.now.pop(name, None)


_WRAPPED = ("open", "pwritev", "fsync", "fdatasync", "ftruncate", "mkdir", "replace", "unlink")
