"""Writes the small store of the current format version that tests/data keeps for ever.

    python tests/make_store.py

Run it once when the format's version is raised; a store that is committed is never written again.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from store_blocks import FACTS, archive, fill

from mmkv.store import Store
from mmkv.store.records import VERSION
from mmkv.store.retention import Limits

BLOCKS = 9  # in two sessions, the first of which ends inside of a page


def main() -> None:
    """Write it."""
    path = Path(__file__).parent / "data" / f"store-v{VERSION}"
    store = Store.create(path, {**FACTS, "mmkv": "0.1.0", "model": {"name": "none"}}, Limits())
    made = archive()
    made.store_in(store.writer)
    fill(made, 0, 5)
    made.flush()
    fill(made, 5, BLOCKS)
    made.flush()
    store.keep_waiting(BLOCKS, [])
    made.close()
    (path / "lock").unlink()


if __name__ == "__main__":
    main()
