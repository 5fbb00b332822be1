"""Load the model and watch the source: what `ask` and `encode` have in common."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mmkv.cli.errors import CommandError
from mmkv.cli.messages import say, without_secrets
from mmkv.cli.source import Source
from mmkv.config.units import clock, counted

if TYPE_CHECKING:
    from mmkv import Feed, Stream, VideoLM
    from mmkv.cli.groups import Watching

BUNDLED = "mmkv-tiny"
SUGGESTED = "Qwen/Qwen3-VL-2B-Instruct"


def note_tiny() -> None:
    """Note that the bundled model knows nothing of the world, and how to ask one that does."""
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    words[end:end] = ["--model", SUGGESTED]
    command = shlex.join([*program(), *map(without_secrets, words)])
    typer.echo(f"note: {BUNDLED} knows only coloured shapes; for other videos: {command}", err=True)


def program() -> list[str]:
    """Return the program as it was typed, briefly: whole paths of it are never shown."""
    if Path(sys.argv[0]).name == "mmkv":
        return [brief(sys.argv[0])]
    return [brief(sys.orig_argv[0]), "-m", "mmkv"]


def brief(path: str) -> str:
    """Return a short path as it was typed (`.venv/bin/mmkv`), and of a whole one only the name."""
    return Path(path).name if Path(path).is_absolute() else path


@contextmanager
def plain_hub(*, bars: bool = False) -> Iterator[None]:
    """Show only errors of the Hub's client, not each of its retries.

    Args:
        bars: show bars of downloads.

    Yields:
        nothing; the earlier settings are restored afterwards.
    """
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    verbosity, shown = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity_error()
    if shown and not bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown and not bars:
            enable_progress_bars()


def check_hub(model: str, seconds: float = 10.0) -> None:
    """Find out, for a model that is no local folder, that the Hub does not keep us waiting.

    Its client tries again and again for minutes where the Hub accepts a connection and is silent.

    Args:
        model: a Hub id, or a folder.
        seconds: to wait for a first sign.

    Raises:
        CommandError: there is none; that the Hub cannot be reached is left to its client.
    """
    if Path(model).exists():
        return
    from http.client import HTTPException
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=seconds).close()
    except (OSError, ValueError, HTTPException) as error:
        if isinstance(getattr(error, "reason", error), TimeoutError):
            raise CommandError(
                f"the Hugging Face Hub ({constants.ENDPOINT}) has not answered in {seconds:g} s; "
                f"check the network, or set HF_HUB_OFFLINE=1 if {model} is on this machine already"
            ) from error


def load(model: str | None, *, show: bool, **options: Any) -> VideoLM:
    """Load a model.

    Args:
        model: a Hub id, a folder or the bundled model; None: the bundled model.
        show: show a line on stderr while it loads, and bars where that takes long.
        options: further arguments of `mmkv.load`.
    """
    import mmkv

    with status(f"loading {model or BUNDLED}", show), plain_hub(bars=show):
        from transformers.utils import logging

        logging.set_verbosity_error()  # until the command ends, see `messages.plain`
        if model in (None, BUNDLED):  # so small that threads only cost time on a busy machine
            import torch

            torch.set_num_threads(1)
        else:
            check_hub(model)
            options |= {"progress": True} if show else {}
        return mmkv.load(model or BUNDLED, **options)


def show_progress(quiet: bool, json: bool) -> bool:
    """Return whether progress should be shown: only on a terminal, and only if wanted."""
    return sys.stderr.isatty() and not quiet and not json


@contextmanager
def status(text: str, show: bool) -> Iterator[None]:
    """Show a spinner with a text on stderr, if `show`; it disappears afterwards.

    Yields:
        nothing.
    """
    if not show:
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@contextmanager
def bar(text: str, total: float | None, show: bool) -> Iterator[Any]:
    """Show a progress bar over seconds of video on stderr, if `show`; it disappears afterwards.

    Args:
        text: shown beside it at first.
        total: seconds of the whole; None if unknown.
        show: False shows nothing.

    Yields:
        a function `update(seconds, text, total)`.
    """
    if not show:
        yield lambda seconds, text, total=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=total)

        def update(seconds: float, text: str, total: float | None = None) -> None:
            progress.update(task, completed=seconds, description=text, total=total)

        yield update


@dataclass(frozen=True, slots=True)
class Watched:
    """What watching took.

    Attributes:
        seconds: by the wall clock.
        dropped: frames that a live source gave but the model did not look at.
    """

    seconds: float
    dropped: int


def watch(
    stream: Stream,
    source: Source,
    watching: Watching,
    *,
    show: bool,
    rest: Any = None,
) -> Watched:
    """Show a source to the stream.

    Args:
        stream: what takes it in.
        source: the source.
        watching: how it is watched, and for how long.
        show: show progress on stderr.
        rest: frames that remain of the source, to watch instead; None: all of it.

    Raises:
        CommandError: no frame could be read.
    """
    begin, dropped = time.perf_counter(), 0
    if source.live:
        dropped = watch_live(stream, source, watching, show=show)
    else:
        with bar(source.name, None, show) as update:

            def report(progress: Any) -> None:
                rate = progress.frames / max(time.perf_counter() - begin, 1e-9)
                at = clock(progress.seconds)
                seen = counted(progress.frames, "frame")
                text = f"{source.name} {at}, {seen}, {rate:.1f} frames/s"
                update(progress.seconds, text, progress.duration)

            value = source.value if rest is None else rest
            rate = watching.fps if value is source.value else None
            stream.encode(
                value, fps=rate, reader=watching.reader, live=source.told, on_progress=report
            )
    if not stream.stats().frames:
        raise CommandError(f"{source.name}: no frame could be read")
    return Watched(time.perf_counter() - begin, dropped)


def watch_live(stream: Stream, source: Source, watching: Watching, *, show: bool) -> int:
    """Watch a live source until the time is up, the source ends, or Ctrl-C is pressed.

    Returns:
        how many frames were dropped.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed before anything was seen.
        Exception: the source's error, where nothing was seen before it.
    """
    with status(f"connecting to {source.name}", show):
        feed = stream.start(
            source.value, fps=watching.fps, reader=watching.reader, live=source.told
        )
    begin, duration = time.monotonic(), watching.duration
    try:
        with bar(source.name, duration, show) as update:
            while not ended(feed):
                elapsed = time.monotonic() - begin
                seen = counted(stream.stats().frames, "frame")
                text = f"{source.name} {clock(elapsed)}, {seen}"
                dropped = f", {feed.dropped} dropped" if feed.dropped else ""
                update(elapsed, text + dropped, duration)
                if duration is not None and elapsed >= duration:
                    break
    except KeyboardInterrupt:
        if not stream.stats().frames:
            raise
        say("note", "stopped watching; continuing with what was seen (Ctrl-C again to leave)")
    finally:
        feed.stop()
    if feed.error is not None:
        if not stream.stats().frames:
            raise feed.error
        say("warning", f"{feed.error}; continuing with what was seen until then")
    return feed.dropped


def ended(feed: Feed) -> bool:
    """Return whether a source has ended, by itself or by an error; waits a moment for it."""
    try:
        return feed.wait(0.2)
    except Exception:
        if feed.error is None:
            raise
        return True


def peak_gpu_bytes(vlm: VideoLM) -> int | None:
    """Return the most GPU memory in use so far, in bytes; None where there is no GPU."""
    import torch

    device = torch.device(vlm.device)
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
