"""`mmkv find`: a table of moments, or JSON, of a video or of a stream kept on disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import mmkv
from mmkv.answer.find import Moment
from mmkv.cli import main, options
from mmkv.cli.find import lines
from mmkv.models.tiny import SAMPLE_VIDEO
from mmkv.retrieval.registry import SCORES

QUICK = ["--fps", "0.2", "--model", "mmkv-tiny"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mmkv", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return end.value.code, out, err  # type: ignore[return-value]

    return call


def test_moments_are_a_table_of_when_best_and_score() -> None:
    found = (Moment(62.0, 65.0, 63.0, 63, 3.21), Moment(7.0, 7.0, 7.0, 7, 1.0))
    assert lines(found) == [
        "     when  best at  score",
        "1:02-1:05     1:03   3.21",
        "     0:07     0:07   1.00",
    ]
    assert lines(()) == ["nothing stands out"]


def test_a_video_is_searched_and_the_moments_are_within_since_and_until(run) -> None:  # type: ignore[no-untyped-def]
    limits = ["--since", "0:20", "--until", "1:40"]
    code, out, err = run("find", "sample", "the red circle", "-k", "3", "--json", *limits, *QUICK)
    assert code == 0, err
    found = json.loads(out)
    assert found["text"] == "the red circle"
    assert 1 <= len(found["moments"]) <= 3
    assert all(20 <= m["start"] <= m["seconds"] <= m["end"] <= 100 for m in found["moments"])
    scores = [m["score"] for m in found["moments"]]
    assert scores == sorted(scores, reverse=True)


def test_a_store_is_searched_without_the_video(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    kept = str(tmp_path / "of-the-sample")
    assert run("encode", "sample", "--store", kept, *QUICK)[0] == 0
    code, out, err = run("find", "--store", kept, "the red circle", "--json")
    assert code == 0, err
    kept_ones = json.loads(out)["moments"]
    seen = json.loads(run("find", "sample", "the red circle", "--json", *QUICK)[1])["moments"]
    assert [m["index"] for m in kept_ones] == [m["index"] for m in seen]
    # a store keeps summaries in 16 bits
    assert [m["score"] for m in kept_ones] == pytest.approx([m["score"] for m in seen], abs=0.01)


def test_a_text_is_needed_and_only_one_place_to_look(run) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("find", "sample")
    assert code == 2
    assert "no text given" in err
    code, _, err = run("find", "--store", "x", "sample", "the red circle")
    assert code == 2
    assert "there is no VIDEO" in err


def test_a_store_whose_score_finds_nothing_is_searched_by_another(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    kept = str(tmp_path / "spread")
    config = mmkv.CacheConfig(score="uniform", landmarks=0)
    with mmkv.load("mmkv-tiny").stream(config, store=kept) as stream:
        stream.encode(SAMPLE_VIDEO, fps=0.2)
    code, out, err = run("find", "--store", kept, "the red circle")
    assert (code, out) == (1, "")
    assert "score='uniform'" in err
    assert "Traceback" not in err
    code, out, err = run("find", "--store", kept, "the red circle", "--score", "mean-key", "--json")
    assert code == 0, err
    assert json.loads(out)["moments"]


def test_scores_of_the_command_are_those_of_the_engine() -> None:
    assert set(options.SCORES) == set(SCORES)
