"""What `eviction.py` has asked so far, in a file that a later run continues."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.eviction_cells import Cell


@dataclass(frozen=True)
class Asked:
    """What one configuration answered about one stream.

    Attributes:
        exact: for each question, in order, 1 if the answer is exact.
        kept: share of the tokens that was kept.
        nbytes: bytes of a frame's keys and values as stored.
    """

    cell: Cell
    world: int
    exact: list[int]
    kept: float
    nbytes: float


def to_dict(asked: Asked) -> dict[str, Any]:
    """For a line of the work file."""
    cell = asked.cell
    return {
        "cell": [cell.policy, cell.keep, cell.merge, cell.focus, cell.packed, cell.protected],
        "world": asked.world,
        "exact": "".join(map(str, asked.exact)),
        "kept": asked.kept,
        "bytes": asked.nbytes,
    }


def read_work(work: Path | None) -> Iterator[Asked]:
    """What an earlier run has asked."""
    if work is None or not work.exists():
        return
    for line in work.read_text().splitlines():
        found = json.loads(line)
        policy, keep, merge, focus, packed, *protected = found["cell"]
        bits = tuple(packed) if packed else None
        cell = Cell(policy, keep, merge, focus, bits, tuple(*protected))
        exact = [int(x) for x in found["exact"]]
        yield Asked(cell, found["world"], exact, found["kept"], found["bytes"])
