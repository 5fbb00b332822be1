"""All rows as one Parquet file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def available() -> bool:
    """Return whether pyarrow is installed."""
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None


def write_parquet(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write rows to a Parquet file, replacing it: segments nested, settings and timings as JSON.

    Args:
        rows: as in the JSON Lines file.
        path: the Parquet file.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    segment = pa.struct([("start", pa.float64()), ("end", pa.float64()), ("caption", pa.string())])
    names = ("id", "path", "model", "config_hash", "caption")
    schema = pa.schema(
        [
            *((name, pa.string()) for name in names),
            ("segments", pa.list_(segment)),
            ("duration", pa.float64()),
            ("frames", pa.int64()),
            ("config", pa.string()),
            ("timings", pa.string()),
        ]
    )
    spare = path.with_name(f".{path.name}.new")
    with pq.ParquetWriter(spare, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            texts = {name: json.dumps(row.get(name)) for name in ("config", "timings")}
            batch.append({**row, **texts})
            if len(batch) == 512:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema))
    os.replace(spare, path)
