"""What is typed in the wrong order or place is one sentence that says what to type.

Tried with `ask`, `find` and `encode`: nothing, the text before the video, no video, a video and a
store, a store as the video, a video as the text, an empty video and an empty text, limits the wrong
way round, a file or any folder as a store, a store's place that is taken, a command that does not
exist; and what must still be allowed: a word that also names a file, a webcam, a path with spaces.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mmkv
from mmkv.cli import arguments, main
from mmkv.models.tiny import SAMPLE_VIDEO

STORE = Path(__file__).parents[1] / "data" / "store-v3"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a video, a store, an empty folder, and a file named like a word."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMKV_MODEL", raising=False)
    (tmp_path / "my video.mp4").symlink_to(SAMPLE_VIDEO)
    shutil.copytree(STORE, tmp_path / "a.kv")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("no video")
    (tmp_path / "red").write_text("a word")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command; returns its exit code and its error. No model may be loaded."""

    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(mmkv, "load", loaded, raising=False)
        monkeypatch.setattr(sys, "argv", ["mmkv", *words])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert out == ""
        return int(end.value.code or 0), err

    return call


WRONG = [
    ("ask", "no VIDEO and no question given: mmkv ask VIDEO 'what happens?'"),
    ("find", "no VIDEO and no text given: mmkv find VIDEO 'a person at the door'"),
    ("encode", "Missing argument 'VIDEO'"),
    ("ask|my video.mp4", "no question given: mmkv ask 'my video.mp4' 'what happens?'"),
    ("find|my video.mp4", "no text given: mmkv find 'my video.mp4' 'a person at the door'"),
    ("find|sample", "no text given: mmkv find sample 'a person at the door'"),
    ("ask|--store|a.kv", "no question given: mmkv ask --store a.kv 'what happens?'"),
    ("find|--store|a.kv", "no text given: mmkv find --store a.kv 'a person at the door'"),
    ("ask|what is it?|my video.mp4", "VIDEO comes before the question: mmkv ask 'my video.mp4'"),
    ("ask|what is it?|sample", "mmkv ask sample 'what is it?'"),
    ("find|a cat|my video.mp4", "VIDEO comes before the text: mmkv find 'my video.mp4' 'a cat'"),
    ("ask|what is it?", "looks like a question: mmkv ask VIDEO 'what is it?'"),
    ("find|a red cat", "looks like a text: mmkv find VIDEO 'a red cat'"),
    ("ask|--store|a.kv|sample|why?", "there is no VIDEO: mmkv ask --store a.kv 'why?'"),
    ("ask|--store|a.kv|./my video.mp4|why?", "there is no VIDEO: mmkv ask --store a.kv 'why?'"),
    ("find|--store|a.kv|rtsp://10.0.0.7/live|a cat", "there is no VIDEO: mmkv find --store a.kv"),
    ("ask|a.kv|why?", "a.kv is a store, not a video: mmkv ask --store a.kv 'why?'"),
    ("find|a.kv|a cat", "a.kv is a store, not a video: mmkv find --store a.kv 'a cat'"),
    ("encode|a.kv", "mmkv encode VIDEO --store a.kv --append"),
    ("encode|my video.mp4|why?", "`encode` asks none: mmkv ask VIDEO 'why?'"),
    ("ask|sample|my video.mp4", "names a video; one video at a time: mmkv ask 'my video.mp4'"),
    ("find|sample|my video.mp4", "names a video; one video at a time: mmkv find 'my video.mp4'"),
    ("ask||why?", "VIDEO is empty: mmkv ask VIDEO 'why?'"),
    ("encode|", "VIDEO is empty: mmkv encode VIDEO"),
    ("ask|sample| ", "a question is empty"),
    ("find|sample|", "a text is empty"),
    ("ask|sample|why?|--since|1:00|--until|0:30", "--since 1:00 is after --until 0:30"),
    ("find|sample|a cat|--since|60|--until|30", "--since 1:00 is after --until 0:30"),
    ("my video.mp4|why?", "to ask about a video: mmkv ask VIDEO 'what happens?'"),
]


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[line for line, _ in WRONG])
def test_a_wrong_order_is_told_with_what_to_type(
    here: Path, run: Run, line: str, words: str
) -> None:
    code, err = run(*line.split("|"))
    assert code == 2
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1
    assert "Invalid value" not in err


IMPOSSIBLE = [
    ("ask|--store|red|why?", "red is a file, and a store is a folder"),
    ("find|--store|red|a cat", "red is a file, and a store is a folder"),
    ("info|red", "red is a file, and a store is a folder"),
    ("ask|--store|folder|why?", "folder is a folder, but not a store"),
    ("info|folder", "folder is a folder, but not a store"),
    ("ask|--store|gone.kv|why?|--model|some/model", "there is no store at "),
    ("encode|sample|--store|red|-q", "red is a file; name a folder for the store"),
    ("encode|sample|--store|folder|-q", "folder is not empty and holds no store"),
]


@pytest.mark.parametrize(("line", "words"), IMPOSSIBLE, ids=[line for line, _ in IMPOSSIBLE])
def test_a_place_without_a_store_is_told_before_a_model_is_loaded(
    here: Path, run: Run, line: str, words: str
) -> None:
    code, err = run(*line.split("|"))
    assert code == 1
    assert words in err
    assert err.count("\n") == 1


def test_a_store_that_is_there_is_told_before_a_model_is_loaded(here: Path, run: Run) -> None:
    with mmkv.load("mmkv-tiny").stream(store=here / "real.kv") as stream:
        stream.encode(SAMPLE_VIDEO, fps=0.05)
    code, err = run("encode", "sample", "--store", "real.kv", "-q")
    assert code == 1
    assert "there is a store at real.kv already" in err
    assert "--append continues it" in err


@pytest.mark.parametrize(
    ("words", "store", "found"),
    [
        (["my video.mp4", "red"], None, ("my video.mp4", ["red"])),
        (["red"], "a.kv", (None, ["red"])),
        (["0", "why?", "who?"], None, ("0", ["why?", "who?"])),
        (["rtsp://10.0.0.7/live", "why?"], None, ("rtsp://10.0.0.7/live", ["why?"])),
        (["sample"], None, ("sample", [])),
        (["new video.mp4", "why?"], None, ("new video.mp4", ["why?"])),  # its absence is told later
        (["folder", "is it http://a b?"], None, ("folder", ["is it http://a b?"])),
        (["sample", "x" * 5000], None, ("sample", ["x" * 5000])),
    ],
)
def test_what_is_right_stays_as_it_is(
    here: Path, words: list[str], store: str | None, found: tuple[str | None, list[str]]
) -> None:
    assert arguments.video_and_texts("ask", words, store) == found


@pytest.mark.parametrize(
    ("command", "forms"),
    [
        ("ask", ["ask VIDEO QUESTION...", "ask --store DIR QUESTION..."]),
        ("find", ["find VIDEO TEXT", "find --store DIR TEXT"]),
        ("encode", ["encode VIDEO...", "encode VIDEO... --store DIR"]),
        ("info", ["info --model ID", "info DIR"]),
        ("caption", ["caption VIDEO...", "caption --list FILE"]),
    ],
)
def test_help_shows_every_form_of_a_command_and_every_option_once(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    forms: list[str],
) -> None:
    import typer.main

    from mmkv.cli.app import app

    monkeypatch.setattr(sys, "argv", ["mmkv", command, "--help"])
    with pytest.raises(SystemExit):
        main()
    out, _ = capsys.readouterr()
    for form in forms:
        assert f" mmkv {form} [OPTIONS]\n" in out
    assert "list[str]" not in out
    group: Any = typer.main.get_command(app)
    shown = [line.split()[0].rstrip(",") for line in out.splitlines() if line.startswith("  -")]
    for parameter in group.commands[command].params:
        if parameter.param_type_name == "option":
            first = parameter.opts[0] if parameter.opts[0] in shown else parameter.opts[-1]
            assert shown.count(first) == 1, first


def test_the_list_of_commands_is_not_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mmkv", "--help"])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main()
    out = capsys.readouterr()[0]
    commands = out.partition("Commands:")[2].partition("Example:")[0]
    assert len(commands.split("\n\n")[0].strip().splitlines()) == 7
    assert "..." not in commands
