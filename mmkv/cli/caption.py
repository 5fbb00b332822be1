"""`mmkv caption VIDEO...`: timed captions of many videos, as rows that a rerun continues."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkv.cli import errors, groups, options, session
from mmkv.cli.messages import say
from mmkv.config.units import clock, took

if TYPE_CHECKING:
    from mmkv.demos.captioning.listing import Video
    from mmkv.demos.captioning.progress import Tally

FORMATS = ("srt", "vtt", "parquet")
_LINE_SECONDS = 60.0  # between lines where stderr is not a terminal


def caption(
    videos: Annotated[
        list[str] | None,
        typer.Argument(metavar="VIDEO", help="Files, addresses of files, or folders of videos."),
    ] = None,
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="JSON Lines, one row per video.")
    ] = Path("captions.jsonl"),
    list_file: Annotated[
        str | None,
        typer.Option(
            "--list",
            metavar="FILE",
            help="One path per line, after an id and a tab if you have ids; - is standard input.",
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            parser=options.positive,
            metavar="SECONDS",
            show_default="8",
            help="Length of a segment.",
        ),
    ] = None,
    scenes: Annotated[
        bool, typer.Option("--scenes", help="Cut where the picture changes instead.")
    ] = False,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What to ask about each segment.")
    ] = None,
    summary: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What to ask about the whole video; '': no summary."),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            parser=options.one_of(*FORMATS),
            metavar="NAME",
            help=f"Besides JSON Lines: {', '.join(FORMATS)}; may be repeated.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=options.positive,
            metavar="SECONDS",
            show_default="none",
            help="Give up on a video after this long.",
        ),
    ] = None,
    stall: Annotated[
        float,
        typer.Option(
            parser=options.positive,
            metavar="SECONDS",
            help="Or after this long without a frame or a word.",
        ),
    ] = 600.0,
    num_shards: Annotated[
        int, typer.Option(min=1, metavar="N", help="Parts that the videos are divided into.")
    ] = 1,
    shard_index: Annotated[
        int, typer.Option(min=0, metavar="I", help="The part to do, counted from 0.")
    ] = 0,
    old: Annotated[
        str,
        typer.Option(
            parser=options.one_of("refuse", "keep", "redo"),
            metavar="WHAT",
            help="Rows made with other settings: refuse to run, keep them, or redo them.",
        ),
    ] = "refuse",
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on Ray: a cluster's address, auto, or local."),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default="one per GPU", help="Models run by Ray."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any video failed.")
    ] = False,
    model: options.Model = None,
    fps: options.Fps = 1.0,
    reader: options.Reader = "auto",
    max_new_tokens: options.MaxNewTokens = 128,
    memory: groups.Memory,
    key_bits: Annotated[
        float, typer.Option(metavar="BITS", help="Pack earlier frames' keys; 16: unpacked.")
    ] = 1.5,
    value_bits: Annotated[
        float, typer.Option(metavar="BITS", help="Pack their values; 16: unpacked.")
    ] = 2.0,
    loading: groups.Loading,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Caption videos: a caption for each stretch of time, and one for the whole.

    Run the same command again to resume where it was stopped or killed. What failed, and why, is
    in errors.jsonl beside the output; it is tried again.

    \b
    Example:
      mmkv caption videos/ --out captions.jsonl --every 8 --model Qwen/Qwen3-VL-2B-Instruct
    """
    if scenes and every is not None:
        raise typer.BadParameter("--every and --scenes contradict each other; give one of them")
    if shard_index >= num_shards:
        raise typer.BadParameter(
            f"--shard-index {shard_index} needs --num-shards {shard_index + 1} or more"
        )
    if actors is not None and ray is None:
        raise typer.BadParameter("--actors needs --ray ADDRESS")
    from mmkv.demos.captioning.listing import listed, shard
    from mmkv.demos.captioning.run import part_of

    found = shard(listed(videos or [], list_file), num_shards, shard_index)
    wanted = format or []
    if "parquet" in wanted:
        from mmkv.demos.captioning.parquet import available

        if not available():
            raise errors.CommandError(
                "--format parquet needs pyarrow: pip install pyarrow, or leave it out"
            )
    if model is None and not quiet:
        session.note_tiny()

    from mmkv.config.cache import CacheConfig
    from mmkv.demos.captioning.job import Job
    from mmkv.demos.captioning.output import Output
    from mmkv.demos.captioning.settings import Captioning

    packed = (key_bits, value_bits) != (16, 16)
    bits = {"key_bits": key_bits, "value_bits": value_bits} if packed else {"codec": "fp16"}
    job = Job(
        settings=Captioning(
            every=every, scenes=scenes, prompt=prompt, summary=summary, fps=fps,
            max_new_tokens=max_new_tokens, reader=reader,
            memory=CacheConfig(score="uniform", neighbours=0, landmarks=0, **bits, **memory.given),
        ),
        model=model or session.BUNDLED,
        loading=loading.given,
        debug=debug,
    )  # fmt: skip
    if scenes:
        from mmkv.demos.captioning.scenes import make_cutter

        make_cutter(job.settings)  # reports what is missing before a model is loaded
    path = part_of(out.expanduser(), num_shards, shard_index)
    with Output(path) as output:
        line = Line(show=not quiet)
        try:
            how: dict[str, Any] = {
                "formats": wanted,
                "old": old,
                "tell": line,
                "timeout": timeout,
                "stall": stall,
            }
            if ray is None:
                from mmkv.demos.captioning.run import caption_videos

                tally = caption_videos(found, job, output, **how)
            else:
                from mmkv.demos.captioning.on_ray import caption_on_ray

                tally = caption_on_ray(found, job, output, address=ray, actors=actors, **how)
        except KeyboardInterrupt:
            line.clear()
            say("note", f"{len(output.rows)} rows are in {path}; run the same command to resume")
            raise
        line.clear()
        if not quiet:
            typer.echo(ended(tally, path))
        if tally.failed:
            say("warning", f"{tally.failed} videos failed; {output.errors} says why")
            if strict:
                raise typer.Exit(errors.EXIT_FAILED)


def ended(tally: Tally, path: Path) -> str:
    """Say what a run did, in one line.

    Args:
        tally: its counts.
        path: the file of its rows.
    """
    parts = [f"{tally.done} videos captioned"]
    if tally.before:
        parts.append(f"{tally.before} were there already")
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    text = f"{path}: {', '.join(parts)}"
    if tally.done:
        text += f"; {took(tally.elapsed)}, {tally.per_hour:.0f} videos/h"
        text += f", {tally.seconds_of_video / tally.elapsed:.1f} s of video per second"
    return text


class Line:
    """The one line of progress: rewritten on a terminal, else written now and then.

    Args:
        show: False writes nothing.
    """

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self._terminal = sys.stderr.isatty()
        self._last = time.monotonic() if not self._terminal else 0.0

    def __call__(
        self, tally: Tally, video: Video | None, seconds: float, duration: float | None
    ) -> None:
        now = time.monotonic()
        gap = 0.2 if self._terminal else _LINE_SECONDS
        if not self._show or now - self._last < gap:
            return
        self._last = now
        name = ""
        if video is not None:
            until = "" if duration is None else f" of {clock(duration)}"
            name = f"{Path(video.shown).name} {clock(seconds)}{until}"
        text = tally.line(name)
        if self._terminal:
            import shutil

            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[2K{text[:width]}")
            sys.stderr.flush()
        else:
            typer.echo(text, err=True)

    def clear(self) -> None:
        """Erase the line from the terminal."""
        if self._show and self._terminal:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
