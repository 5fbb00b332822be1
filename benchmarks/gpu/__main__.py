"""One command for a CUDA machine: are the kernels right, and how fast is everything?

Usage: `python -m benchmarks.gpu [--out DIR] [--dry-run]`, from a checkout. Needs torch, triton,
transformers and numpy. Takes under 8 minutes: what does not fit in the budget is marked as left
out, and what fails, hangs or crashes becomes one row of the results and does not stop the others.
Writes one JSON and one Markdown table that name the hardware, again after every step. `--dry-run`
runs every step at toy size on a CPU, with Triton's interpreter; what it prints is not a
measurement.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

MOST = 99  # steps behind the checks
RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    """Run everything; the exit code says whether every kernel was right."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help="folder for JSON and table")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes on a CPU")
    parser.add_argument("--budget", type=float, default=455.0, help="seconds")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--steps", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    import torch

    if not given.dry_run and not torch.cuda.is_available():
        print("no CUDA device was found; run this on a GPU, or try --dry-run", file=sys.stderr)
        return 2
    if given.worker is not None:
        from benchmarks.gpu import worker

        numbers = [int(number) for number in given.steps.split(",")]
        return worker.main(given.worker, numbers, given.budget, dry=given.dry_run)
    from benchmarks.gpu.correctness import checks
    from benchmarks.gpu.report import Report
    from benchmarks.gpu.supervise import side_by_side, supervise

    until = time.monotonic() + given.budget
    report = Report(given.out or (None if given.dry_run else RESULTS), dry=given.dry_run)

    def command(found: Path, numbers: Sequence[int], left: float) -> list[str]:
        return [
            sys.executable, "-m", "benchmarks.gpu", *(["--dry-run"] * given.dry_run), "--worker",
            str(found), "--steps", ",".join(map(str, numbers)), "--budget", f"{left:.1f}",
        ]  # fmt: skip

    # checks are mostly compiling; what is timed comes after them, alone
    lanes = max(1, min(4, (os.cpu_count() or 1) // 3))
    count = len(checks(dry=given.dry_run))
    side_by_side(command, report, until, range(count), lanes)
    supervise(command, report, until, range(count, count + MOST))
    if given.dry_run:
        print("dry run: these are no measurements")
    path = report.write()
    if path is not None:
        print(f"written: {path}")
    print(f"took {time.monotonic() - until + given.budget:.0f} s")
    return 0 if report.right else 1


if __name__ == "__main__":
    sys.exit(main())
