"""The eviction benchmark asks as the engine answers, counts rightly, and goes on where it ended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mmkv
from benchmarks.batched import exact_answers
from benchmarks.eviction import DELAYS, FRAMES, Recorded, run
from benchmarks.eviction_asked import Asked, read_work, to_dict
from benchmarks.eviction_cells import PACKED, WHOLE, Cell, all_cells, main_cells
from benchmarks.eviction_report import plot, summary, table
from benchmarks.needle_world import KINDS, make_world, pictures
from mmkv.models.tiny.world import make_bank

VLM = mmkv.load("mmkv-tiny")
CELLS = [Cell("temporal", 0.5), Cell("text-prior", 0.2, "average", focus=True)]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_questions_asked_together_are_answered_as_each_alone(cell: Cell) -> None:
    world = make_world(7, FRAMES, DELAYS)
    frames = pictures(world.scenes, make_bank(16, seed=10_007), 7)
    questions = [case.question for case in world.cases if case.question.kind in KINDS][::4]
    recorded = Recorded.of(VLM, cell, frames)
    recorded.thinned(cell)
    together = exact_answers(recorded.stream, questions)
    recorded.stream.close()
    with VLM.stream(cell.config()) as stream:
        stream.feed(frames, np.arange(len(frames), dtype=float))
        stream.flush()
        alone = []
        for question in questions:
            chat = stream.chat()
            for asked, answer in question.turns:
                chat.remember(asked, answer)
            told = chat.ask(question.text, max_new_tokens=16).text
            alone.append(int(told == question.answer))
    assert together == alone
    assert sum(alone) > 0


def test_every_policy_is_measured_with_every_merging_at_every_ratio() -> None:
    from benchmarks.eviction_cells import MERGES, POLICIES, RATIOS
    from mmkv.eviction import EVICTIONS
    from mmkv.merging import MERGINGS

    assert set(EVICTIONS) - {"none"} <= set(POLICIES)
    assert set(MERGINGS) == set(MERGES)
    cells = set(all_cells())
    assert {Cell(p, k, m) for p in POLICIES for k in RATIOS for m in MERGES} <= cells
    assert main_cells()[0] == WHOLE


def test_what_was_asked_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "run.jsonl"
    calls: list[Cell] = []

    def ask(vlm: object, cell: Cell, number: int, *rest: object) -> Asked:
        calls.append(cell)
        return Asked(cell, number, [1, 0], cell.keep, 100.0)

    monkeypatch.setattr("benchmarks.eviction.ask", ask)
    monkeypatch.setattr("benchmarks.eviction.Recorded.of", lambda *_: Unused())
    first = run(VLM, [WHOLE], [0], work)
    again = run(VLM, [WHOLE, CELLS[0]], [0], work)
    assert calls == [WHOLE, CELLS[0]]
    assert again[0] == first[0]
    assert list(read_work(work)) == again


class Unused:
    """A recorded stream that nothing is asked about."""

    class stream:
        @staticmethod
        def close() -> None:
            pass


def test_losses_are_those_of_the_same_questions(tmp_path: Path) -> None:
    cases = [[("place", 8), ("with", 20), ("with", 8), ("count", 20)]] * 2
    thin, packed = Cell("diverse", 0.2), Cell("diverse", 0.5, packed=PACKED)
    asked = [
        Asked(WHOLE, 0, [1, 1, 1, 0], 1.0, 400.0),
        Asked(WHOLE, 1, [0, 0, 0, 0], 1.0, 400.0),
        Asked(thin, 0, [1, 0, 0, 0], 0.25, 100.0),
        Asked(packed, 1, [0, 0, 1, 0], 0.5, 20.0),
    ]
    rows = {row["name"]: row for row in summary(asked, cases)}
    assert rows["none 100%"]["exact"] == 37.5
    assert (rows["diverse 20%"]["exact"], rows["diverse 20%"]["lost"]) == (25.0, 50.0)
    assert rows["diverse 20%"]["by_kind"] == {"place": 100.0, "with": 0.0, "count": 0.0}
    assert rows["diverse 20%"]["by_delay"] == {"8": 50.0, "20": 0.0}
    assert rows["diverse 50% K1.5/V1.58"]["lost"] == -25.0
    assert to_dict(asked[3])["cell"] == ["diverse", 0.5, "none", False, PACKED, ()]
    text = table(list(rows.values()))
    assert "| `diverse` K1.5/V1.58 |" in text
    assert text.count("\n") == 4
    pytest.importorskip("matplotlib")
    plot(list(rows.values()), tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
