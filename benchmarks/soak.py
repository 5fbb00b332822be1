"""A live stream watched for a long time, while its camera fails and questions keep coming.

    python -m benchmarks.soak --minutes 30

The camera (`soak_camera.py`) stalls, breaks off, ends and refuses connections. Frames go into a
store that keeps the newest megabytes; two threads ask all the time what was to be seen at a moment
of the past that is still there, or no longer; the store is opened for reading now and then. Every
answer is compared with what the camera showed at that moment; every error has to be one of those
that are announced. Memory, threads, descriptors, temporary files and the store are counted.

Of memory two figures are kept: what is resident, and what is in use in the C library's heaps. The
heaps of several threads keep pages that were freed, so the first may rise while nothing is held.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

import mmkv
from benchmarks.common import in_use, save, show
from benchmarks.soak_camera import camera
from benchmarks.soak_questions import QUESTION, Asker, Noted

DISK = 8_000_000  # bytes that the store may take
# by how much a figure may vary after the first quarter; answers under way are in the heaps
GROWTH = {"rss_mb": 48.0, "heap_mb": 24.0, "threads": 4, "files": 12, "temporary": 0}


def run(
    vlm: mmkv.VideoLM,
    minutes: float,
    *,
    every: float = 20.0,
    keep: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Watch and count.

    Args:
        vlm: knows coloured shapes.
        minutes: how long.
        every: seconds between two faults of the camera, on average.
        keep: is given the result so far, now and then.

    Returns:
        what was counted; `problems` says what is out of bounds.
    """
    root = Path(tempfile.mkdtemp(prefix="mmkv-soak-"))
    temporary, before = root / "tmp", tempfile.tempdir
    temporary.mkdir()
    tempfile.tempdir = str(temporary)
    samples: list[dict[str, float]] = []
    process = psutil.Process()
    config = mmkv.CacheConfig(
        window_frames=16, recent_frames=4, retrieve_frames=8, max_disk=DISK, max_ram=DISK // 2
    )
    opened = process.num_fds()
    try:
        with camera(every) as address, vlm.stream(config, store=root / "store") as stream:
            source = Noted(address)
            feed = stream.start(source, fps=None)
            askers = [Asker(stream, source, seed, pause) for seed, pause in ((1, 0.6), (2, 1.2))]
            started = time.monotonic()
            while (now := time.monotonic() - started) < minutes * 60:
                samples.append(_sample(process, stream, root, now))
                time.sleep(min(10.0, minutes * 60 / 40))
                _read(vlm, root / "store", askers[0])
                if len(samples) >= 8:
                    keep(_result(samples, stream, source, askers, 0, feed.running))
            for asker in askers:
                asker.stop()
            samples.append(_sample(process, stream, root, time.monotonic() - started))
            running = feed.running
        left = process.num_fds() - opened
        return _result(samples, stream, source, askers, left, running)
    finally:
        tempfile.tempdir = before
        shutil.rmtree(root, ignore_errors=True)


def _result(
    samples: list[dict[str, float]],
    stream: mmkv.Stream,
    source: Noted,
    askers: list[Asker],
    left: int,
    running: bool,
) -> dict[str, Any]:
    counts = sum((asker.counts for asker in askers), Counter[str]())
    stats = stream.stats()
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "minutes": round(samples[-1]["seconds"] / 60, 2),
        "frames": stats.frames,
        "frames_kept": stats.archived_frames,
        "reconnects": source.inner.reconnects,
        "questions": dict(sorted(counts.items())),
        "failures": [text for asker in askers for text in asker.failures],
        "files_left_open": left,
        "samples": samples[:: max(1, len(samples) // 60)],
    }
    found = problems(result, samples[len(samples) // 4 :])
    return {**result, "problems": found if running else ["the feed has ended", *found]}


def report(result: dict[str, Any]) -> None:
    """The table."""
    late = result["samples"][len(result["samples"]) // 4 :]
    rows = [("", "measured", "bound")]
    for name, most in GROWTH.items():
        values = [sample[name] for sample in late]
        rows.append((name, f"{min(values):g} to {max(values):g}", f"{most:g} apart"))
    store = max(sample["store_mb"] for sample in late)
    rows.append(("store_mb", f"at most {store:g}", f"{DISK / 1e6 * 1.25:g}"))
    rows.append(("questions", str(result["questions"]), "none wrong, none failed"))
    title = f"{result['minutes']:g} minutes, {result['frames']} frames"
    show(f"{title}, {result['reconnects']} times connected again", rows)
    print("\n".join(result["problems"]) or "within all bounds")


def _sample(
    process: psutil.Process, stream: mmkv.Stream, root: Path, seconds: float
) -> dict[str, float]:
    gc.collect()
    files = [path for path in (root / "store").iterdir() if path.exists()]
    return {
        "seconds": round(seconds, 1),
        "frames": stream.stats().frames,
        "rss_mb": round(process.memory_info().rss / 1e6, 1),
        "heap_mb": round(in_use()[0] / 1e6, 1),
        "threads": process.num_threads(),
        "files": process.num_fds(),
        "temporary": len(list((root / "tmp").iterdir())),
        "store_mb": round(sum(_size(path) for path in files) / 1e6, 2),
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # dropped meanwhile
        return 0


def _read(vlm: mmkv.VideoLM, folder: Path, asker: Asker) -> None:
    """Open the store beside its writer, ask, and close it again."""
    try:
        with vlm.open(folder) as reader:
            reader.ask(QUESTION, max_new_tokens=6)
        asker.counts["read"] += 1
    except ValueError as error:
        if "no frames" not in str(error):
            asker.fail(f"reader: {error}")
    except Exception as error:
        asker.fail(f"reader: {type(error).__name__}: {error}")


def problems(result: dict[str, Any], late: list[dict[str, float]]) -> list[str]:
    """Say what is out of bounds.

    Args:
        result: its questions, failures and descriptors.
        late: samples after the first quarter.
    """
    found = []
    for name, most in GROWTH.items():
        values = [sample[name] for sample in late]
        if max(values) - min(values) > most:
            found.append(f"{name} went from {min(values):g} to {max(values):g}")
    if max(sample["store_mb"] for sample in late) > DISK / 1e6 * 1.25:
        found.append("the store is larger than allowed")
    for name in ("wrong", "failed"):
        if result["questions"].get(name):
            found.append(f"{result['questions'][name]} answers {name}: {result['failures'][0]}")
    if not result["questions"].get("right"):
        found.append("no answer was right")
    if result["files_left_open"] > 2:
        found.append(f"{result['files_left_open']} descriptors are still open after the end")
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    # saved as it goes, so that a run that is ended early leaves a result
    result = run(mmkv.load("mmkv-tiny"), chosen.minutes, keep=lambda result: save("soak", result))
    report(result)
    save("soak", result)
    raise SystemExit(bool(result["problems"]))


if __name__ == "__main__":
    main()
