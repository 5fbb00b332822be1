"""Files that the pages name as inline code are there; no check of links sees them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLES = {"mmkv/retrieval/best_key.py", "mmkv/codecs/int8.py"}  # files a reader would add
FOLDERS = ("mmkv", "kernels", "models", "video", "demos", "benchmarks", "tests", "docs", ".ci")


def named(page: Path) -> list[str]:
    """Paths and names of test files that a page names as inline code."""
    found = []
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text("utf-8")):
        path = code.split()[0].rstrip("/")
        if re.fullmatch(r"[\w.*/-]+\.(py|md|json)", path) or path.startswith(
            tuple(f"{folder}/" for folder in FOLDERS)
        ):
            found.append(path)
    return list(dict.fromkeys(found))


def exists(path: str) -> bool:
    if path in EXAMPLES or any(mark in path for mark in "<…"):
        return True  # or a placeholder
    if "/" in path:
        return bool(list(ROOT.glob(path)))
    if path.startswith(("test_", "kernel_")) or path == "conftest.py":
        return bool(list((ROOT / "tests").rglob(path)))
    return True  # a name without its folder, such as naive.py


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    assert [path for path in named(page) if not exists(path)] == []


def test_the_page_on_kernels_lists_every_operation() -> None:
    page = (ROOT / "docs" / "kernels.md").read_text("utf-8")
    rows = page.split("| folder |")[1].split("\n\n")[0].splitlines()[2:]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    every = {path.parent.name for path in (ROOT / "kernels").glob("*/triton.py")}
    assert listed == every - {"common"}


def defined() -> list[tuple[str, str]]:
    """Files of the glossary, and what is said to be defined in them."""
    page = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    return [
        (path, name)
        for path, names in re.findall(r"`([\w/]+\.py)` \(([^)]*)\)", page)
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", names)
    ]


@pytest.mark.parametrize(("path", "name"), defined())
def test_the_glossary_names_what_a_file_defines(path: str, name: str) -> None:
    code = (ROOT / path).read_text("utf-8")
    assert re.search(rf"^ *(?:class |def )?{name}\b", code, re.MULTILINE), (path, name)
