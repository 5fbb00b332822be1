"""A writing process that is killed with SIGKILL loses nothing that it had flushed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VICTIM = Path(__file__).parents[1] / "support" / "store_victim.py"


def killed(folder: Path, rounds: int) -> str:
    command = [sys.executable, str(VICTIM), str(folder / "s"), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_five_killed_writers_lose_nothing_flushed_and_leave_no_wrong_byte(tmp_path: Path) -> None:
    assert "5 writers killed" in killed(tmp_path, 5)


@pytest.mark.slow
def test_fifty_killed_writers_lose_nothing_flushed_and_leave_no_wrong_byte(tmp_path: Path) -> None:
    told = killed(tmp_path, 50)
    assert "50 writers killed" in told
    assert int(told.split("killed, ")[1].split()[0]) > 25
