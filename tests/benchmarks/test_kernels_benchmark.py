"""The benchmark for GPUs goes through every step on a CPU, and claims nothing from that."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.report import Report, Row, check, row
from benchmarks.gpu.supervise import side_by_side
from benchmarks.gpu.worker import work

ROOT = Path(__file__).parents[2]
NEEDED = ("torch", "triton", "transformers", "numpy")


def run(*arguments: str, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "benchmarks.gpu", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


def bare(folder: Path) -> Path:
    """A Python that has the needed packages, with what they bring along, and no other."""
    venv.create(folder, symlinks=True)
    where = next(folder.glob("lib/python*/site-packages"))
    waiting, seen = list(NEEDED), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another system or Python
            continue
        waiting += [
            re.split(r"[^\w.-]", need, maxsplit=1)[0]
            for need in found.requires or []
            if "extra ==" not in need
        ]
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (where / top).exists():
                (where / top).symlink_to(found.locate_file(top))
    return folder / "bin" / "python"


def test_dry_run_takes_every_step_with_no_package_beyond_the_four(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    python = bare(tmp_path / "venv")
    alien = subprocess.run([python, "-c", "import av"], cwd=ROOT, capture_output=True)
    assert alien.returncode
    done = run("--dry-run", "--budget", "3000", "--out", str(tmp_path), python=python)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "gpu-dry-run.json").read_text())
    assert found["dry_run"]
    assert found["machine"]["torch"] == torch.__version__
    checks = [row for row in found["rows"] if row.get("check")]
    assert len(checks) > 40
    assert all(row["ok"] for row in checks)
    units = [row.get("unit", "") for row in found["rows"]]
    assert not [unit for unit in units if unit.startswith(("failed", "left", "stopped"))]
    tokens = [row for row in found["rows"] if row["name"].startswith("per generated token")]
    assert len(tokens) == 10
    assert all(row["value"] is not None for row in tokens)
    names = [step["name"] for step in found["steps"]]
    assert {"right: packed", "right: float16", "right: float32", "right: 80 channels"} <= {*names}
    assert names[-1] == "7B stock decode"
    assert "no measurements" in (tmp_path / "gpu-dry-run.md").read_text()


def test_without_a_gpu_it_says_what_to_do() -> None:
    done = run()
    assert done.returncode == 2
    assert "--dry-run" in done.stderr


def fine() -> Iterator[Row]:
    yield row("fine", 1.0, "ms")


def out_of_memory() -> Iterator[Row]:
    yield row("before", 1.0, "ms")
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 4 GiB")


def not_a_number() -> Iterator[Row]:
    yield check("nan", float("nan"), 1e-3)


def said(steps: list[Any], seconds: float = 60.0) -> list[Any]:
    lines: list[Any] = []
    code = work(steps, range(len(steps)), time.monotonic() + seconds, lines.append)
    assert code == 0
    assert lines[-1] == {"done": True}
    json.loads(json.dumps(lines, allow_nan=False))
    return [line["row"] for line in lines if "row" in line]


def test_a_step_that_fails_is_a_row_and_the_others_go_on() -> None:
    rows = said([("big", 1.0, out_of_memory), ("next", 1.0, fine)])
    assert [r["name"] for r in rows] == ["before", "big", "fine"]
    assert rows[1]["unit"] == "failed: OutOfMemoryError: CUDA out of memory."


def test_a_check_that_is_not_a_number_does_not_hold() -> None:
    (found,) = said([("nan", 1.0, not_a_number)])
    assert found["value"] is None
    assert found["ok"] is False
    assert found["check"]


def test_what_does_not_fit_in_the_budget_is_left_out_and_said_to_be() -> None:
    rows = said([("long", 100.0, fine), ("short", 1.0, fine)])
    assert [(r["name"], r["unit"]) for r in rows] == [("long", "left out: no time"), ("fine", "ms")]


WORKER = """
import json, os, sys, time
found, numbers = open(sys.argv[1], "a"), json.loads(sys.argv[2])
def say(*what):
    found.write("".join(json.dumps(one) + "\\n" for one in what)); found.flush()
names = ["one", "crash", "hang", "four"]
say({"machine": {"gpu": "Toy 1"}, "plan": list(enumerate(names))})
for i, name in enumerate(names):
    if i not in numbers:
        continue
    begin = {"begin": i, "name": name, "limit": 1.0 if name == "hang" else 1000.0}
    say(begin, {"row": {"name": f"{name} began", "value": 1.0, "unit": "ms"}})
    if name == "crash":
        os.abort()
    if name == "hang":
        time.sleep(1000)
    say({"took": 0.1})
say({"done": True})
"""


def supervised(report: Report, script: str, until: float | None = None, lanes: int = 1) -> None:
    side_by_side(
        lambda found, numbers, left: [
            sys.executable, "-c", script, str(found), json.dumps(list(numbers)),
        ],
        report,
        time.monotonic() + 1000.0 if until is None else until,
        range(9),
        lanes,
    )  # fmt: skip


def test_a_process_that_crashes_or_hangs_costs_its_step_alone(tmp_path: Path) -> None:
    report = Report(tmp_path, dry=False)
    supervised(report, WORKER)
    names = [r["name"] for r in report.rows]
    assert names == ["one began", "crash began", "crash", "hang began", "hang", "four began"]
    assert "exit code" in report.rows[2]["unit"]
    assert "hangs" in report.rows[4]["unit"]
    assert not report.right
    written = json.loads((tmp_path / "gpu-toy-1.json").read_text())
    assert written["rows"] == report.rows


def test_steps_that_time_nothing_are_shared_out(tmp_path: Path) -> None:
    report = Report(tmp_path, dry=False)
    supervised(report, WORKER, lanes=3)
    names = {r["name"] for r in report.rows if r["value"] is not None}
    assert names == {"one began", "crash began", "hang began", "four began"}
    assert len(report.rows) == 6
    assert not report.right


def test_the_budget_ends_what_runs_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report(tmp_path, dry=False)

    class Clock:
        """Stands in for the module `time`: the budget is used up once the third step has begun."""

        sleep = staticmethod(time.sleep)

        def monotonic(self) -> float:
            return 1000.0 * any(r["name"] == "hang began" for r in report.rows)

    monkeypatch.setattr("benchmarks.gpu.supervise.time", Clock())
    script = WORKER.replace("1.0 if", "1e6 if").replace('"crash"', '"two"', 1)
    supervised(report, script, 900.0)
    assert [r["name"] for r in report.rows[-2:]] == ["hang", "four"]
    assert all("no time" in r["unit"] for r in report.rows[-2:])
    assert report.right  # nothing was found to be wrong
    assert (tmp_path / "gpu-toy-1.json").exists()


def test_an_interrupt_ends_all_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    report, add = Report(None, dry=False), Report.add

    def interrupted_once(row: Row) -> None:
        add(report, row)
        if len(report.rows) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(report, "add", interrupted_once)
    script = WORKER.replace("1.0 if", "1e6 if").replace('"one", "crash"', '"hang", "hang"')
    with pytest.raises(KeyboardInterrupt):
        supervised(report, script, lanes=2)


def test_a_process_that_cannot_start_ends_it() -> None:
    report = Report(None, dry=False)
    supervised(report, "raise SystemExit(7)")
    assert [r["name"] for r in report.rows] == ["start"]
    assert not report.right
