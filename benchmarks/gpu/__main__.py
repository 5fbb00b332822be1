"""One command for a CUDA machine: are the kernels right, and how fast is everything?

Usage: `python -m benchmarks.gpu [--out DIR] [--dry-run]`, from a checkout. Needs torch, triton,
transformers and numpy. Takes under 8 minutes: what does not fit in the budget is left out and said
to be. Writes one JSON and one Markdown table with the hardware named. `--dry-run` goes through
every step at toy size on a CPU, with Triton's interpreter; what it prints are no measurements.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    """Run everything; the exit code says whether every kernel was right."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help="folder for JSON and table")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes on a CPU")
    parser.add_argument("--budget", type=float, default=470.0, help="seconds")
    given = parser.parse_args()
    if given.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    import torch

    if not given.dry_run and not torch.cuda.is_available():
        print("no CUDA device was found; run this on a GPU, or try --dry-run", file=sys.stderr)
        return 2
    from benchmarks.gpu.report import Report
    from benchmarks.gpu.setup import setup

    with torch.inference_mode():
        sizes = setup(dry=given.dry_run)
        report = Report(sizes, given.budget)
        from benchmarks.gpu import correctness, model, speed

        report.run(correctness.steps(sizes))
        report.run(speed.steps(sizes))
        report.run(model.steps(sizes))
    out = given.out or (None if given.dry_run else RESULTS)
    report.write(out)
    return 0 if report.right else 1


if __name__ == "__main__":
    sys.exit(main())
