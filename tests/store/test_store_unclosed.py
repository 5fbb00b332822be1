"""A program that ends without closing its stream: what can be stored is, and one line says so.

Siblings of a plain end: an exception, `sys.exit` beside other threads, a stream that is dropped, a
copy of the process made by `os.fork`, a thread in the middle of adding frames, a stream that has
nothing left to store, a disk that is full or slow, a folder that is gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_blocks import Followed, check

SUPPORT = Path(__file__).parents[1] / "support"
PROGRAM = SUPPORT / "unclosed.py"


HOWS = ("plain", "error", "exit_beside_a_thread", "slow", "dropped", "adding", "settled", "fork",
        "full", "moved")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each of these programs has ended."""
    folder = tmp_path_factory.mktemp("unclosed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(PROGRAM), str(folder), *HOWS]
    subprocess.run(command, check=True, timeout=300, env=environment)
    return folder


def ended(folder: Path, how: str) -> tuple[int, str, list[str]]:
    """Exit status, stdout, and lines of stderr that are about the store."""
    out, errors = ((folder / f"{how}.{kind}").read_text() for kind in ("out", "err"))
    assert "Bad file descriptor" not in errors
    assert ("Traceback" in errors) == (how == "error"), errors
    told = [line for line in errors.splitlines() if "the store " in line]
    return int((folder / f"{how}.status").read_text()), out, told


@pytest.mark.parametrize(("how", "status", "stop"), [
    ("plain", 0, 21), ("error", 1, 21), ("exit_beside_a_thread", 3, 21), ("slow", 0, 60),
])  # fmt: skip
def test_everything_is_stored_and_said(folder: Path, how: str, status: int, stop: int) -> None:
    code, _, told = ended(folder, how)
    assert code == status
    check(Followed(folder / how).archive.snapshot(), 0, stop)
    (line,) = told
    assert line == (
        f"the store {folder / how} was not closed: frames up to {stop - 1}.62 s are stored; "
        "close a stream, or open it in a `with` block"
    )


@pytest.mark.parametrize("how", ["dropped", "adding"])
def test_what_cannot_be_stored_is_said(folder: Path, how: str) -> None:
    code, _, told = ended(folder, how)
    assert code == 0
    past = Followed(folder / how).archive.snapshot()
    check(past, 0, len(past.blocks))
    assert 10 < len(past.blocks) < 21
    (line,) = told
    stored = f"{len(past.blocks) - 1}.62 s"
    assert f"frames up to {stored} are stored, and later ones, up to 20.62 s, are lost" in line


def test_a_stream_that_was_flushed_ends_in_silence(folder: Path) -> None:
    assert ended(folder, "settled") == (0, "", [])
    check(Followed(folder / "settled").archive.snapshot(), 0, 21)


def test_a_copy_of_the_process_leaves_the_store_alone(folder: Path) -> None:
    code, said, told = ended(folder, "fork")
    assert (code, told) == (0, [])
    assert "the copy was told: the store" in said
    assert "of which this one is a copy" in said
    check(Followed(folder / "fork").archive.snapshot(), 0, 24)


def test_a_full_disk_at_the_end_is_said(folder: Path) -> None:
    code, _, told = ended(folder, "full")
    assert code == 0
    past = Followed(folder / "full").archive.snapshot()
    check(past, 0, len(past.blocks))
    assert len(past.blocks) >= 10
    assert "No space left on device" in told[-1]
    assert "and later ones, up to 25.62 s, are lost" in told[-1]


def test_a_folder_that_is_gone_at_the_end_is_said(folder: Path) -> None:
    code, _, told = ended(folder, "moved")
    assert code == 0
    assert "was removed, moved or replaced" in told[-1]
    past = Followed(folder / "moved.away").archive.snapshot()
    check(past, 0, len(past.blocks))
    assert len(past.blocks) >= 10
