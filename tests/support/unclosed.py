"""Programs that end without closing a stream: python unclosed.py FOLDER HOW...

HOW is one of the functions below. Each is run in a process of its own, with its store in
FOLDER/HOW, and what it prints and its exit status beside that. Blocks 0 to 9 are flushed; 10 to 20
are not, of which 20 is in a page that is still open.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from pathlib import Path

from store_blocks import Followed, created, fill

from mmkv.archive import Archive


def plain(writer: Archive) -> None:
    """Simply end; the stream is a global, as in a notebook."""


def error(writer: Archive) -> None:
    raise ValueError("of the program")


def exit_beside_a_thread(writer: Archive) -> None:
    threading.Thread(target=time.sleep, args=(0.3,)).start()
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    sys.exit(3)


def dropped(writer: Archive) -> None:
    """The stream is let go while the program goes on."""


def fork(writer: Archive) -> None:
    """A copy of the process ends first, as if it were its own stream, then this one goes on."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            writer.flush()
        except OSError as refused:
            print("the copy was told:", refused)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    fill(writer, 21, 24)
    writer.flush()
    writer.close()


def adding(writer: Archive) -> None:
    """A thread is in the middle of adding blocks, and will never be done."""
    writer._busy.acquire()


def settled(writer: Archive) -> None:
    """Everything was flushed."""
    writer.flush()


def full(writer: Archive) -> None:
    """The disk refuses everything from now on."""

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    os.pwritev = refuse  # type: ignore[assignment]
    fill(writer, 21, 26)
    time.sleep(0.3)


def slow(writer: Archive) -> None:
    """The disk is slow, so that pages wait to be written when the process ends."""
    write = os.pwritev

    def slowly(*arguments: object) -> int:
        time.sleep(0.02)
        return write(*arguments)  # type: ignore[arg-type]

    os.pwritev = slowly  # type: ignore[assignment]
    fill(writer, 21, 60)


def moved(writer: Archive) -> None:
    """The folder is gone."""
    os.rename(path, f"{path}.away")


def alone(folder: Path, names: list[str]) -> str | None:
    """Fork a process per name; returns the name in it, and None at last where all have ended."""
    for name in names:
        child = os.fork()
        if not child:
            for number, kind in ((1, "out"), (2, "err")):
                os.dup2(os.open(folder / f"{name}.{kind}", os.O_WRONLY | os.O_CREAT), number)
            return name
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        (folder / f"{name}.status").write_text(str(status))
    return None


if __name__ == "__main__":
    name = alone(Path(sys.argv[1]), sys.argv[2:])
    if name is not None:
        path = Path(sys.argv[1]) / name
        held = created(path)
        fill(held, 0, 10)
        held.flush()
        fill(held, 10, 21)
        reader = Followed(path)
        globals()[name](held)
        if name == "dropped":
            del held
            gc.collect()
