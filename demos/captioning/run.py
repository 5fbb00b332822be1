"""Many videos, one after the other, resumed where an earlier run ended, whatever ended it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmkv.demos.captioning.job import Failure, Job
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.output import Output, OutputError
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
        OutputError: rows were made with other settings.
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
            f"{output.path} has rows of {len(others)} of these videos made with another model or "
            "other settings; choose another --out, keep them with --old keep, or caption them "
            "again with --old redo"
        )
    if others and old == "redo":
        for row in output.read():  # before the rows: after a kill here, the next run repeats this
            if row["id"] in others:
                delete_subtitles(row, _subtitles_of(output))
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
    """
    tally = Tally(total=len(videos), before=len(videos) - len(todo))
    subtitled = [name for name in formats if name in FORMATS]
    folder = _subtitles_of(output)
    if subtitled and tally.before:  # a run may have been killed between a row and its subtitles
        for row in output.read():
            _subtitle(row, folder, subtitled, anew=False)
    for video, found in results(tally):
        if isinstance(found, Failure):
            output.fail(job.failure(video, found))
            tally.failed += 1
        else:
            output.add(found)
            _subtitle(found, folder, subtitled)
            tally.done += 1
            tally.seconds_of_video += found["duration"]
        if tell is not None:
            tell(tally, None, 0.0, None)
    if "parquet" in formats:
        from mmkv.demos.captioning.parquet import write_parquet

        write_parquet(output.read(), output.path.with_suffix(".parquet"))
    return tally


def _subtitle(
    row: dict[str, Any], folder: Path, formats: Sequence[str], *, anew: bool = True
) -> None:
    for name in formats:
        write_subtitles(row, folder, name, anew=anew)


def _subtitles_of(output: Output) -> Path:
    return output.path.with_name(f"{output.path.stem}-subtitles")


def part_of(path: Path, count: int, index: int) -> Path:
    """Name the file of one part: captions.jsonl becomes captions-2-of-8.jsonl."""
    return path if count == 1 else path.with_name(f"{path.stem}-{index}-of-{count}{path.suffix}")
