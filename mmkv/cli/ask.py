"""`mmkv ask VIDEO QUESTION...`: watch, answer, say when in the video it was and what it cost."""

from __future__ import annotations

import json as jsonlib
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkv.cli import arguments, groups, options, session
from mmkv.cli.every import ask_every
from mmkv.cli.messages import growth, moments
from mmkv.cli.source import Source
from mmkv.cli.store import model_of
from mmkv.config.units import clock, counted, size, took
from mmkv.models.tiny import SAMPLE_NOTES, SAMPLE_VIDEO

if TYPE_CHECKING:
    from mmkv import Answer, Stats, Stream


def ask(
    video: Annotated[
        str | None,
        typer.Argument(
            metavar="VIDEO",
            help="A file, a folder of images, a webcam's number (0 is the first), an rtsp or http "
            "address, or `sample`, the bundled video. Leave it out with --store.",
        ),
    ] = None,
    questions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUESTION", help="In quotes; one or several. Needs none with `sample`."
        ),
    ] = None,
    *,
    model: options.Model = None,
    store: options.ReadStore = None,
    since: options.Since = None,
    until: options.Until = None,
    watching: groups.Watching,
    every: Annotated[
        float | None,
        typer.Option(
            parser=options.positive,
            metavar="SECONDS",
            help="Ask again each time so many seconds were watched; a line per answer.",
        ),
    ] = None,
    span: Annotated[
        float | None,
        typer.Option(
            parser=options.positive,
            metavar="SECONDS",
            help="With --every: an answer looks back only this far.",
        ),
    ] = None,
    max_new_tokens: options.MaxNewTokens = 128,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, metavar="T", help="0: always the likeliest word."),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, metavar="P", help="Choose among the likeliest words adding up to P."
        ),
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Same seed, same answer.")] = None,
    memory: groups.Memory,
    recent_frames: options.Recent = None,
    packing: groups.Packing,
    loading: groups.Loading,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Watch a video and answer questions about it.

    \b
    Example:
      mmkv ask my.mp4 'What is on the table?' --model Qwen/Qwen3-VL-2B-Instruct
      mmkv ask --store my.kv 'What is on the table?'
      mmkv ask rtsp://10.0.0.7/live 'Is someone at the door?' --every 5 --span 5 --json
    """
    if span is not None and every is None:
        raise typer.BadParameter("--span needs --every")
    if every is not None and (store, since, until) != (None, None, None):
        raise typer.BadParameter(
            "--every watches a source; it takes no --store, --since or --until"
        )
    arguments.check_span(since, until)
    words = [word for word in (video, *(questions or [])) if word is not None]
    if store is not None and (watching.duration, watching.live) != (None, None):
        raise typer.BadParameter("--duration and --live are for sources, not for --store")
    video, questions = arguments.video_and_texts("ask", words, store)
    questions = questions or [sample_questions()[0]["question"]]
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

    given = memory.given | packing.given | options.given(recent_frames=recent_frames)
    config = mmkv.CacheConfig(**given)
    show = session.show_progress(quiet, json)
    vlm = session.load(model, show=show, **loading.given)
    if source is None:
        stream = vlm.open(str(store), config=config if given else None)
    else:
        stream = vlm.stream(config)
    sampling = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
    }
    with stream:
        if every is not None and source is not None:
            ask_every(
                stream,
                source,
                questions,
                every=every,
                span=span,
                watching=watching,
                json=json,
                show=show,
                sampling=sampling,
            )
            return
        watched = None
        if source is not None:
            watched = session.watch(stream, source, watching, show=show)
        aloud = not json
        answers = []
        for question in questions:
            begin = time.perf_counter()
            if aloud and not quiet:
                typer.echo(question)
            answer = spoken(stream, question, aloud, since=since, until=until, **sampling)
            seconds = time.perf_counter() - begin
            answers.append(as_dict(question, answer, seconds))
            if aloud and not quiet:
                gap = 1 / watching.fps if source is not None else 1 / (stream.stats().fps or 1)
                lines = remarks(answer, seconds, gap)
                if source is not None and source.value == str(SAMPLE_VIDEO):
                    lines += truth(question)
                typer.echo("\n".join(f"  {line}" for line in lines))
        stats = stream.stats()
        peak = session.peak_gpu_bytes(vlm)
        if json:
            cost = stats.to_dict() | {"peak_gpu_bytes": peak}
            if watched is not None:
                cost |= {"watch_seconds": watched.seconds, "dropped": watched.dropped}
            name = store if source is None else source.name
            found = {"video": name, "model": vlm.name, "answers": answers, "stats": cost}
            typer.echo(jsonlib.dumps(found, ensure_ascii=False))
        elif not quiet:
            typer.echo(cost_line(stats, watched, peak) if watched else kept_line(str(store), stats))


def spoken(stream: Stream, question: str, aloud: bool, **how: Any) -> Answer:
    """Answer a question.

    Args:
        stream: what was watched.
        question: any text.
        aloud: write the answer to stdout while it is generated.
        how: further options of `Stream.ask_iter`.
    """
    reply = stream.ask_iter(question, **how)
    try:
        for piece in reply:
            if aloud:
                typer.echo(piece, nl=False)
    finally:
        reply.close()
        if aloud:
            typer.echo()
    return reply.answer


def remarks(answer: Answer, seconds: float, gap: float) -> list[str]:
    """Say where an answer was found, how long it took, and what else to know about it.

    Args:
        answer: the answer.
        seconds: that it took.
        gap: seconds between frames; neighbouring ones are one moment.

    Returns:
        a line for each remark.
    """
    if answer.frames:  # best match first
        best, *others = moments([frame.seconds for frame in answer.frames[:5]], 1.5 * gap)
        also = f", then {', '.join(others)}" if others else ""
        found = f"found at {best}{also} (of {counted(len(answer.frames), 'frame')} looked at)"
    else:
        found = f"from what was seen up to {clock(answer.as_of)}"
    lines = [f"{found}; answered in {took(seconds)}"]
    if answer.finish_reason == "length":
        lines.append("cut off: --max-new-tokens allows more words")
    if answer.hint:
        lines.append(f"note: {answer.hint}")
    return lines


def sample_questions() -> list[dict[str, Any]]:
    """Read the questions about the bundled video whose answers are known."""
    questions: list[dict[str, Any]] = jsonlib.loads(SAMPLE_NOTES.read_text(encoding="utf-8"))[
        "questions"
    ]
    return questions


def truth(question: str) -> list[str]:
    """Say what the bundled video really shows, where its notes have the question."""
    for note in sample_questions():
        if note["question"] == question:
            when = "" if note["seconds"] is None else "-".join(map(clock, note["seconds"]))
            return [f"in the video: {note['answer']}{when and f' ({when})'}"]
    return []


def cost_line(stats: Stats, watched: session.Watched, memory: int | None) -> str:
    """Say what watching cost, in one line.

    Args:
        stats: the stream's counters.
        watched: how long it took.
        memory: bytes of GPU memory at most; None without a GPU.
    """
    rate = f"{stats.frames / watched.seconds:.1f} frames/s"
    dropped = f", {watched.dropped} dropped" if watched.dropped else ""
    bits = stats.bits_per_element
    packed = f" at {bits:.3g} bits per element" if bits and stats.codec != "fp16" else ""
    grows = growth(stats.gb_per_hour, stats.fps, stats.seconds)
    if stats.keep_ratio not in (None, 1):
        packed += f", {100 * stats.keep_ratio:.3g}% of the tokens"
    each = stats.tokens_per_frame
    tokens = "1 token" if each == 1 else f"{each:g} tokens"
    parts = [
        f"watched {counted(stats.frames, 'frame')} in {took(watched.seconds)} ({rate}){dropped}",
        f"{tokens} per frame",
        f"window {size(stats.window_bytes)}",
        f"archive {size(stats.archive_bytes)}{packed}{grows and f', {grows}'}",
    ]
    if memory:
        parts.append(f"peak GPU memory {size(memory)}")
    return "; ".join(parts)


def kept_line(store: str, stats: Stats) -> str:
    """Say what a store holds, in one line."""
    until = clock(stats.seconds or 0)
    held = counted(stats.archived_frames, "frame")
    return f"{store}: {held} to {until}, {size(stats.disk_bytes)} on disk"


def as_dict(question: str, answer: Answer, seconds: float) -> dict[str, Any]:
    """Turn an answer into plain types for `--json`."""
    ids = list(answer.token_ids)
    return {"question": question, **answer.to_dict(), "token_ids": ids, "seconds": seconds}
