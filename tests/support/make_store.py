"""Writes the small stores of the current format version that tests/data keeps for ever.

    python tests/support/make_store.py

Run it once when the format's version is raised; a store that is committed is never written again.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from store_blocks import FACTS, archive, even_block, fill, rows

from mmkv.archive.thinning import Thinning
from mmkv.eviction import make_eviction
from mmkv.merging import make_merge
from mmkv.store import Store
from mmkv.store.records import VERSION
from mmkv.store.retention import Limits
from mmkv.store.write_behind import write_behind

BLOCKS = 9  # in two sessions, the first of which ends inside of a page


def main() -> None:
    """Write them."""
    write()
    write_thinned()


def write_thinned() -> None:
    """One whose blocks keep some of their tokens only."""
    path, store = begun("-thinned")
    made = archive(thinning=Thinning(make_eviction("temporal"), make_merge("none"), 0.5))
    write_behind(made, store.writer)
    made.append([even_block(i) for i in range(BLOCKS)], rows(0, BLOCKS))
    made.flush()
    made.close()
    (path / "lock").unlink()


def begun(name: str) -> tuple[Path, Store]:
    """An empty store in tests/data."""
    path = Path(__file__).parents[1] / "data" / f"store-v{VERSION}{name}"
    facts = {**FACTS, "mmkv": "0.1.0", "model": {"name": "none"}}
    return path, Store.create(path, facts, Limits())


def write() -> None:
    """One of whole blocks."""
    path, store = begun("")
    made = archive()
    write_behind(made, store.writer)
    fill(made, 0, 5)
    made.flush()
    fill(made, 5, BLOCKS)
    made.flush()
    store.keep_waiting(BLOCKS, [])
    made.close()
    (path / "lock").unlink()


if __name__ == "__main__":
    main()
