"""How a command ends where its streams are closed, its reader leaves, or Ctrl-C is pressed.

Tried: each of the three streams closed, all of them, an error and a wrong command line with stderr
closed, a reader that leaves in the middle (`| head -1`), and Ctrl-C while modules are imported,
while the model is loaded and while a video is watched.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE, heeding_ctrl_c

MMKV = f"{shlex.quote(sys.executable)} -m mmkv"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("info >&-", 0),
        ("info --json >&-", 0),
        ("info <&-", 0),
        ("info 2>&-", 0),
        ("info <&- >&- 2>&-", 0),
        ("info gone.kv 2>&-", 1),
        ("info gone.kv >&-", 1),
        ("rm gone.kv <&- >&- 2>&-", 1),
        ("ask 2>&-", 2),
        ("--help >&-", 0),
        ("--version >&- 2>&-", 0),
    ],
)
def test_a_closed_stream_changes_neither_the_exit_code_nor_prints_a_traceback(
    line: str, code: int
) -> None:
    done = subprocess.run(["bash", "-c", f"{MMKV} {line}"], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (1 if code and "2>&-" not in line else 0)


def test_a_file_opened_later_does_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import sys, mmkv.cli; mmkv.cli.open_closed_streams(); "
        "file = open(sys.argv[1], 'w'); print('to stdout'); file.write(str(file.fileno()))"
    )
    kept = tmp_path / "kept"
    words = shlex.join([sys.executable, "-c", code, str(kept)])
    subprocess.run(["bash", "-c", f"{words} <&- >&- 2>&-"], check=True)
    assert int(kept.read_text()) > 2


def test_a_reader_that_leaves_in_the_middle_is_told_nothing() -> None:
    command = (
        f"{MMKV} ask sample 'q?' 'q?' -m mmkv-tiny --fps 0.05 | head -1; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode in (0, 141)  # 0 where the pipe still took everything
    assert done.stdout == "q?\n"
    assert done.stderr == ""


PAUSES = {  # what is replaced, so that the signal comes at this point
    "while modules are imported": "import mmkv.cli.app as at; at.run = strike",
    "while the model is loaded": "import mmkv; mmkv.load = strike",
    "while a video is watched": "from mmkv import Stream as at; at.encode = strike",
    "while an answer is given": "from mmkv import Stream as at; at.ask_iter = strike",
}


@pytest.mark.parametrize("when", PAUSES)
def test_ctrl_c_is_one_line_and_130(when: str) -> None:
    code = (
        "import os, signal, sys, time\n"
        "def strike(*_, **__):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
        f"{PAUSES[when]}\n"
        "import mmkv.cli\n"
        "mmkv.cli.main()\n"
    )
    words = ["ask", "sample", "why?", "-m", "mmkv-tiny", "--fps", "0.05"]
    with heeding_ctrl_c():
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=PATIENCE
        )
    assert done.returncode == 130
    assert done.stderr == "stopped\n"
