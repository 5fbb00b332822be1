"""Rows on the disk: whole, once, and there to stay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkv.demos.captioning.job import Job
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.output import Output, OutputError
from mmkv.demos.captioning.progress import Tally
from mmkv.demos.captioning.run import Result, part_of, resumed, written
from mmkv.demos.captioning.settings import Captioning


def row(number: int, digest: str = "abc") -> dict[str, Any]:
    return {"id": f"v{number}", "path": f"/{number}.mp4", "config_hash": digest, "caption": "ü\n."}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "captions.jsonl"  # type: ignore[return-value]


def test_rows_are_appended_one_per_line(out: Path) -> None:
    with Output(out) as output:
        output.add(row(1))
        output.add(row(2))
    assert lines(out) == [row(1), row(2)]


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_goes_on_with_whole_rows_only(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "captions.jsonl"
    whole = b"".join(json.dumps(row(i), ensure_ascii=False).encode() + b"\n" for i in range(4))
    path.write_bytes(whole[:cut])
    with Output(path) as output:
        for number in range(4):
            if f"v{number}" not in output.rows:
                output.add(row(number))
    assert lines(path) == [row(number) for number in range(4)]


def test_a_last_row_without_its_line_end_is_kept(out: Path) -> None:
    out.write_text(json.dumps(row(1)))
    with Output(out) as output:
        assert list(output.rows) == ["v1"]
    assert lines(out) == [row(1)]


def test_a_file_of_something_else_is_left_alone(out: Path) -> None:
    out.write_text("dear diary")
    with pytest.raises(OutputError, match="does not hold JSON lines"):
        Output(out)
    assert out.read_text(encoding="utf-8") == "dear diary"


def test_a_damaged_line_in_the_middle_is_told_by_its_number(out: Path) -> None:
    out.write_text(json.dumps(row(1)) + "\n{torn\n" + json.dumps(row(2)) + "\n")
    with pytest.raises(OutputError, match="line 2"):
        Output(out)


def test_two_runs_on_one_file_are_refused(out: Path) -> None:
    with Output(out), pytest.raises(OutputError, match="another run is writing"):
        Output(out)
    Output(out).close()


def test_the_lock_outlives_a_replaced_file(out: Path) -> None:
    with Output(out) as output:
        output.add(row(1))
        output.drop({"v1"})
        with pytest.raises(OutputError, match="another run is writing"):
            Output(out)


def test_dropping_rows_keeps_the_others_and_takes_new_ones(out: Path) -> None:
    with Output(out) as output:
        for number in (1, 2, 3):
            output.add(row(number))
        output.drop({"v2"})
        output.add(row(4))
    assert lines(out) == [row(1), row(3), row(4)]


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("captions.jsonl", "captions.errors.jsonl"),
        ("a.b.jsonl", "a.b.errors.jsonl"),
        ("plain", "plain.errors.jsonl"),
        ("captions-1-of-2.jsonl", "captions-1-of-2.errors.jsonl"),
    ],
)
def test_failures_go_to_a_file_of_the_same_name(tmp_path: Path, name: str, errors: str) -> None:
    with Output(tmp_path / name) as output:
        output.fail({"id": "v1", "reason": "no"})
    assert lines(tmp_path / errors) == [{"id": "v1", "reason": "no"}]


def test_failures_of_another_output_in_the_folder_are_not_touched(tmp_path: Path) -> None:
    for number in (1, 2):
        with Output(tmp_path / f"{number}.jsonl") as output:
            output.fail({"id": f"v{number}", "reason": "no"})
    assert [error["id"] for error in lines(tmp_path / "1.errors.jsonl")] == ["v1"]


def test_a_file_of_failures_is_not_taken_for_rows(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a file of failures"):
        Output(tmp_path / "captions.errors.jsonl")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such folder"):
        Output(tmp_path / "no" / "captions.jsonl")


VIDEOS = [Video(f"v{i}", f"/{i}.mp4") for i in range(3)]


def old_and_new(out: Path) -> tuple[Job, str]:
    job = Job(Captioning(every=2))
    with Output(out) as output:
        output.add(row(0, digest=job.digest))
        output.add(row(1, digest="other"))
    return job, job.digest


def test_rows_of_other_settings_stop_a_run(out: Path) -> None:
    job, _ = old_and_new(out)
    with Output(out) as output, pytest.raises(OutputError, match="other settings"):
        resumed(VIDEOS, job, output, "refuse")


def test_rows_of_other_settings_are_kept_on_request(out: Path) -> None:
    job, _ = old_and_new(out)
    with Output(out) as output:
        assert resumed(VIDEOS, job, output, "keep") == VIDEOS[2:]


def test_rows_of_other_settings_are_made_anew_on_request(out: Path) -> None:
    job, digest = old_and_new(out)
    with Output(out) as output:
        assert resumed(VIDEOS, job, output, "redo") == VIDEOS[1:]
    assert [r["config_hash"] for r in lines(out)] == [digest]


def spoken(number: int, words: str, digest: str) -> dict[str, Any]:
    segments = [{"start": 0.0, "end": 2.0, "caption": words}]
    return {**row(number, digest), "segments": segments, "duration": 2.0}


def test_captions_made_anew_get_new_subtitles(out: Path) -> None:
    job, folder = Job(Captioning(every=2)), out.with_name("captions-subtitles")

    def old(tally: Tally) -> Iterator[Result]:
        yield VIDEOS[0], spoken(0, "as it was", job.digest)
        yield VIDEOS[1], spoken(1, "old words", "other")

    def new(tally: Tally) -> Iterator[Result]:
        assert [
            file.read_text(encoding="utf-8").count("as it was") for file in folder.iterdir()
        ] == [1]
        yield VIDEOS[1], spoken(1, "new words", job.digest)

    with Output(out) as output:
        written(old, VIDEOS[:2], VIDEOS[:2], job, output, ["srt"], None)
        todo = resumed(VIDEOS[:2], job, output, "redo")
        written(new, VIDEOS[:2], todo, job, output, ["srt"], None)
    told = " ".join(file.read_text(encoding="utf-8") for file in folder.iterdir())
    assert ("as it was" in told, "new words" in told, "old words" in told) == (True, True, False)


def test_rows_of_videos_that_are_not_asked_for_do_not_matter(out: Path) -> None:
    job, _ = old_and_new(out)
    with Output(out) as output:
        assert resumed([VIDEOS[0], VIDEOS[2]], job, output, "refuse") == VIDEOS[2:]


def test_each_part_of_a_job_has_its_file() -> None:
    assert part_of(Path("a/c.jsonl"), 8, 2) == Path("a/c-2-of-8.jsonl")
    assert part_of(Path("a/c.jsonl"), 1, 0) == Path("a/c.jsonl")
