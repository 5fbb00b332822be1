"""`mmkv encode VIDEO...`: watch without asking, and print what that costs with this model."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer

from mmkv.cli import errors, options, session
from mmkv.cli.messages import say
from mmkv.cli.source import Source
from mmkv.cli.text import size, table, took


def encode(
    videos: Annotated[
        list[str],
        typer.Argument(metavar="VIDEO", help="As for `mmkv ask`; several are watched in turn."),
    ],
    model: options.Model = None,
    fps: options.Fps = 1.0,
    duration: options.Duration = None,
    max_pixels: options.MaxPixels = None,
    window_frames: options.Window = None,
    max_ram: options.MaxRam = None,
    reader: options.Reader = "auto",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    revision: options.Revision = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Watch without asking, to see what that costs: speed, memory, GB per hour.

    \b
    Example:
      mmkv encode my.mp4 --fps 2 --model Qwen/Qwen3-VL-2B-Instruct
    """
    sources = [Source.parse(video, duration=duration) for video in videos]
    if model is None and not quiet:
        session.note_tiny()

    import mmkv

    config = mmkv.CacheConfig(**options.given(window_frames=window_frames, max_ram=max_ram))
    show = session.show_progress(quiet, json)
    loading = options.given(device=device, dtype=dtype, max_pixels=max_pixels, revision=revision)
    vlm = session.load(model, show=show, **loading)
    costs, failed = [], False
    for source in sources:
        try:
            with vlm.stream(config) as stream:
                watched = session.watch(
                    stream, source, fps=fps, reader=reader, duration=duration, show=show
                )
                cost = {"video": source.name, **stream.stats().to_dict(), "fps": fps}
                cost |= {"watch_seconds": watched.seconds, "dropped": watched.dropped}
                cost |= {"peak_gpu_bytes": session.peak_gpu_bytes(vlm)}
        except Exception as error:  # the other videos are still worth watching
            if debug or len(sources) == 1:
                raise
            say("error", errors.in_words(error, model=model))
            failed = True
            continue
        costs.append(cost)
        if not json:
            typer.echo(report(cost))
    if json:
        typer.echo(jsonlib.dumps({"model": vlm.name, "videos": costs}, ensure_ascii=False))
    if failed:
        raise typer.Exit(errors.EXIT_FAILED)


def report(cost: dict[str, Any]) -> str:
    """The cost of one video, a line for each thing that costs."""
    frames, watched = cost["frames"], cost["watch_seconds"]
    per_hour = f", {cost['gb_per_hour']:.3g} GB per hour" if cost["gb_per_hour"] else ""
    dropped = f", {cost['dropped']} dropped" if cost["dropped"] else ""
    rows = [
        ("frames", f"{frames} ({cost['fps']:g} per second of video){dropped}"),
        ("time", f"{took(watched)}, {frames / watched:.1f} frames/s"),
        ("tokens", f"{cost['tokens_per_frame']:g} per frame"),
        ("archive", f"{size(cost['bytes_per_frame'])} per frame{per_hour}"),
        ("window", size(cost["window_bytes"])),
    ]
    if cost["peak_gpu_bytes"]:
        rows.append(("GPU memory", f"{size(cost['peak_gpu_bytes'])} at most"))
    rows += [(f"  {stage}", took(seconds)) for stage, seconds in cost["timings"].items()]
    return f"{cost['video']}\n{table(rows)}"
