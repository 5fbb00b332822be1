"""`mmkv caption VIDEO...`: timed captions of many videos, as rows that a rerun continues."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mmkv.cli import errors, groups, options, session
from mmkv.cli.caption_report import Line, ended, failures
from mmkv.cli.messages import say
from mmkv.config.units import counted

FORMATS = ("srt", "vtt", "parquet")
_TERMINATED = 128 + signal.SIGTERM


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
    no_live: Annotated[
        bool, typer.Option("--no-live", help="Read addresses in full even if they seem live.")
    ] = False,
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
    in captions.errors.jsonl beside captions.jsonl; it is tried again. The exit code is 1 if every
    video failed.

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
            max_new_tokens=max_new_tokens, reader=reader, live=False if no_live else None,
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
    with until_terminated(), Output(path) as output:
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
            held = counted(len(output.rows), "row")
            say("note", f"{path} has {held}; run the same command to resume")
            raise
        line.clear()
        if not quiet:
            typer.echo(ended(tally, path))
        if tally.failed:
            say("warning", failures(tally, output.errors))
            if strict or tally.failed == tally.total:
                raise typer.Exit(errors.EXIT_FAILED)


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextmanager
def until_terminated() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what is open is closed, and the exit code is 143."""

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    except Terminated:
        typer.echo("stopped", err=True)
        raise typer.Exit(_TERMINATED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
