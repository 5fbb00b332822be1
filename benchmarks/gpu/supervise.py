"""Runs the measuring process and, if it crashes or hangs, starts another after the failed step.

After a fault on a GPU, every later call of the same process fails too.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import Report, missing

_POLL = 0.2  # seconds
_GRACE = 5.0  # seconds past the budget in which a worker may end by itself

# file for what is found, numbers of the steps to take, seconds left
Command = Callable[[Path, Sequence[int], float], list[str]]


def side_by_side(
    command: Command, report: Report, until: float, numbers: Sequence[int], lanes: int
) -> None:
    """Supervise `lanes` workers at a time, which share the steps: for steps that time nothing."""
    with ThreadPoolExecutor(lanes) as pool:
        jobs = [
            pool.submit(supervise, command, report, until, numbers[lane::lanes])
            for lane in range(lanes)
        ]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            report.stopped = True  # Ctrl-C: no lane starts another
            raise


def supervise(command: Command, report: Report, until: float, numbers: Sequence[int]) -> None:
    """Fill the report from one worker after the other until the steps are done or time is up.

    A worker writes one JSON object a line: {"machine": …, "plan": [[i, name], …]}; {"begin": i,
    "name": …, "limit": seconds} before each step; {"row": …}; {"took": seconds} after each step;
    {"done": true} at the end. `until`: of `time.monotonic`.
    """
    while numbers and not report.stopped:
        with tempfile.TemporaryDirectory() as folder:
            worker = _Worker(command, Path(folder) / "found.jsonl", numbers, until, report)
            worker.follow()
        if worker.done:
            return
        # nothing begun: the worker cannot even start, and neither will the next one
        name = "start" if worker.step is None else worker.name
        over = time.monotonic() >= until
        unit = f"stopped: {worker.ended}"
        report.add({"name": name, "value": None, "unit": unit, "ok": None if over else False})
        if over:
            for number, step in worker.plan:
                if worker.step is not None and number > worker.step:
                    report.add(missing(step, "left out: no time"))
        report.write()
        if worker.step is None or over:
            return
        numbers = [number for number in numbers if number > worker.step]


class _Worker:
    """One process.

    Attributes:
        step, name: what it is at.
        plan: numbers and names of its steps.
        done: whether it finished.
        ended: how it ended otherwise.
    """

    def __init__(
        self, command: Command, found: Path, numbers: Sequence[int], until: float, report: Report
    ) -> None:
        found.touch()
        self.step: int | None = None
        self.name = ""
        self.plan: list[tuple[int, str]] = []
        self.done = False
        self.ended = ""
        self._found, self._until, self._report = found, until, report
        self._limit = until + _GRACE
        self._rest = ""
        self._process = subprocess.Popen(command(found, numbers, until - time.monotonic()))

    def follow(self) -> None:
        """Follow it until it ends, or has to be ended."""
        try:
            with self._found.open() as lines:
                while self._process.poll() is None:
                    self._read(lines.read())  # first: it may have written more meanwhile
                    if time.monotonic() >= self._limit or self._report.stopped:
                        break
                    time.sleep(_POLL)
                code = self._process.poll()
                if code is None:
                    over = time.monotonic() >= self._until
                    self.ended = "no time left" if over else "it hangs, or takes far too long"
                else:
                    self.ended = f"the process ended with exit code {code}"
                self._stop()
                self._read(lines.read())
        finally:
            self._stop()

    def _stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _read(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(json.loads(line))
        if lines:
            self._report.write()

    def _take(self, said: dict[str, Any]) -> None:
        if "machine" in said:
            self._report.machine, self.plan = said["machine"], said["plan"]
        elif "begin" in said:
            self.step, self.name = said["begin"], said["name"]
            self._limit = min(time.monotonic() + said["limit"], self._until + _GRACE)
        elif "row" in said:
            self._report.add(said["row"])
        elif "took" in said:
            self._report.took(self.name, said["took"])
        self.done = self.done or "done" in said
