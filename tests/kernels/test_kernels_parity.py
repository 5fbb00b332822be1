"""Every Triton kernel computes what its torch version does, in Triton's interpreter."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"
FILES = [SUPPORT / name for name in ("kernel_parity.py", "kernel_engine.py")]
OPERATIONS = [
    (file, name)
    for file in FILES
    for name in re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE)
]


@functools.cache
def reports() -> dict[Path, str]:
    """What pytest prints about the cases of each file, run side by side, each in a process of its
    own.
    """
    options = ["-q", "-rA", "--tb=short", "-p", "no:cacheprovider"]
    running = {
        cases: subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, cases],
            env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
            cwd=cases.parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for cases in FILES
    }
    with ThreadPoolExecutor(len(FILES)) as pool:
        told = pool.map(lambda process: process.communicate()[0], running.values())
        return dict(zip(running, told, strict=True))


@pytest.mark.parametrize(
    ("cases", "operation"), OPERATIONS, ids=lambda part: getattr(part, "stem", part)
)
def test_triton_equals_torch(cases: Path, operation: str) -> None:
    pytest.importorskip("triton")
    told = reports()[cases]
    passed = re.findall(rf"^PASSED \S+::{operation}(?:\[|$)", told, re.MULTILINE)
    failed = re.findall(rf"^(?:FAILED|ERROR) \S+::{operation}(?:\[| |$)", told, re.MULTILINE)
    assert passed, told[-3000:]
    assert not failed, told[-6000:]
