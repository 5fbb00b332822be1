"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import typer

DTYPES = ("auto", "bfloat16", "float16", "float32")
SCORES = ("attention", "mean-key", "cosine")  # those that need nothing else
READERS = ("auto", "pyav", "decord", "opencv")


def positive(text: str) -> float:
    """Read a number above zero, for rates and durations.

    Raises:
        typer.BadParameter: it is not one.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{text!r} is not a number above 0")
    return value


def moment(text: str) -> float:
    """Read a position in a video: seconds, m:ss or h:mm:ss.

    Returns:
        seconds.

    Raises:
        typer.BadParameter: it is none of these.
    """
    parts = text.split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = [math.nan]
    if len(parts) > 3 or not all(0 <= value < math.inf for value in values):
        raise typer.BadParameter(f"{text!r} is not a time; write seconds, m:ss or h:mm:ss")
    return sum(value * 60**power for power, value in enumerate(reversed(values)))


def one_of(*allowed: str) -> Callable[[str], str]:
    """Make a parser that allows only these words; it raises `typer.BadParameter` for others."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(allowed)}")
        return text

    return parse


Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", envvar="MMKV_MODEL", metavar="ID", show_default=False,
        help="A Hugging Face id, or a local folder. Without it mmkv-tiny, which knows only "
        "coloured shapes.",
    ),
]  # fmt: skip
Revision = Annotated[str | None, typer.Option(metavar="NAME", help="The model's branch or commit.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    str,
    typer.Option(
        parser=one_of(*DTYPES), metavar="NAME", help=f"Type of numbers: {', '.join(DTYPES)}."
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Shrink frames to this many pixels: fewer tokens each."),
]
Fps = Annotated[
    float, typer.Option(parser=positive, metavar="F", help="Frames looked at per second of video.")
]
Reader = Annotated[
    str,
    typer.Option(
        parser=one_of(*READERS), metavar="NAME", help=f"What reads a file: {', '.join(READERS)}."
    ),
]
Window = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Newest frames that the model watches with."),
]
Recent = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Latest frames shown to every question.")
]
Retrieve = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Earlier frames that a question fetches; 0: none."),
]
Score = Annotated[
    str | None,
    typer.Option(
        parser=one_of(*SCORES),
        metavar="NAME",
        help=f"How frames are compared: {', '.join(SCORES)}.",
    ),
]
KeyBits = Annotated[
    float | None,
    typer.Option(metavar="BITS", help="Pack earlier frames' keys: 1.5, 1.58, 2 or 4 bits."),
]
ValueBits = Annotated[
    float | None,
    typer.Option(metavar="BITS", help="Pack their values: 1.5, 1.58, 1.66, 2 or 4 bits."),
]
KeepRatio = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Keep this share of earlier frames' tokens, such as 0.5."),
]
Eviction = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which: diverse, text-prior, snapkv, temporal, temporal+snapkv, ...",
    ),
]
Merging = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Merge the others into them: average, pivot or weighted."),
]
Focus = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What to watch for, such as 'the people at the door'."),
]
MaxRam = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Host memory for earlier frames, such as 8GB."),
]
Store = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Keep the stream in this new folder, to ask later."),
]
ReadStore = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Instead of VIDEO: what `mmkv encode VIDEO --store DIR` kept."
    ),
]
MaxDisk = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Size limit of a store; the oldest goes first.")
]
MaxAge = Annotated[
    str | None, typer.Option(metavar="TIME", help="How far a store reaches back: 12h, 7d.")
]
Duration = Annotated[
    float | None,
    typer.Option(
        parser=positive,
        metavar="SECONDS",
        help="Live: watch this long, or until Ctrl-C.",
    ),
]
Live = Annotated[
    bool | None,
    typer.Option(
        "--live/--no-live",
        show_default="found out",
        help="Whether an address is a live stream, or a recording to read in full.",
    ),
]
Since = Annotated[
    float | None,
    typer.Option(parser=moment, metavar="TIME", help="Ignore what came before, as in 90 or 1:30."),
]
Until = Annotated[
    float | None, typer.Option(parser=moment, metavar="TIME", help="Ignore what came after.")
]
MaxNewTokens = Annotated[int, typer.Option(min=1, metavar="N", help="Longest answer, in tokens.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress bars.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def given(**options: Any) -> dict[str, Any]:
    """Keep the options that were given, so that the others keep the engine's own default."""
    return {name: value for name, value in options.items() if value is not None}
