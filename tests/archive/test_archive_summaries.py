"""The index by which frames are found: half precision, less the first block's mean key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from store_blocks import CPU, block, created, fill, kept_rows, resumed, rows

from mmkv.archive import archive, summaries
from mmkv.archive.summaries import SummaryIndex


def test_an_element_takes_two_bytes() -> None:
    index = SummaryIndex(2)
    index.append(0, [torch.randn(3, 6, 2, 16) for _ in range(2)])
    assert index.nbytes == 2 * summaries.ROWS * 6 * 2 * 16 * 2


def test_a_key_bias_of_hundreds_costs_no_precision() -> None:
    rows = 400 * torch.randn(1, 1, 2, 16) + torch.randn(9, 6, 2, 16)
    index = SummaryIndex(1)
    index.append(0, [rows])
    assert (index.view().get(0, 0, 9, CPU) - rows).abs().max() < 5e-3
    assert (rows.half().float() - rows).abs().max() > 5e-2  # what the bias would cost


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_first_block_of_no_numbers_does_not_spoil_the_others(bad: float) -> None:
    rows = torch.randn(4, 1, 1, 4)
    rows[0, 0, 0, 1] = bad
    index = SummaryIndex(1)
    index.append(0, [rows])
    got = index.view().get(0, 0, 4, CPU)
    assert torch.allclose(got[1:], rows[1:], atol=1e-2)


def test_what_is_too_large_for_half_precision_stays_a_number() -> None:
    rows = torch.tensor([0.0, 1e6, -1e6]).view(3, 1, 1, 1)
    index = SummaryIndex(1)
    index.append(0, [rows])
    assert index.view().get(0, 0, 3, CPU).flatten().tolist() == [0.0, 65504.0, -65504.0]


def test_a_store_is_told_the_centre_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    facts = archive.facts
    monkeypatch.setattr(archive, "facts", lambda centre: told.append(0) or facts(centre))
    kept = created(tmp_path / "kept")
    fill(kept, 0, 40)
    kept.close()
    assert len(told) == 1


def test_a_centre_that_could_not_be_told_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = created(tmp_path / "kept")
    assert kept.sink is not None
    with monkeypatch.context() as patch:
        patch.setattr(kept.sink.writer, "note", _full)
        with pytest.raises(OSError, match="no room"):
            fill(kept, 0, 1)
    fill(kept, 0, 40)
    kept.flush()
    kept.close()
    past = resumed(tmp_path / "kept").snapshot()
    assert all(torch.equal(past.summaries(i, 0, 40), kept_rows(0, 40)[i]) for i in range(3))


def test_what_is_stored_is_never_fetched_from_a_device(tmp_path: Path) -> None:
    nowhere = torch.device("meta")  # whatever is fetched from it is an error
    kept = created(tmp_path / "kept")
    for at in range(0, 40, 4):
        held = rows(at, at + 4)
        there = [layer.to(nowhere) for layer in held]
        kept.append([block(i) for i in range(at, at + 4)], there, held)
    kept.flush()
    kept.close()
    past = resumed(tmp_path / "kept").snapshot()
    assert all(torch.equal(past.summaries(i, 0, 40), kept_rows(0, 40)[i]) for i in range(3))


def _full(**facts: Any) -> None:
    raise OSError("no room")
