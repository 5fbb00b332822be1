"""`mmkv encode VIDEO...`: watch without asking, and print what that costs with this model."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkv.cli import arguments, errors, groups, options, session
from mmkv.cli.messages import growth, say, table
from mmkv.cli.source import Source
from mmkv.cli.store import check_place, model_of, rest_of, stream_of
from mmkv.config.units import clock, counted, size, took

if TYPE_CHECKING:
    from mmkv import CacheConfig, Stream, VideoLM


def encode(
    videos: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEO", help="As for `mmkv ask`; several are watched one after the other."
        ),
    ],
    *,
    model: options.Model = None,
    store: options.Store = None,
    append: Annotated[bool, typer.Option("--append", help="Continue an existing store.")] = False,
    watching: groups.Watching,
    window_frames: options.Window = None,
    packing: groups.Packing,
    max_ram: options.MaxRam = None,
    max_disk: options.MaxDisk = None,
    max_age: options.MaxAge = None,
    loading: groups.Loading,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Watch without asking, to see what that costs or to keep the stream on disk.

    \b
    Example:
      mmkv encode my.mp4 --fps 2 --model Qwen/Qwen3-VL-2B-Instruct
      mmkv encode my.mp4 --store my.kv --model Qwen/Qwen3-VL-2B-Instruct
    """
    if store is None and (append or max_disk or max_age):
        raise typer.BadParameter("--append, --max-disk and --max-age need --store DIR")
    arguments.check_videos(videos)
    sources = [
        Source.parse(video, duration=watching.duration, live=watching.live) for video in videos
    ]
    if store is not None:
        check_place(store, append=append)
    if model is None and store is not None and append and Path(store).expanduser().exists():
        model = model_of(store)
    if model is None and not quiet:
        session.note_tiny()

    import mmkv

    limits = options.given(
        window_frames=window_frames, max_ram=max_ram, max_disk=max_disk, max_age=max_age
    )
    config = mmkv.CacheConfig(**packing.given, **limits)
    show = session.show_progress(quiet, json)
    vlm = session.load(model, show=show, **loading.given)
    costs, failed = [], False
    for place, source in enumerate(sources):
        try:
            kept = None if store is None else (store, append or place > 0)
            with opened(vlm, config, kept) as stream:
                before, rest = 0, None
                if store is not None:
                    before, rest = (
                        stream.stats().frames,
                        rest_of(stream, source, watching.fps, watching.reader),
                    )
                watched = session.watch(stream, source, watching, show=show, rest=rest)
                if store is not None:
                    stream.flush()
                stats = stream.stats()
                cost = {"video": source.name, **stats.to_dict(), "fps": watching.fps}
                cost |= {"frames": cost["frames"] - before, "store": store}
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
            grows = growth(stats.gb_per_hour, stats.fps, stats.seconds)
            typer.echo(report(cost, grows))
    if json:
        typer.echo(jsonlib.dumps({"model": vlm.name, "videos": costs}, ensure_ascii=False))
    if failed:
        raise typer.Exit(errors.EXIT_FAILED)


@contextmanager
def opened(vlm: VideoLM, config: CacheConfig, kept: tuple[str, bool] | None) -> Iterator[Stream]:
    """Open a stream in memory or in a store, and close it afterwards.

    Args:
        vlm: the model.
        config: of a new stream.
        kept: the store's folder, and whether it may exist already; None: in memory only.

    Yields:
        the stream.

    Raises:
        CommandError: there is a store already.
    """
    if kept is None:
        with vlm.stream(config) as stream:
            yield stream
        return
    folder, append = kept
    with stream_of(vlm, config, folder, append=append) as stream:
        try:
            yield stream
        except KeyboardInterrupt:
            at = (
                "nothing" if stream.seconds is None else f"everything up to {clock(stream.seconds)}"
            )
            say("note", f"{at} is kept in {folder}; run the same command with --append to resume")
            raise


def report(cost: dict[str, Any], grows: str) -> str:
    """Format the cost of one video, a line for each thing that costs.

    Args:
        cost: by name, as in the JSON output.
        grows: how fast its archive grows, in words.
    """
    frames, watched = cost["frames"], cost["watch_seconds"]
    dropped = f", {cost['dropped']} dropped" if cost["dropped"] else ""
    rows = [
        ("frames", f"{frames} ({cost['fps']:g} per second of video){dropped}"),
        ("time", f"{took(watched)}, {frames / watched:.1f} frames/s"),
        ("tokens", f"{cost['tokens_per_frame']:g} per frame"),
        ("archive", f"{size(cost['bytes_per_frame'])} per frame{grows and f', {grows}'}"),
        ("window", size(cost["window_bytes"])),
    ]
    if cost["keep_ratio"] not in (None, 1):
        rows.append(("kept", f"{100 * cost['keep_ratio']:.1f}% of the tokens"))
    if cost["store"]:
        kept = cost["archived_frames"]
        each = f", {size(cost['disk_bytes'] / kept)} per frame" if kept else ""
        held = f"{counted(kept, 'frame')}, {size(cost['disk_bytes'])}{each}"
        rows.append(("store", f"{cost['store']}, {held}"))
    if cost["peak_gpu_bytes"]:
        rows.append(("GPU memory", f"{size(cost['peak_gpu_bytes'])} at most"))
    rows += [(f"  {stage}", took(seconds)) for stage, seconds in cost["timings"].items()]
    return f"{cost['video']}\n{table(rows)}"
