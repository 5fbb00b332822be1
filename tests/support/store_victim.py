"""Forks writers and kills each of them at a random moment: python store_victim.py FOLDER ROUNDS.

A writer appends to the store that the one before it left, and says after each flush how much is
stored. After each kill everything said is read back and compared.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from store_blocks import Followed, check, created, fill, resumed

from mmkv.store import StoreError
from mmkv.store.retention import Limits


class Small(Limits):
    """Segments of a few dozen pages."""

    __slots__ = ()

    @property
    def segment_bytes(self) -> int:
        return 40_000


def write(path: Path, told: int) -> None:
    """Append until killed; each flushed number of blocks goes to `told`."""
    draw = random.Random(os.getpid())
    options = {"limits": Small(), "page_tokens": draw.choice((4, 12, 40)), "limit": 30_000}
    writer = resumed(path, **options) if (path / "meta.json").exists() else created(path, **options)
    while True:
        writer.flush()
        os.write(told, len(writer).to_bytes(8, "little"))
        for _ in range(draw.randint(0, 5)):
            writer.make_room()
            count = len(writer)
            fill(writer, count, count + draw.randint(1, 6), step=3)


def one_round(path: Path, before: int) -> int:
    """Kill one writer; returns how many blocks the store holds after it."""
    hear, told = os.pipe()
    child = os.fork()
    if not child:
        os.close(hear)
        write(path, told)
    os.close(told)
    # some are killed while they open the store, others once they have flushed so often
    said = b"".join(os.read(hear, 8) for _ in range(random.choice((0, 1, 4, 5, 6, 8))))
    time.sleep(random.uniform(0.0, 0.2))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), "a writer ended by itself"
    while more := os.read(hear, 1 << 16):
        said += more
    os.close(hear)
    flushed = int.from_bytes(said[-8:], "little") if said else before
    try:
        past = Followed(path).archive.snapshot()
    except StoreError:
        assert not flushed, "nothing can be read, though something was flushed"
        return 0
    assert len(past.blocks) >= flushed, f"{flushed} flushed, {len(past.blocks)} there"
    check(past, 0, len(past.blocks))
    return len(past.blocks)


def main() -> None:
    path, rounds = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    random.seed(rounds)
    held, grew = 0, 0
    for number in range(rounds):
        if held > 900:  # begin anew: reading all of it takes longer each time
            path, held = path.with_name(f"{path.name}{number}"), 0
        now = one_round(path, held)
        assert now >= held
        grew += now > held
        held = now
    print(f"{rounds} writers killed, {grew} had stored something, {held} blocks in the last store")


if __name__ == "__main__":
    main()
