"""Subtitles, Parquet and HTML."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmkv.demos.captioning.captions import Captions, Segment
from mmkv.demos.captioning.subtitles import subtitles, write_subtitles

SEGMENTS = [
    {"start": 0.0, "end": 1.9996, "caption": "a <b> & c\n\n--> d"},
    {"start": 3661.5, "end": 3700.0, "caption": "bye"},
]


def test_srt() -> None:
    assert subtitles(SEGMENTS, "srt") == (
        "1\n00:00:00,000 --> 00:00:02,000\na ‹b› & c\n--› d\n\n"
        "2\n01:01:01,500 --> 01:01:40,000\nbye\n"
    )


def test_vtt() -> None:
    assert subtitles(SEGMENTS, "vtt") == (
        "WEBVTT\n\n1\n00:00:00.000 --> 00:00:02.000\na ‹b› & c\n--› d\n\n"
        "2\n01:01:01.500 --> 01:01:40.000\nbye\n"
    )


@pytest.mark.parametrize("format", ["srt", "webvtt"])
def test_ffmpeg_reads_them(format: str, tmp_path: Path) -> None:
    import av

    path = tmp_path / f"x.{format}"
    path.write_text(subtitles(SEGMENTS, "srt" if format == "srt" else "vtt"))
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        times = [float(p.pts * p.time_base) for p in container.demux(stream) if p.pts is not None]
    assert times == [0.0, 3661.5]


def test_videos_of_one_name_have_a_file_each(tmp_path: Path) -> None:
    rows = [{"id": id, "path": f"/{id}/x.mp4", "segments": SEGMENTS} for id in ("one", "two")]
    assert len({write_subtitles(row, tmp_path, "srt") for row in rows}) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_parquet_holds_the_rows(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    from mmkv.demos.captioning.parquet import write_parquet

    rows: list[dict[str, Any]] = [
        {"id": str(i), "path": "p", "model": "m", "config_hash": "h", "caption": "c",
         "segments": SEGMENTS, "duration": 2.0, "frames": 2, "config": {"every": 1},
         "timings": {"total": 1.0}, "warnings": []}
        for i in range(700)
    ]  # fmt: skip
    write_parquet(rows, tmp_path / "x.parquet")
    found = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert found[699]["segments"] == SEGMENTS


def captions(caption: str) -> Captions:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    segment = Segment(0.0, 1.0, caption, 1, thumbnail=picture.getvalue())
    return Captions("<i>.mp4", caption, (segment,), 1.0, 1)


def test_html_is_escaped_and_shows_a_thumbnail() -> None:
    page = captions("<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in page
    assert "<i>.mp4" not in page
    assert "&lt;script&gt;" in page
    assert "src='data:image/jpeg;base64," in page


def test_repr_says_what_it_is() -> None:
    assert repr(captions("x" * 100)).startswith("<Captions of <i>.mp4: 1 segment, 1.0 s, 'xxx")
    assert len(repr(captions("x" * 100))) < 120
    assert str(captions("all")) == "all\n0:00-0:01  all"


def test_a_list_may_give_any_id(tmp_path: Path) -> None:
    ids = ("camera-01/a", "camera-01/b", "../../x", "", "0123456789abcdef")
    rows = [{"id": id, "path": "/x.mp4", "segments": SEGMENTS} for id in ids]
    files = {write_subtitles(row, tmp_path / "out", "srt") for row in rows}
    assert set((tmp_path / "out").iterdir()) == files
    assert len(files) == len(ids)
    assert tmp_path / "out" / "x.01234567.srt" in files
