"""Every Triton kernel computes what its torch version does, in Triton's interpreter."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FILES = [Path(__file__).with_name(name) for name in ("kernel_parity.py", "kernel_engine.py")]
OPERATIONS = [
    (file, name)
    for file in FILES
    for name in re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE)
]


@functools.cache
def report(cases: Path) -> str:
    """What pytest prints about the cases, run once in a process of their own."""
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
            cases,
        ],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=cases.parents[1],
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("cases", "operation"), OPERATIONS, ids=lambda part: getattr(part, "stem", part)
)
def test_triton_equals_torch(cases: Path, operation: str) -> None:
    pytest.importorskip("triton")
    told = report(cases)
    passed = re.findall(rf"^PASSED \S+::{operation}(?:\[|$)", told, re.MULTILINE)
    failed = re.findall(rf"^(?:FAILED|ERROR) \S+::{operation}(?:\[| |$)", told, re.MULTILINE)
    assert passed, told[-3000:]
    assert not failed, told[-6000:]
