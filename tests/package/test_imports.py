"""Imports run downwards: a frame's road in and a question's road out can be read from the top.

All imports are read, also those inside functions and those for type checkers only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("mmkv", "video", "kernels", "models", "demos")

# from the top; what stands in one line may import each other, but no two files in a circle
ORDER = [
    {"cli", "demos", "__main__"},
    {"__init__", "loading", "video_lm"},  # the public door
    {"session"},
    {"answer"},
    {"encode"},
    {"store"},
    {"archive", "config", "eviction"},
    {"codecs", "retrieval", "merging", "engine"},
    {"kernels", "models", "video"},
    {"registry", "version"},
]

# A `Stream` offers what these files make of it, and they take the stream that they belong to.
FACADES = {
    ("mmkv.session.stream", name)
    for name in (
        "mmkv.session.ask_every",
        "mmkv.session.chat",
        "mmkv.session.encode_source",
        "mmkv.session.feed",
    )
}


def sources() -> dict[str, Path]:
    """Every file of the package by its import name."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if folder == "mmkv" and len(parts) > 1 and parts[1] in FOLDERS:
                continue  # a link to one of the others
            if folder != "mmkv":
                parts.insert(0, "mmkv")
            if parts[-1] == "__init__":
                parts.pop()
            found[".".join(parts)] = path
    return found


SOURCES = sources()


def imported(path: Path) -> Iterator[str]:
    """Files of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in SOURCES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in SOURCES:
                    yield whole
                elif node.module in SOURCES:
                    yield node.module


IMPORTS = {name: set(imported(path)) - {name} for name, path in SOURCES.items()}


def level(name: str) -> int:
    role = name.split(".")[1] if "." in name else "__init__"
    (found,) = [i for i, roles in enumerate(ORDER) if role in roles]
    return found


def test_every_package_has_a_place_in_the_order() -> None:
    assert {level(name) for name in SOURCES} == set(range(len(ORDER)))


def test_nothing_imports_what_stands_above_it() -> None:
    upwards = [(n, o) for n, others in IMPORTS.items() for o in others if level(o) < level(n)]
    assert upwards == []


def test_no_two_files_import_each_other_in_a_circle() -> None:
    left = {
        name: {i for i in others if (name, i) not in FACADES} for name, others in IMPORTS.items()
    }
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


def test_every_facade_is_still_one() -> None:
    for above, below in FACADES:
        assert below in IMPORTS[above]
        assert above in IMPORTS[below]
