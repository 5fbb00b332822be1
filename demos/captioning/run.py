"""Many videos, one after the other, resumed where an earlier run ended, whatever ended it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmkv.config.units import counted
from mmkv.demos.captioning.disk import OutputError, unwritable
from mmkv.demos.captioning.job import Failure, Job
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.output import Output
from mmkv.demos.captioning.progress import Tally
from mmkv.demos.captioning.subtitles import FORMATS, delete_subtitles, write_subtitles
from mmkv.demos.captioning.supervisor import STALL, Supervisor

OLD = ("refuse", "keep", "redo")
Result = tuple[Video, "dict[str, Any] | Failure"]
Tell = Callable[[Tally, Video | None, float, float | None], None]


def caption_videos(
    videos: Sequence[Video],
    job: Job,
    output: Output,
    *,
    formats: Sequence[str] = (),
    old: str = "refuse",
    timeout: float | None = None,
    stall: float = STALL,
    tell: Tell | None = None,
) -> Tally:
    """Caption what the output does not have yet.

    Args:
        videos: what to caption.
        job: how.
        output: where rows and failures are written.
        formats: "srt", "vtt" and "parquet", besides JSON Lines.
        old: what to do about rows made with other settings: "refuse" to run, "keep" or "redo".
        timeout: seconds that one video may take; None: no limit.
        stall: seconds without a frame or a token after which a video counts as hanging.
        tell: called with progress: the counts, the video, the seconds reached, its duration.

    Returns:
        the counts.

    Raises:
        OutputError: rows were made with other settings, or a file cannot be written.
        CaptioningError: the model cannot be loaded.
        ValueError: `old` is none of these.
    """
    todo = resumed(videos, job, output, old)

    def results(tally: Tally) -> Iterator[Result]:
        with Supervisor(job, timeout=timeout, stall=stall) as supervisor:
            if todo:
                supervisor.start()
                tally.restart()
            for place, video in enumerate(todo):
                following = todo[place + 1] if place + 1 < len(todo) else None

                def report(seconds: float, duration: float | None, video: Video = video) -> None:
                    if tell is not None:
                        tell(tally, video, seconds, duration)

                report(0.0, None)
                yield video, supervisor.caption(video, following, report)

    return written(results, videos, todo, job, output, formats, tell)


def resumed(videos: Sequence[Video], job: Job, output: Output, old: str) -> list[Video]:
    """List the videos without a row, after dropping rows that are to be redone.

    Args:
        videos, job, output, old: see `caption_videos`.

    Raises:
        OutputError: there are rows made with other settings, and `old` is "refuse".
        ValueError: `old` is not known.
    """
    if old not in OLD:
        raise ValueError(f"old={old!r} is not known; use {', '.join(OLD)}")
    named = {video.id for video in videos}
    others = [id for id in output.others(job.digest) if id in named]
    if others and old == "refuse":
        raise OutputError(
            f"{output.path} has {counted(len(others), 'row')} of these videos made with another "
            "model or "
            "other settings; choose another --out, keep them with --old keep, or caption them "
            "again with --old redo"
        )
    if others and old == "redo":
        for row in output.read():  # before the rows: after a kill here, the next run repeats this
            if row["id"] in others:
                _delete_subtitles(row, _subtitles_of(output))
        output.drop(set(others))
    return [video for video in videos if video.id not in output.rows]


def written(
    results: Callable[[Tally], Iterator[Result]],
    videos: Sequence[Video],
    todo: Sequence[Video],
    job: Job,
    output: Output,
    formats: Sequence[str],
    tell: Tell | None,
) -> Tally:
    """Write results as they arrive, then the other formats that are wanted.

    Args:
        results: makes the iterator of results; it gets the counts.
        videos: all videos of the run.
        todo: those without a row.
        job, output, formats, tell: see `caption_videos`.

    Returns:
        the counts.

    Raises:
        OutputError: a file cannot be written; what is in the files by then stays, and counts.
    """
    tally = Tally(total=len(videos), before=len(videos) - len(todo))
    subtitled = [name for name in formats if name in FORMATS]
    folder = _subtitles_of(output)
    table = output.path.with_suffix(".parquet")
    if "parquet" in formats and table == output.path:
        raise OutputError(f"{table} would hold both rows and Parquet; choose another --out")
    _tidy(folder, table)
    if subtitled and tally.before:  # a run may have been killed between a row and its subtitles
        for row in output.read():
            _subtitle(row, folder, subtitled, anew=False)
    with ExitStack() as closing:
        arriving = results(tally)
        closing.callback(getattr(arriving, "close", int))  # at once: it holds a process
        for video, found in arriving:
            if isinstance(found, Failure):
                output.fail(job.failure(video, found))
                tally.failed += 1
                tally.first_failure = tally.first_failure or _told(video, found)
            else:
                output.add(found)
                _subtitle(found, folder, subtitled)
                tally.done += 1
                tally.seconds_of_video += found["duration"]
            if tell is not None:
                tell(tally, None, 0.0, None)
    if "parquet" in formats:
        from mmkv.demos.captioning.parquet import write_parquet

        try:
            write_parquet(output.read(), table)
        except OSError as error:
            _spare_of(table).unlink(missing_ok=True)
            raise unwritable(table, error) from error
    return tally


def _told(video: Video, failure: Failure) -> str:
    named = video.shown in failure.reason
    return failure.reason if named else f"{video.shown}: {failure.reason}"


def _spare_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _tidy(folder: Path, table: Path) -> None:
    """Remove what a killed run left half written; the lock on the rows says that none is running.

    Args:
        folder: of subtitles.
        table: the Parquet file.
    """
    try:
        _spare_of(table).unlink(missing_ok=True)
        for name in FORMATS:
            for spare in folder.glob(f".*.{name}.new"):
                spare.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(Path(error.filename or folder), error) from error


def _subtitle(
    row: dict[str, Any], folder: Path, formats: Sequence[str], *, anew: bool = True
) -> None:
    try:
        for name in formats:
            write_subtitles(row, folder, name, anew=anew)
    except OSError as error:
        raise unwritable(folder, error) from error


def _delete_subtitles(row: dict[str, Any], folder: Path) -> None:
    try:
        delete_subtitles(row, folder)
    except OSError as error:
        raise unwritable(folder, error) from error


def _subtitles_of(output: Output) -> Path:
    return output.path.with_name(f"{output.path.stem}-subtitles")


def part_of(path: Path, count: int, index: int) -> Path:
    """Name the file of one part: captions.jsonl becomes captions-2-of-8.jsonl."""
    return path if count == 1 else path.with_name(f"{path.stem}-{index}-of-{count}{path.suffix}")
