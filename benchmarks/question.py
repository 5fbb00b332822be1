"""Where a question's time is spent, in streams of different lengths, in memory and on disk.

Score, load and unpack are parts of the prefill; the first token comes after it. "foreseen" is the
share of the frames a layer reads that the layer before it had chosen, and which were thus read
ahead. On disk, `max_ram` holds next to nothing, so that frames come from the store.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mmkv
from benchmarks.common import chunks, median, save

STAGES = ("wait", "score", "load", "unpack", "prefill", "first_token", "decode")
QUESTIONS = (
    "where was the red circle?",
    "what was there after the blue star?",
    "how many shapes were there with the green ring?",
    "what is at the top left now?",
)


ROUNDS = 8


def run(vlm: mmkv.VideoLM, lengths: Sequence[int] = (50, 500, 5000)) -> dict[str, Any]:
    """Measure and print medians in milliseconds.

    The streams take turns, all questions each, so that other work on the machine slows all alike.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        streams = {
            f"{length} frames, {place}": opened.enter_context(
                _encoded(vlm, length, Path(folder) / str(length) if place == "disk" else None)
            )
            for length in lengths
            for place in ("memory", "disk")
        }
        answers: dict[str, list[mmkv.Answer]] = {name: [] for name in streams}
        for turn in range(1 + ROUNDS):
            for name, stream in streams.items():
                given = [stream.ask(question, max_new_tokens=8) for question in QUESTIONS]
                if turn:  # the first ones warm up
                    answers[name] += given
    rows = {name: _row(given) for name, given in answers.items()}
    ratio = rows[f"{lengths[-1]} frames, memory"]["first_token"]
    ratio /= rows[f"{lengths[0]} frames, memory"]["first_token"]
    result = {"milliseconds": rows, "longest_over_shortest_first_token": ratio}
    print(f"\nA question's time in ms ({vlm.name}, 8 of the past frames, 4 recent, 8 tokens)")
    print(f"{'':22}" + "".join(f"{stage:>12}" for stage in (*STAGES, "foreseen")))
    for name, row in rows.items():
        print(f"{name:22}" + "".join(f"{value:12.2f}" for value in row.values()))
    print(f"first token, longest against shortest stream in memory: {ratio:.2f} (bar: under 2)")
    save("question", result)
    return result


def _encoded(vlm: mmkv.VideoLM, length: int, store: Path | None) -> mmkv.Stream:
    settings: dict[str, Any] = {"window_frames": 16, "recent_frames": 4, "retrieve_frames": 8}
    if store is not None:
        settings["max_ram"] = "1MB"
    stream = vlm.stream(mmkv.CacheConfig(**settings), store=store)
    for stack, times in chunks(length, 8):
        stream.feed(stack, times)
    if store is not None:
        stream.flush()
    return stream


def _row(answers: Sequence[mmkv.Answer]) -> dict[str, float]:
    row = {s: 1e3 * median([a.timings.get(s, 0.0) for a in answers]) for s in STAGES}
    return {**row, "foreseen": median([a.foreseen or 0.0 for a in answers])}
