"""The documentation is true: its examples run, its links lead somewhere, its README is short.

Every ```python block of README.md and docs/ runs, and every `mmkv` line of a ```bash block. Lines
are run with the bundled video and model in place of the reader's own. A webcam or a camera is not
there to be watched, and the page in the browser is served until Ctrl-C: of those lines only the
form is checked. What is not meant to run is an indented block, or names another language.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from mmkv.cli import main
from mmkv.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "kernels" / "README.md"]
README_LINES = 130
TEXT = {page: page.read_text(encoding="utf-8") for page in LINKED}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT[page], flags=re.DOTALL | re.MULTILINE)


def python_blocks() -> list[tuple[str, str]]:
    """Each block's name, file:number, and its code."""
    return [
        (f"{name(page)}:{number}", code)
        for page in PAGES
        for number, code in enumerate(blocks(page, "python"), start=1)
    ]


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("mmkv ")]


def is_live(command: str) -> bool:
    _, command_name, *rest = shlex.split(command)
    return command_name == "demo" or rest[:1] == ["0"] or "://" in command


def sessions() -> list[tuple[str, list[str]]]:
    """Commands of a page that run one after the other, since they name the same store or rows."""
    found: dict[tuple[str, str], list[str]] = {}
    for page in PAGES:
        for command in commands(page):
            if not is_live(command):
                kept = re.search(r"\S+\.(kv|jsonl)\b", command)
                found.setdefault((name(page), kept[0] if kept else command), []).append(command)
    return [(f"{page}: {lines[0]}", lines) for (page, _), lines in found.items()]


def live_commands() -> list[str]:
    return [command for page in PAGES for command in commands(page) if is_live(command)]


def test_there_are_examples() -> None:
    assert len(python_blocks()) >= 3
    assert len(sessions()) >= 5


def test_the_shown_output_of_the_demo_is_the_real_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mmkv", "ask", "sample", "--model", "mmkv-tiny"])
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr().out.splitlines()
    console = blocks(ROOT / "README.md", "console")[0]
    shown = [line for line in console.splitlines() if not line.startswith("$")]
    assert shown[:2] == printed[:2]  # question and answer; the cost differs on every machine
    assert shown[2].partition(";")[0] == printed[2].partition(";")[0]  # where it was found


@pytest.mark.parametrize(
    ("page", "code"), python_blocks(), ids=[where for where, _ in python_blocks()]
)
def test_python_example_runs(page: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, page, "exec"), {"__name__": "example"})
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "session", [lines for _, lines in sessions()], ids=[where for where, _ in sessions()]
)
def test_commands_run(
    session: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in session:
        command = re.sub(r"--model \S+/\S+", "--model mmkv-tiny", command)
        monkeypatch.setattr(sys, "argv", shlex.split(command.replace("my.mp4", "sample")))
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert end.value.code == 0, (command, err)
        assert out, command


@pytest.mark.parametrize("command", live_commands())
def test_live_command_is_understood(command: str) -> None:
    import typer.main

    _, command_name, *rest = shlex.split(command)
    group = typer.main.get_command(app)
    context = group.make_context("mmkv", [command_name, *rest])
    with context:
        group.commands[command_name].make_context(command_name, rest)  # type: ignore[attr-defined]


def prose(text: str) -> str:
    """A page without its code, which may hold what looks like links and headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[\[\]()#]", "", code[0]), text)


def links(page: Path) -> list[str]:
    """Where a page's links and pictures lead, but for other sites."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(TEXT[page]))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(target: Path) -> set[str]:
    """Names of a page's headings that GitHub and MkDocs make alike, so that links work on both."""
    found = set()
    text = prose(target.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#+ +(.+)$", text, flags=re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
        github, mkdocs = re.sub(r"\s", "-", plain), re.sub(r"[-\s]+", "-", plain)
        if github == mkdocs:
            found.add(github)
    return found


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if target.suffix == ".svg":  # the site shows a picture on light pages only, or on dark ones
        return target.exists() and anchor in ("", "only-light", "only-dark")
    return target.exists() and (not anchor or anchor in anchors(target))


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert not [link for link in links(page) if not leads_somewhere(page, link)]


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=name)
def test_pages_of_the_site_link_within_it(page: Path) -> None:
    assert not [link for link in links(page) if link.startswith(("../", "/"))]


def test_the_readme_is_short() -> None:
    assert len(TEXT[ROOT / "README.md"].splitlines()) <= README_LINES
