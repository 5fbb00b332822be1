"""Every Triton kernel computes what its torch version does, in Triton's interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("kernel_parity.py")
OPERATIONS = re.findall(r"^def (test_\w+)\(", CASES.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest prints about the cases, run once in a process of their own."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-rA",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            CASES,
        ],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=CASES.parents[1],
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("operation", OPERATIONS)
def test_triton_equals_torch(operation: str, report: str) -> None:
    passed = re.findall(rf"^PASSED \S+::{operation}(?:\[|$)", report, re.MULTILINE)
    failed = re.findall(rf"^(?:FAILED|ERROR) \S+::{operation}(?:\[| |$)", report, re.MULTILINE)
    assert passed, report[-3000:]
    assert not failed, report[-6000:]
