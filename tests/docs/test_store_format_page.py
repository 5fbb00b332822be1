"""The store format's page says what the code writes: fields, types, offsets, sizes, kinds."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from mmkv.store import files, records, segment

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "store-format.md").read_text("utf-8")

Row = dict[str, str]


def table(heading: str, first: str = "field") -> list[Row]:
    """The first table under a heading whose first columns have these names."""
    body = PAGE.split(f"\n### {heading}\n", 1)[1].split("\n## ")[0]
    lines = iter(body.splitlines())
    head = next(line for line in lines if line.startswith(f"| {first} |"))
    names = cells(head)
    next(lines)  # the rule below it
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(names, cells(line), strict=True)))
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]


def packed(rows: list[Row]) -> struct.Struct:
    return struct.Struct("<" + "".join(row["type"] for row in rows))


def offsets(rows: list[Row]) -> list[int]:
    sizes = [struct.calcsize("<" + row["type"]) for row in rows]
    assert [int(row["bytes"]) for row in rows] == sizes
    return np.cumsum([0, *sizes[:-1]]).tolist()


def test_a_segments_header_is_as_the_page_says() -> None:
    rows = table("Header")
    assert [int(row["offset"]) for row in rows] == offsets(rows)
    layout = packed(rows)
    assert layout.size == files.HEADER
    store = bytes(range(16))
    raw = files.make_header("data", 28, 7, 4096, store)
    named = dict(zip([r["field"] for r in rows if "x" not in r["type"]], layout.unpack(raw),
                     strict=True))  # fmt: skip
    assert {**named, "crc": 0} == {
        "magic": b"mmkvdata", "version": records.VERSION, "layers": 28, "number": 7, "first": 4096,
        "store": store, "crc": 0,
    }  # fmt: skip
    assert files.read_header(raw, "data", Path("x"), store, 7) == (28, 4096)


@pytest.mark.parametrize("layers", [1, 5, 28])
def test_an_index_record_is_as_the_page_says(layers: int) -> None:
    dtype = records.record_type(layers)
    assert dtype.fields is not None
    told, written = [], []
    for row in table("Records"):
        kind, _, shape = row["type"].partition(" ")
        sized = re.sub(r"^8 L$", str(8 * layers), row["bytes"])
        size = shape.replace("L", str(layers))
        told.append((row["field"], kind, size, int(row["offset"]), int(sized)))
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]
        base, size = field.subdtype or (field, ())
        kind = base.str.lstrip("|")
        written.append((name, kind, str(size) if size else "", offset, field.itemsize))
    assert told == written
    assert dtype.itemsize == 88 + 8 * layers


def test_the_kinds_of_records_are_as_the_page_says() -> None:
    told = {row["kind"]: int(row["value"]) for row in table("Records", "kind | value")}
    assert told == {name: getattr(records, name) for name in ("PAGE", "BLOCK", "SIDE", "SYNC")}


def test_a_pages_lead_is_as_the_page_says() -> None:
    rows = table("Pages")
    assert [int(row["offset"]) for row in rows] == offsets(rows)
    assert packed(rows).format == segment.LEAD.format
    lead, copy = segment.around(1234, b"records")
    magic, length, _, payload, _ = packed(rows).unpack(lead)
    assert (magic, length, payload) == (b"page", len(copy), 1234)


def test_the_versions_are_those_of_the_page() -> None:
    assert f"The current format version is {records.VERSION};" in PAGE
    *others, last = map(str, records.READ)
    assert f"versions {', '.join(others)} and {last} are read" in PAGE
