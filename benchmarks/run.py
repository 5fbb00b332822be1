"""`make bench`: the measurements that the documentation quotes, and its charts.

    python -m benchmarks.run                    everything on the bundled model
    python -m benchmarks.run --only steady --frames 3000

Results are printed and written to benchmarks/results/; charts of them to docs/img/.
"""

from __future__ import annotations

import argparse

import mmkv
from benchmarks import (
    captioning,
    charts,
    codecs,
    eviction,
    needles,
    question,
    sinks,
    steady,
    stock,
    store,
)  # fmt: skip
from benchmarks.common import machine, save

PARTS = (
    "steady", "stock", "sinks", "store", "codecs", "eviction", "question", "captioning", "needles"
)  # fmt: skip


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; repeatable")
    parser.add_argument("--frames", type=int, default=3000, help="length of the steady stream")
    parser.add_argument("--model", default="mmkv-tiny")
    chosen = parser.parse_args()
    parts = chosen.only or PARTS
    vlm = mmkv.load(chosen.model)
    print(", ".join(f"{key} {value}" for key, value in machine().items() if value is not None))
    if "steady" in parts:
        steady.run(vlm, chosen.frames)
    if "stock" in parts:
        stock.run(vlm)
    if "sinks" in parts:
        sinks.run(vlm)
    if "store" in parts:
        store.run(vlm)
    if "codecs" in parts:
        codecs.run(vlm)
    if "eviction" in parts and vlm.name == "mmkv-tiny":
        eviction.short(vlm)
    if "question" in parts:
        question.run(vlm)
    if "captioning" in parts and vlm.name == "mmkv-tiny":
        captioning.run(vlm)
    if "needles" in parts and vlm.name == "mmkv-tiny":
        save("needles", needles.run(vlm, 200, [*needles.DELAYS], [*needles.METHODS]))
    charts.save_all()


if __name__ == "__main__":
    main()
