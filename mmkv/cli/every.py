"""`mmkv ask SOURCE QUESTION --every 5`: asked again and again while the source runs."""

from __future__ import annotations

import json as jsonlib
import threading
import time
from typing import TYPE_CHECKING, Any

import typer

from mmkv.cli import session
from mmkv.cli.errors import CommandError
from mmkv.cli.messages import say
from mmkv.cli.source import Source
from mmkv.config.units import clock, counted, took

if TYPE_CHECKING:
    from mmkv import Answer, AskEvery, Stream
    from mmkv.cli.groups import Watching


def ask_every(
    stream: Stream,
    source: Source,
    questions: list[str],
    *,
    every: float,
    span: float | None,
    watching: Watching,
    json: bool,
    show: bool,
    sampling: dict[str, Any],
) -> None:
    """Print a line per answer until the source ends, the time is up, or Ctrl-C is pressed.

    Args:
        stream: a new stream.
        source: what to watch.
        questions: asked one after the other, each time.
        every: seconds of the stream between two times.
        span: seconds that an answer looks back; None: at everything.
        watching: how the source is watched, and for how long.
        json: print a JSON object per answer.
        show: show progress on stderr.
        sampling: further options of `Stream.ask`.

    Raises:
        CommandError: no frame could be read.
    """
    with session.status(f"connecting to {source.name}", show):
        feed = stream.start(
            source.value, fps=watching.fps, reader=watching.reader, live=source.told
        )
    first, *others = questions
    asking = stream.ask_every(first, every, span=span, **sampling)
    timer = None
    if watching.duration is not None:
        timer = threading.Timer(watching.duration, asking.close)
        timer.daemon = True
        timer.start()
    begun = time.time()
    count = 0
    try:
        for answer in asking:
            count += 1
            at = answer.as_of
            since = None if span is None else at - span
            answers = [(first, answer)]
            answers += [(q, stream.ask(q, since=since, until=at, **sampling)) for q in others]
            for question, one in answers:
                typer.echo(line(source, question, one, asking, json))
    except KeyboardInterrupt:
        if not source.live:
            raise
        say("note", f"stopped after {took(time.time() - begun)}; times asked: {count}")
    finally:
        if timer is not None:
            timer.cancel()
        asking.close()
        feed.stop()
    if not stream.stats().frames:
        raise CommandError(f"{source.name}: no frame could be read")


def line(source: Source, question: str, answer: Answer, asking: AskEvery, json: bool) -> str:
    """Format an answer as one line.

    Args:
        source: what is watched.
        question: what was asked.
        answer: the answer.
        asking: counts what was skipped.
        json: as a JSON object.
    """
    if not json:
        skipped = f" ({counted(asking.skipped, 'moment')} skipped so far)" if asking.skipped else ""
        return f"{clock(answer.as_of)}  {' '.join(answer.text.split())}{skipped}"
    found = {
        "video": source.name,
        "question": question,
        **answer.to_dict(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "skipped": asking.skipped,
    }
    return jsonlib.dumps(found, ensure_ascii=False)
