"""The benchmark for GPUs goes through every step on a CPU, and claims nothing from that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_dry_run_takes_every_step(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    done = run("--dry-run", "--budget", "3000", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "gpu-dry-run.json").read_text())
    assert found["dry_run"]
    checks = [row for row in found["rows"] if row.get("check")]
    assert len(checks) > 20
    assert all(row["ok"] for row in checks)
    assert not [row for row in found["rows"] if row.get("unit", "").startswith(("failed", "left"))]
    assert "no measurements" in (tmp_path / "gpu-dry-run.md").read_text()


def test_without_a_gpu_it_says_what_to_do() -> None:
    done = run()
    assert done.returncode == 2
    assert "--dry-run" in done.stderr


def test_it_needs_no_package_beyond_the_four() -> None:
    code = (
        "import sys, mmkv, mmkv.loading, mmkv.stream, benchmarks.gpu.model, benchmarks.gpu.speed\n"
        "import benchmarks.gpu.correctness\n"
        "found = {'av', 'cv2', 'typer', 'rich', 'psutil', 'accelerate'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
