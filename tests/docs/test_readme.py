"""The README's examples run: every ```python block, and every `mmkv` line of a ```bash block.

Lines are run with the bundled video and model in place of the reader's own; a webcam or a camera
is not there to be watched, so of those lines only the form is checked.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from mmkv.cli import main
from mmkv.cli.app import app

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("mmkv ")]


def is_live(command: str) -> bool:
    return shlex.split(command)[2] == "0" or "://" in command


def sessions() -> list[list[str]]:
    """Commands that run one after the other, since they name the same store or the same rows."""
    found: dict[str, list[str]] = {}
    for command in commands():
        if not is_live(command):
            kept = re.search(r"\S+\.(kv|jsonl)\b", command)
            found.setdefault(kept[0] if kept else command, []).append(command)
    return list(found.values())


def test_there_are_examples() -> None:
    assert len(blocks("python")) >= 3
    assert len(commands()) >= 5


@pytest.mark.skipif(not blocks("console"), reason="the README shows no output yet")
def test_the_shown_output_of_the_demo_is_the_real_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mmkv", "ask", "sample", "--model", "mmkv-tiny"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().out.splitlines()
    shown = [line for line in blocks("console")[0].splitlines() if not line.startswith("$")]
    assert shown[:2] == told[:2]  # question and answer; what it cost differs on every machine
    assert shown[2].partition(";")[0] == told[2].partition(";")[0]  # where it was found


@pytest.mark.parametrize("code", blocks("python"), ids=range(len(blocks("python"))))
def test_python_example_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out


@pytest.mark.parametrize("session", sessions(), ids=lambda session: session[0])
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


@pytest.mark.parametrize("command", [c for c in commands() if is_live(c)])
def test_live_command_is_understood(command: str) -> None:
    import typer.main

    _, name, *rest = shlex.split(command)
    group = typer.main.get_command(app)
    context = group.make_context("mmkv", [name, *rest])
    with context:
        group.commands[name].make_context(name, rest)  # type: ignore[attr-defined]
