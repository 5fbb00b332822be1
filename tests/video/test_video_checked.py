"""decord and OpenCV where they would be wrong: PyAV reads the file, or reads on, and says so.

Siblings of each fault: an index with too many frames or with other times, a first picture of
another time, size or orientation, frames repeated at the end, damage midway and at the first frame,
a file cut off, a clock set anew, no PyAV.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import number_of, steady, write_video

from mmkv.video import VideoError, checked, decord_file, open_source

READERS = ["opencv", "decord"]

WORKER = """
import os, struct, sys
from pathlib import Path
sys.path.insert(0, {support!r})
from video_files import numbered
pipe, head = int(sys.argv[2]), struct.Struct("<qqq")
times = {times}
os.write(pipe, head.pack(0, len(times), 0) + struct.pack(f"<{{len(times)}}d", *times))
count, = struct.unpack("<q", sys.stdin.buffer.read(8))
for k in struct.unpack(f"<{{count}}q", sys.stdin.buffer.read(8 * count))[:{given}]:
    picture = {picture}
    os.write(pipe, head.pack(k, *picture.shape[:2]) + picture.tobytes())
os.write(pipe, head.pack(-1, 0, 0))
"""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", steady(30), options={"bf": "2"})


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Puts another process in decord's place: its index, its pictures, how many it gives."""
    monkeypatch.setattr("mmkv.video.open._installed", lambda reader: True)

    def replace(times: str = TIMES, picture: str = "numbered(k)", given: int = 30) -> None:
        path = tmp_path / "worker.py"
        support = str(Path(__file__).parents[1] / "support")
        path.write_text(WORKER.format(support=support, times=times, picture=picture, given=given))
        monkeypatch.setattr(decord_file, "_WORKER", path)

    return replace


TIMES = "[k / 25 for k in range(30)]"


def read(path: Path, reader: str, **options: object) -> tuple[list[tuple[float, int]], list[str]]:
    with open_source(path, **{"fps": None, "reader": reader, **options}) as frames:
        return [(round(when, 3), number_of(frame)) for when, frame in frames], frames.warnings


def skip_without(reader: str) -> None:
    if reader == "decord":
        pytest.importorskip("decord")


def test_a_worker_that_agrees_is_believed(clip: Path, worker: Callable[..., None]) -> None:
    worker()
    assert read(clip, "decord") == (read(clip, "pyav")[0], [])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"times": "[k / 25 for k in range(29)]"}, "29 frames are counted instead of 30"),
        ({"times": "[k / 24 for k in range(30)]"}, "the frames have other times in its index"),
        ({"times": "[0.0] * 30"}, "decord does not know when its frames are shown"),
        ({"times": "[float('nan')] * 30"}, "decord does not know when its frames are shown"),
        ({"picture": "numbered(k + 12)"}, "the first frame is another picture"),
        ({"picture": "numbered(k, 48, 80)"}, "the first frame has 48×80 pixels instead of 80×48"),
        ({"given": 0}, "decord decodes not a single frame of it"),
    ],
)
def test_a_worker_that_disagrees_is_replaced(
    clip: Path, worker: Callable[..., None], wrong: dict[str, object], why: str
) -> None:
    worker(**wrong)
    got, warnings = read(clip, "decord")
    assert got == read(clip, "pyav")[0]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{clip}: read by PyAV instead of decord: {why}")


@pytest.mark.parametrize("fps", [None, 5.0])
def test_pyav_reads_on_where_the_worker_stops(
    clip: Path, worker: Callable[..., None], fps: float | None
) -> None:
    worker(given=3)
    got, warnings = read(clip, "decord", fps=fps)
    assert got == read(clip, "pyav", fps=fps)[0]
    assert warnings == [
        f"{clip}: decord gives no more frames; PyAV read what comes after {got[2][0]:.1f} s"
    ]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("packet", [0, 20])
@pytest.mark.parametrize("fps", [None, 5.0])
def test_damage_is_survived_as_by_pyav(
    clip: Path, reader: str, packet: int, fps: float | None
) -> None:
    skip_without(reader)
    with av.open(str(clip)) as container:
        places = [(one.pos, one.size) for one in container.demux(video=0) if one.size]
    data = bytearray(clip.read_bytes())
    at, size = places[packet]
    data[at + 5 : at + size] = bytes(size - 5)
    clip.write_bytes(data)
    want, said = read(clip, "pyav", fps=fps)
    got, warnings = read(clip, reader, fps=fps)
    assert got == want
    assert warnings[-len(said) :] == said
    assert len(warnings) == len(said) + 1
    assert "PyAV" in warnings[0]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["front.mp4", "clip.mkv", "clip.flv"])
def test_files_cut_off_are_read_as_by_pyav(tmp_path: Path, reader: str, name: str) -> None:
    skip_without(reader)
    path = write_video(
        tmp_path / name,
        steady(60),
        options={"bf": "2"},
        container_options={"movflags": "faststart"} if name.endswith("mp4") else {},
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    want, said = read(path, "pyav")
    got, warnings = read(path, reader)
    assert got == want
    assert 20 < len(got) < 60
    assert set(said) <= set(warnings)
    assert any("ends early" in line for line in warnings)


@pytest.mark.parametrize("reader", READERS)
def test_joined_recordings_are_read_as_by_pyav(tmp_path: Path, reader: str) -> None:
    skip_without(reader)
    path = write_video(tmp_path / "clip.ts", steady(30), options={"bf": "2"})
    path.write_bytes(path.read_bytes() * 2)
    got, warnings = read(path, reader)
    assert got == read(path, "pyav")[0]
    assert [number for _, number in got] == [*range(30), *range(30)]
    assert "instead of" in warnings[0]


@pytest.mark.parametrize("reader", READERS)
def test_without_pyav_a_warning_says_that_nothing_was_checked(
    clip: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    skip_without(reader)
    monkeypatch.setattr(checked, "find_spec", lambda name: None)
    got, warnings = read(clip, reader)
    assert [number for _, number in got] == list(range(30))
    assert len(warnings) == 1
    assert "could not be checked, because PyAV is not installed (pip install av)" in warnings[0]


def test_without_pyav_decord_stops_instead_of_repeating_its_last_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("decord")
    monkeypatch.setattr(checked, "find_spec", lambda name: None)
    path = write_video(tmp_path / "clip.ts", steady(60), options={"bf": "2"})
    got, warnings = read(path, "decord")
    numbers = [number for _, number in got]
    assert numbers == sorted(set(numbers))
    assert len(numbers) < 60
    assert "it would show a frame again in place of one that it lost" in warnings[-1]


def test_without_pyav_raw_streams_are_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "find_spec", lambda name: None)
    path = write_video(tmp_path / "clip.h264", steady(30))
    got, warnings = read(path, "opencv")
    assert [number for _, number in got] == list(range(30))
    assert np.diff([when for when, _ in got]).min() > 0
    assert any("frames without a time: 29" in line for line in warnings)
    skip_without("decord")
    with pytest.raises(VideoError, match=r"clip\.h264: decord"):
        read(path, "decord")
