"""Every reader gives the frames that a file shows, at the times at which it shows them.

What is right is known twice: by construction of the file (`video_rows`), and from ffprobe where it
is installed.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from video_makers import TURNS, number_of_marked
from video_rows import EITHER, PYAV, READS, ROWS, Row, table

from mmkv.video import open_source

READERS = ["pyav", "decord", "opencv"]
ROUNDING = 1.5e-3  # seconds: containers round to milliseconds, and so does the clock's zero

Files = dict[str, Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return {"folder": tmp_path_factory.mktemp("matrix")}


def made(row: Row, files: Files) -> Path:
    """The row's file, made once."""
    if row.file not in files:
        path = files["folder"] / row.file
        row.make(path)
        files[row.file] = path
    return files[row.file]


def seen(row: Row, frame: np.ndarray) -> int:
    """The number of a frame that is the right way up and has the right shape; else -1."""
    picture = TURNS[row.matrix](frame)
    width, height = row.size
    right = picture.shape == (height, round(width * row.aspect), 3)
    return number_of_marked(picture) if right else -1


def readers() -> list[str]:
    return [one for one in READERS if one != "decord" or importlib.util.find_spec("decord")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file)
def test_every_reader_gives_all_frames_at_their_times(files: Files, row: Row) -> None:
    roles = {"pyav": READS, "decord": row.kind.decord, "opencv": row.kind.opencv}
    for reader in readers():
        with open_source(made(row, files), fps=None, reader=reader) as source:
            got = [(seconds, seen(row, frame)) for seconds, frame in source]
        assert [number for _, number in got] == list(row.numbers), reader
        assert [seconds for seconds, _ in got] == pytest.approx(row.times, abs=ROUNDING), reader
        notes = [line for line in source.warnings if f"read by {row.kind.instead} instead" in line]
        if roles[reader] != EITHER:
            assert len(notes) == (roles[reader] == PYAV), (reader, source.warnings)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file)
def test_every_reader_gives_what_is_on_screen_twice_a_second(files: Files, row: Row) -> None:
    """How long the last frame stays, containers say differently; the readers agree on that too."""
    want = on_screen(row, 2.0)
    first: list[tuple[float, int]] = []
    for reader in readers():
        with open_source(made(row, files), fps=2.0, reader=reader) as source:
            got = [(seconds, seen(row, frame)) for seconds, frame in source]
        numbers = [number for _, number in got]
        assert numbers[: len(want)] == [number for _, number in want], reader
        assert set(numbers[len(want) :]) <= {row.numbers[-1]}, reader
        times = [seconds for seconds, _ in got]
        assert times[: len(want)] == pytest.approx([when for when, _ in want], abs=ROUNDING), reader
        first = first or got
        assert numbers == [number for _, number in first], reader
        assert times == pytest.approx([when for when, _ in first], abs=ROUNDING), reader


@pytest.mark.parametrize("row", [row for row in ROWS if "turned" in row.file or row.aspect != 1])
def test_every_reader_scales_to_the_same_size(files: Files, row: Row) -> None:
    shapes = set()
    for reader in readers():
        with open_source(made(row, files), reader=reader, max_side=57) as source:
            shapes |= {frame.shape for _, frame in source}
    assert len(shapes) == 1
    assert max(next(iter(shapes))) == 57


def on_screen(row: Row, fps: float) -> list[tuple[float, int]]:
    """Times and numbers of the frames on screen at each grid time up to the last frame's."""
    found: list[tuple[float, int]] = []
    last = step = 0
    while (when := row.times[0] + step / fps) <= row.times[-1] - ROUNDING:
        at = max(k for k, begin in enumerate(row.times) if begin <= when + ROUNDING)
        found.append((when if found and at == last else row.times[at], row.numbers[at]))
        last, step = at, step + 1
    return found


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file)
def test_ffprobe_finds_the_same_times(files: Files, row: Row) -> None:
    asked = "frame=best_effort_timestamp_time:format=start_time"
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", asked]
    done = subprocess.run(
        [*command, "-of", "json", str(made(row, files))], capture_output=True, check=True
    )
    answer = json.loads(done.stdout)
    zero = float(answer["format"].get("start_time", 0))
    stamps = [frame.get("best_effort_timestamp_time") for frame in answer["frames"]]
    known = [float(stamp) - zero for stamp in stamps if stamp is not None]
    agrees = (
        len(stamps) == len(row.times)
        and None not in stamps[: len(known)]  # the decoder's last few come without
        and len(known) > 0
        and known == pytest.approx(row.times[: len(known)], abs=ROUNDING)
    )
    assert agrees or row.probe, f"{stamps}, zero {zero}"


def test_the_documentation_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    section = page.split("### One file, three readers")[1].split("\n#")[0]
    assert [line for line in section.splitlines() if line.startswith("|")] == table()
    assert (
        f"writes {len(ROWS)} small files: {len({Path(row.file).suffix for row in ROWS})} "
        in section
    )
