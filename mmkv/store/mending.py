"""Restoring what one file of a segment lost from what the other still holds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from mmkv.store.errors import StoreError
from mmkv.store.files import DataFile, make_header
from mmkv.store.segment import Group, Segment
from mmkv.store.writing import open_to_write, sync_folder, write_all


def mend(segment: Segment, lost: Iterable[tuple[Segment, Group]], meta: Mapping[str, Any]) -> None:
    """Write damaged headers, and records that the index had lost, back into their places.

    Args:
        lost: records that an index had lost, of any segment.
        meta: what the store's meta.json says.

    Raises:
        StoreError: they cannot be written.
    """
    layers, store = int(meta["layers"]), bytes.fromhex(meta["store"])
    headers = {kind: make_header(kind, layers, segment.number, segment.first, store)
               for kind in segment.headless}  # fmt: skip
    index = [(group.records.tobytes(), group.at) for own, group in lost if own is segment]
    if "index" in headers:
        index.append((headers["index"], 0))
    data = [(headers["data"], 0)] if "data" in headers else []
    try:
        for path, pieces in ((segment.index.path, index), (segment.data.path, data)):
            if pieces:
                file = open_to_write(path, os.O_CREAT)
                try:
                    for piece, at in pieces:
                        write_all(file, [piece], at)
                    os.fsync(file)
                finally:
                    os.close(file)
                sync_folder(path.parent)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"{segment.data.path.parent} cannot be written: {error.strerror}"
        ) from error
    if not isinstance(segment.index, DataFile):
        segment.index = DataFile(segment.index.path)
    segment.headless.clear()
