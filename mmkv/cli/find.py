"""`mmkv find VIDEO TEXT`: when in a video something is seen, without generating words."""

from __future__ import annotations

import json as jsonlib
import time
from typing import TYPE_CHECKING, Annotated

import typer

from mmkv.cli import arguments, groups, options, session
from mmkv.cli.messages import stretch
from mmkv.cli.source import Source
from mmkv.cli.store import model_of
from mmkv.config.units import clock, counted, took

if TYPE_CHECKING:
    from mmkv import Moment


def find(
    video: Annotated[
        str | None,
        typer.Argument(metavar="VIDEO", help="As for `mmkv ask`. Leave it out with --store."),
    ] = None,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="What to look for, in words, in quotes.")
    ] = None,
    *,
    store: options.ReadStore = None,
    model: options.Model = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, metavar="N", help="How many moments.")] = 5,
    since: options.Since = None,
    until: options.Until = None,
    watching: groups.Watching,
    score: options.Score = None,
    memory: groups.Memory,
    loading: groups.Loading,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Find moments that match a text, best first; nothing is generated.

    \b
    Example:
      mmkv find my.mp4 'a person at the door' --model Qwen/Qwen3-VL-2B-Instruct
      mmkv find --store my.kv 'a person at the door'
    """
    arguments.check_span(since, until)
    if store is not None and (watching.duration, watching.live) != (None, None):
        raise typer.BadParameter("--duration and --live are for sources, not for --store")
    words = [word for word in (video, text) if word is not None]
    video, texts = arguments.video_and_texts("find", words, store)
    if len(texts) != 1:
        raise typer.BadParameter(
            "one TEXT is looked for at a time, in quotes: mmkv find VIDEO 'a person at the door'"
        )
    (text,) = texts
    if store is not None:
        model = model or model_of(store)
    source = (
        None
        if video is None
        else Source.parse(video, duration=watching.duration, live=watching.live)
    )
    if model is None and not quiet:
        session.note_tiny()

    import mmkv

    given = memory.given | options.given(score=score)
    show = session.show_progress(quiet, json)
    vlm = session.load(model, show=show, **loading.given)
    if source is None:
        stream = vlm.open(str(store), config=mmkv.CacheConfig(**given) if given else None)
    else:
        stream = vlm.stream(mmkv.CacheConfig(**given))
    with stream:
        if source is not None:
            session.watch(stream, source, watching, show=show)
        begin = time.perf_counter()
        found = stream.find(text, k, since=since, until=until)
        seconds = time.perf_counter() - begin
        frames = stream.stats().frames
    if json:
        name = str(store) if source is None else source.name
        result = {"video": name, "model": vlm.name, "text": text, "seconds": seconds}
        result |= {"moments": [moment.to_dict() for moment in found]}
        typer.echo(jsonlib.dumps(result, ensure_ascii=False))
        return
    for line in lines(found):
        typer.echo(line)
    if not quiet:
        counts = f"{counted(len(found), 'moment')} from {counted(frames, 'frame')}"
        typer.echo(f"{counts} in {took(seconds)}", err=True)


def lines(moments: tuple[Moment, ...]) -> list[str]:
    """Format moments as a table: when, the best frame, and its score."""
    if not moments:
        return ["nothing stands out"]
    rows = [("when", "best at", "score")]
    for moment in moments:
        when = stretch(moment.start, moment.end)
        rows.append((when, clock(moment.seconds), f"{moment.score:.2f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows]
