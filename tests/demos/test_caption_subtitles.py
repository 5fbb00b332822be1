"""Subtitles say the same to FFmpeg, pysubs2, webvtt-py and srt."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkv.demos.captioning.subtitles import cue_text, subtitles

Cue = tuple[int, int, str]  # milliseconds of start and end, text


def by_ffmpeg(path: Path) -> list[Cue]:
    """Through the decoder that writes SubStation lines, whose escapes are undone."""
    cues = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        for packet in container.demux(stream):
            if packet.pts is None or packet.time_base is None:
                continue
            start = round(1000 * packet.pts * packet.time_base)
            end = start + round(1000 * (packet.duration or 0) * packet.time_base)
            for subtitle in stream.decode2(packet).rects:  # type: ignore[union-attr]
                line = subtitle.ass.decode().split(",", 8)[8]
                text = re.sub(r"\{[^}]*\}", "", line).replace(r"\N", "\n").replace(r"\h", " ")
                cues.append((start, end, text))
    return cues


def by_pysubs2(path: Path) -> list[Cue]:
    pysubs2 = pytest.importorskip("pysubs2")
    return [(cue.start, cue.end, cue.plaintext) for cue in pysubs2.load(str(path))]


def by_webvtt(path: Path) -> list[Cue]:
    webvtt = pytest.importorskip("webvtt")
    read = webvtt.read if path.suffix == ".vtt" else webvtt.from_srt
    return [
        (round(1000 * cue.start_in_seconds) + cue.start_time.milliseconds,
         round(1000 * cue.end_in_seconds) + cue.end_time.milliseconds, cue.text)
        for cue in read(str(path))
    ]  # fmt: skip


def by_srt(path: Path) -> list[Cue]:
    srt = pytest.importorskip("srt")
    one = timedelta(milliseconds=1)
    return [
        (round(cue.start / one), round(cue.end / one), cue.content)
        for cue in srt.parse(path.read_text(encoding="utf-8"))
    ]


READERS: list[tuple[str, Callable[[Path], list[Cue]]]] = [
    ("srt", by_ffmpeg), ("srt", by_pysubs2), ("srt", by_webvtt), ("srt", by_srt),
    ("vtt", by_ffmpeg), ("vtt", by_pysubs2), ("vtt", by_webvtt),
]  # fmt: skip
readers = pytest.mark.parametrize(
    ("format", "read"), READERS, ids=[f"{f}-{r.__name__}" for f, r in READERS]
)


def segment(start: float, end: float, caption: str) -> dict[str, Any]:
    return {"start": start, "end": end, "caption": caption}


def read_back(
    path: Path, format: str, read: Callable[[Path], list[Cue]], segments: list[dict[str, Any]]
) -> list[Cue]:
    """What a reader makes of segments that are written to a file."""
    file = path / f"x.{format}"
    file.write_text(subtitles(segments, format), encoding="utf-8")
    return read(file)


CAPTIONS = {
    "a <b>bold</b> <i>word</i>": "a ‹b›bold‹/b› ‹i›word‹/i›",
    "{x} and {\\an8}": "(x) and (/an8)",
    "one --> two": "one --› two",
    "00:00:01,000 --> 00:00:02,000": "00:00:01·000 --› 00:00:02·000",
    "from 0:00:01.50 to 0:00:02.50": "from 0:00:01·50 to 0:00:02·50",
    "at 1:02:03.5 it is over": "at 1:02:03.5 it is over",
    "first\n\n\n  second  line\n": "first\nsecond line",
    "how many:\n42": "how many: 42",
    "42": "42",
    "Jack & Jill, AT&T": "Jack & Jill, AT&T",
    "&lt;b&gt; &amp; &#65; &copy": "& lt;b& gt; & amp; & #65; & copy",
    "C:\\new\\home\\Nord": "C:/new/home/Nord",
    "NOTE this": "NOTE this",
    "WEBVTT": "WEBVTT",
    "STYLE\nREGION": "STYLE\nREGION",
    "- \"What?\" – 'Ça va', 5 < 6 > 4": "- \"What?\" – 'Ça va', 5 ‹ 6 › 4",
    "a\x00b\x1b[0m\ufeffc\u2028d": "ab[0mc\nd",
    "سلام 你好 🎬": "سلام 你好 🎬",
}


@readers
def test_captions_are_read_back_alike(
    tmp_path: Path, format: str, read: Callable[[Path], list[Cue]]
) -> None:
    """Tags, styles, arrows, times, entities, backslashes, empty lines, numbers, key words."""
    segments = [segment(i, i + 0.75, caption) for i, caption in enumerate(CAPTIONS)]
    want = [(1000 * i, 1000 * i + 750, text) for i, text in enumerate(CAPTIONS.values())]
    assert read_back(tmp_path, format, read, segments) == want


@readers
def test_times_are_read_back_alike(
    tmp_path: Path, format: str, read: Callable[[Path], list[Cue]]
) -> None:
    """Siblings: cues that overlap, hold one another, begin together, touch, and last no time."""
    spans = [(0, 5), (1, 2), (4, 6), (4, 4), (6, 6.5), (6.5, 7), (59.9996, 60), (3599.9, 3600.1),
             (356400 - 2, 356400 - 1)]  # fmt: skip
    segments = [segment(start, end, f"cue {i}") for i, (start, end) in enumerate(spans)]
    want = [
        (round(1000 * start), max(round(1000 * end), round(1000 * start) + 1), f"cue {i}")
        for i, (start, end) in enumerate(spans)
    ]
    assert read_back(tmp_path, format, read, segments) == want


@readers
def test_more_than_99_hours(tmp_path: Path, format: str, read: Callable[[Path], list[Cue]]) -> None:
    if (format, read) == ("srt", by_pysubs2):
        pytest.skip("pysubs2 reads two digits of hours of SubRip")
    segments = [segment(360000, 360001.5, "late"), segment(3600000, 3600001, "later")]
    want = [(360000000, 360001500, "late"), (3600000000, 3600001000, "later")]
    assert read_back(tmp_path, format, read, segments) == want


@readers
def test_a_caption_without_a_word_is_left_out(
    tmp_path: Path, format: str, read: Callable[[Path], list[Cue]]
) -> None:
    segments = [segment(0, 1, " \n "), segment(1, 2, "a"), segment(2, 3, ""), segment(3, 4, "b")]
    assert read_back(tmp_path, format, read, segments) == [(1000, 2000, "a"), (3000, 4000, "b")]


PIECES = [*"ab 17\n<>{}\\&;:.,-/!#\t\"'é\x00\u2028", "-->", "00:00:01,000", "<b>", "NOTE", "&amp"]
WORDS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@settings(deadline=None, max_examples=60)
@given(captions=st.lists(WORDS, max_size=6))
def test_any_captions_are_read_back_alike(
    tmp_path_factory: pytest.TempPathFactory, captions: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("cues")
    captions = ["no file is without a cue", *captions]
    segments = [segment(i, i + 1, caption) for i, caption in enumerate(captions)]
    want = [
        (1000 * i, 1000 * i + 1000, text)
        for i, caption in enumerate(captions)
        if (text := cue_text(caption))
    ]
    for format, read in READERS:
        assert read_back(folder, format, read, segments) == want, (format, read.__name__)
