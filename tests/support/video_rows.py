"""The matrix of video files: how each is made, and what it shows when, by construction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from video_makers import COUNT, UPRIGHT, edit, encode, encode_with_ffmpeg, turn

NTSC = Fraction(30000, 1001)
READS, PYAV, EITHER = "reads", "is replaced", "may read"
SAID = {READS: "reads them", PYAV: "{} does", EITHER: "depends on its build"}


@dataclass(frozen=True)
class Kind:
    """Files that every reader treats alike.

    Attributes:
        name: as in the documentation's table.
        decord: whether decord reads them (READS), PyAV does in its place (PYAV), or that depends
            on the build (EITHER).
        opencv: the same for OpenCV.
        instead: what reads them where the reader that was asked for does not.
    """

    name: str
    decord: str = READS
    opencv: str = READS
    instead: str = "PyAV"


@dataclass(frozen=True)
class Row:
    """One file.

    Attributes:
        file: its name.
        kind: what the readers make of it.
        make: writes it.
        times: seconds of each shown frame on a player's clock.
        numbers: which frames these are.
        matrix: how its track is turned.
        size: width and height as stored.
        aspect: a pixel's width over its height.
        probe: why ffprobe may have other times; empty where it must not.
    """

    file: str
    kind: Kind
    make: Callable[[Path], None]
    times: tuple[float, ...]
    numbers: tuple[int, ...] = tuple(range(COUNT))
    matrix: tuple[int, int, int, int] = UPRIGHT
    size: tuple[int, int] = (80, 48)
    aspect: Fraction | int = 1
    probe: str = ""


def _at(rate: Fraction | int, late: float = 0.0) -> tuple[float, ...]:
    return tuple(late + float(k / Fraction(rate)) for k in range(COUNT))


def _row(file: str, kind: Kind, codec: str, late: float = 0.0, probe: str = "", **how: Any) -> Row:
    """A file that PyAV writes; the time of its first frame is `late`."""
    rate, stamps = how.get("rate", 25), how.get("milliseconds")
    times = _at(rate, late)
    if stamps:
        times = tuple(late + (stamp - stamps[0]) / 1000 for stamp in stamps)
    shape = {name: how[name] for name in ("size", "aspect") if name in how}
    return Row(file, kind, lambda path: encode(path, codec, **how), times, probe=probe, **shape)


def _gaps(*gaps: int) -> Sequence[int]:
    """Times in milliseconds with these gaps in turn."""
    times = [0]
    while len(times) < COUNT:
        times.append(times[-1] + gaps[len(times) % len(gaps)])
    return times


_UNEVEN = _gaps(10, 33, 40, 100, 700, 20)
_HELD = [40 * k if k < 12 else 3500 + 40 * k for k in range(COUNT)]
_LATE = [500 + 40 * k for k in range(COUNT)]

MP4 = Kind("MP4, MOV, M4V, 3GP: H.264, HEVC, MPEG-4, H.263, ProRes, Motion JPEG; also fragmented")
AV1 = Kind("AV1 in any container", PYAV, EITHER)
MKV = Kind("Matroska, WebM: H.264, VP8, VP9, MPEG-2, FFV1")
FLV = Kind("FLV, WMV, RealMedia, MXF, NUT, YUV4MPEG")
AVI = Kind("AVI: Motion JPEG, MPEG-4 without B-frames")
AVI_B = Kind("AVI: H.264, MPEG-4 with B-frames", PYAV)
TS = Kind("transport streams (TS, M2TS) and program streams (MPG, VOB)", PYAV)
OTHER = Kind("Ogg, IVF", PYAV)
GIF = Kind("GIF that moves", PYAV, PYAV, "Pillow")
RAW = Kind("raw streams: H.264, HEVC, MPEG-2, Motion JPEG", PYAV, PYAV)
LATE = Kind("film that starts behind the sound, or at 100 s")
CUT = Kind("MP4 whose edit list leaves something out", PYAV)
TURNED = Kind("turned or mirrored", PYAV)
INTERLACED = Kind("interlaced MP4", READS, EITHER)
CLEAR = Kind("pictures that may be transparent, or of a high dynamic range", PYAV, PYAV)
OBLONG = Kind("pixels that are not square")


def _edited(
    file: str, segments: Sequence[tuple[float, float]], *runs: range, b_frames: int = 0
) -> Row:
    """An MP4 with an edit list; each run of frames follows the one before it."""

    def make(path: Path) -> None:
        encode(path, "libx264", b_frames=b_frames)
        edit(path, segments)

    numbers = tuple(number for run in runs for number in run)
    return Row(file, CUT, make, tuple(k / 25 for k in range(len(numbers))), numbers)


def _turned(matrix: tuple[int, int, int, int]) -> Row:
    def make(path: Path) -> None:
        encode(path, "libx264", b_frames=2)
        turn(path, matrix)

    return Row(f"turned{'_'.join(map(str, matrix))}.mp4", TURNED, make, _at(25), matrix=matrix)


PQ = "transfer=smpte2084:colorprim=bt2020:colormatrix=bt2020nc"
NO_TIMES = "it has no times, or those of decoding only"
PRIMED = "some versions count from what the sound's decoder is primed with"
B: dict[str, Any] = {"b_frames": 2}
LARGER: dict[str, Any] = {"size": (96, 64)}
ROWS = [
    _row("h264.mp4", MP4, "libx264"),
    _row("h264-b.mp4", MP4, "libx264", **B),
    _row("h264-b-29.97.mp4", MP4, "libx264", rate=NTSC, **B),
    _row("h264-b-uneven.mp4", MP4, "libx264", milliseconds=_UNEVEN, **B),
    _row("h264-held.mp4", MP4, "libx264", milliseconds=_HELD),
    _row("fragments.mp4", MP4, "libx264", muxer={"movflags": "frag_keyframe+empty_moov"}, **B),
    _row("negative.mp4", MP4, "libx264", muxer={"movflags": "negative_cts_offsets"}, **B),
    _row("hevc-b.mp4", MP4, "libx265", **B),
    _row("mpeg4.m4v", MP4, "mpeg4", rate=10),
    _row("h264-b.3gp", MP4, "libx264", **B),
    # without a word on it, H.263 has the pixels of television
    replace(_row("h263.3gp", MP4, "h263", rate=NTSC, size=(128, 96)), aspect=Fraction(12, 11)),
    _row("prores.mov", MP4, "prores_ks", pixels="yuv422p10le"),
    _row("mjpeg.mov", MP4, "mjpeg", pixels="yuvj420p"),
    _row("av1.mp4", AV1, "libsvtav1", **LARGER),
    _row("av1.webm", AV1, "libsvtav1", **LARGER),
    _row("h264-b.mkv", MKV, "libx264", **B),
    _row("ffv1.mkv", MKV, "ffv1"),
    _row("mpeg2-b.mkv", MKV, "mpeg2video", **B),
    _row("vp9-uneven.mkv", MKV, "libvpx-vp9", milliseconds=_UNEVEN),
    _row("vp9-held.mkv", MKV, "libvpx-vp9", milliseconds=_HELD),
    _row("vp8.webm", MKV, "libvpx", rate=10),
    _row("vp9-29.97.webm", MKV, "libvpx-vp9", rate=NTSC),
    _row("h264-b.flv", FLV, "libx264", **B),
    _row("flv1.flv", FLV, "flv"),
    _row("wmv2.wmv", FLV, "wmv2"),
    _row("rv20.rm", FLV, "rv20", size=(128, 96)),
    _row("mpeg2-b.mxf", FLV, "mpeg2video", **B),
    _row("h264-b.nut", FLV, "libx264", **B),
    _row("raw.y4m", FLV, "wrapped_avframe"),
    _row("mjpeg.avi", AVI, "mjpeg", pixels="yuvj420p"),
    _row("mpeg4.avi", AVI, "mpeg4", rate=NTSC),
    _row("h264.avi", AVI_B, "libx264"),
    _row("mpeg4-b.avi", AVI_B, "mpeg4", probe=NO_TIMES, **B),
    _row("h264-b.avi", AVI_B, "libx264", probe=NO_TIMES, **B),
    _row("h264-b.ts", TS, "libx264", **B),
    _row("h264-b.m2ts", TS, "libx264", **B),
    _row("hevc-b.ts", TS, "libx265", **B),
    _row("mpeg2-b-29.97.ts", TS, "mpeg2video", rate=NTSC, **B),
    _row("mpeg2-b.mpg", TS, "mpeg2video", **B),
    _row("mpeg1-b.vob", TS, "mpeg1video", **B),
    Row("theora.ogv", OTHER, lambda path: encode_with_ffmpeg(path, ["-q:v", "8"]), _at(25)),
    _row("a.gif", GIF, "gif", rate=10, pixels="rgb8"),
    _row("vp9.ivf", OTHER, "libvpx-vp9"),
    _row("h264-b.h264", RAW, "libx264", probe=NO_TIMES, **B),
    _row("hevc-b.hevc", RAW, "libx265", probe=NO_TIMES, **B),
    _row("mpeg2-b.m2v", RAW, "mpeg2video", probe=NO_TIMES, **B),
    _row("mjpeg.mjpeg", RAW, "mjpeg", pixels="yuvj420p"),
    _row("late.mp4", LATE, "libx264", 0.5, milliseconds=_LATE, sound=2.0),
    _row("late.mkv", LATE, "libx264", 0.5, PRIMED, milliseconds=_LATE, sound=2.0),
    _row("late-100.mp4", LATE, "libx264", first=2500),
    _edited("trimmed.mp4", [(0.72, 0.4)], range(10, 28), b_frames=2),
    _edited("shortened.mp4", [(0.8, 0.0)], range(20), b_frames=2),
    _edited("middle-cut.mp4", [(0.4, 0.0), (0.32, 0.8)], range(10), range(20, 28)),
    _edited("swapped.mp4", [(0.32, 0.8), (0.4, 0.0)], range(20, 28), range(10)),
    _turned((-1, 0, 0, -1)),
    _turned((0, 1, -1, 0)),
    _turned((0, -1, 1, 0)),
    _turned((-1, 0, 0, 1)),
    _turned((1, 0, 0, -1)),
    _turned((0, 1, 1, 0)),
    _turned((0, -1, -1, 0)),
    _row("interlaced.mp4", INTERLACED, "libx264", options={"x264-params": "interlaced=1:tff=1"}),
    _row("clear.mov", CLEAR, "png", pixels="rgba"),
    _row("pq.mp4", CLEAR, "libx264", pixels="yuv420p10le", options={"x264-params": PQ}),
    _row("oblong.mp4", OBLONG, "libx264", aspect=2),
    _row("oblong.mkv", OBLONG, "libx264", aspect=2),
]


def table() -> list[str]:
    """The documentation's table of kinds, line by line."""
    lines = ["| files | PyAV | decord | OpenCV |", "|---|---|---|---|"]
    for kind in dict.fromkeys(row.kind for row in ROWS):
        pyav = READS if kind.instead == "PyAV" else PYAV
        cells = [SAID[role].format(kind.instead) for role in (pyav, kind.decord, kind.opencv)]
        lines.append(f"| {kind.name} | {' | '.join(cells)} |")
    return lines
