"""Videos, questions and stores in the wrong order or place: what to type instead.

All of it is found before a model is loaded.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import typer

from mmkv.cli.errors import CommandError
from mmkv.config.units import clock

EXAMPLES = {"ask": ("question", "'what happens?'"), "find": ("text", "'a person at the door'")}


def video_and_texts(
    command: str, words: Sequence[str], store: str | None
) -> tuple[str | None, list[str]]:
    """Tell the video from the questions or texts about it.

    Args:
        command: "ask" or "find".
        words: what was typed, without options.
        store: the folder after --store; then there is no video.

    Returns:
        the video, None with a store; and the texts, which may be none for the bundled video.

    Raises:
        typer.BadParameter: something is missing, empty or in the wrong place.
        CommandError, StoreError: there is no store in the folder.
    """
    what, example = EXAMPLES[command]
    if store is None:
        if not words:
            raise typer.BadParameter(
                f"no VIDEO and no {what} given: mmkv {command} VIDEO {example}"
            )
        video, *texts = words
        _check_video(command, video, texts)
    else:
        video, texts = None, list(words)
        if texts and is_place(texts[0]):
            rest = shlex.join(texts[1:]) or example
            raise typer.BadParameter(
                f"with --store there is no VIDEO: "
                f"mmkv {command} --store {shlex.quote(store)} {rest}"
            )
        check_store(store)
    for text in texts:
        if not text.strip():
            raise typer.BadParameter(f"a {what} is empty; write words, such as {example}")
        if is_place(text):
            raise typer.BadParameter(
                f"{text} is where a {what} should be, and names a video; one video at a time: "
                f"mmkv {command} {shlex.quote(text)} {example}"
            )
    if not texts and (command, video) != ("ask", "sample"):
        place = f"--store {shlex.quote(store)}" if store is not None else shlex.quote(words[0])
        raise typer.BadParameter(f"no {what} given: mmkv {command} {place} {example}")
    return video, texts


def _check_video(command: str, video: str, texts: Sequence[str]) -> None:
    what, example = EXAMPLES[command]
    rest = shlex.join(texts) or example
    if not video.strip():
        raise typer.BadParameter(f"VIDEO is empty: mmkv {command} VIDEO {rest}")
    if is_store(video):
        raise typer.BadParameter(
            f"{video} is a store, not a video: mmkv {command} --store {shlex.quote(video)} {rest}"
        )
    if is_place(video) or exists(video) or video.isdigit():
        return
    later = [text for text in texts if is_place(text) or exists(text)]
    if later:
        others = shlex.join([video, *(text for text in texts if text != later[0])])
        raise typer.BadParameter(
            f"VIDEO comes before the {what}: mmkv {command} {shlex.quote(later[0])} {others}"
        )
    if is_sentence(video):
        raise typer.BadParameter(
            f"{video!r} is no video, but looks like a {what}: "
            f"mmkv {command} VIDEO {shlex.join([video, *texts])}"
        )


def check_videos(videos: Sequence[str]) -> None:
    """Find what `mmkv encode` cannot watch, because it is meant for another command.

    Raises:
        typer.BadParameter: it is empty, a store, or a question.
    """
    for video in videos:
        if not video.strip():
            raise typer.BadParameter("VIDEO is empty: mmkv encode VIDEO")
        if is_store(video):
            raise typer.BadParameter(
                f"{video} is a store, not a video; to continue it: "
                f"mmkv encode VIDEO --store {shlex.quote(video)} --append"
            )
        if is_sentence(video) and not exists(video) and not is_place(video):
            raise typer.BadParameter(
                f"{video!r} is no video, but looks like a question, and `encode` asks none: "
                f"mmkv ask VIDEO {shlex.quote(video)}"
            )


def check_span(since: float | None, until: float | None) -> None:
    """Find limits between which nothing lies.

    Raises:
        typer.BadParameter: `since` is after `until`.
    """
    if since is not None and until is not None and since > until:
        raise typer.BadParameter(
            f"--since {clock(since)} is after --until {clock(until)}; exchange them"
        )


def check_store(folder: str) -> None:
    """Find out that there is a store that can be read.

    Raises:
        CommandError: it is a file, or a folder of something else.
        StoreError: there is none, or it is damaged.
    """
    from mmkv.store import meta

    path = Path(folder).expanduser().absolute()
    makes = "`mmkv encode VIDEO --store DIR` makes one"
    if path.is_file():
        raise CommandError(f"{folder} is a file, and a store is a folder; {makes}")
    if path.is_dir() and not (path / meta.NAME).exists():
        raise CommandError(f"{folder} is a folder, but not a store; {makes}")
    meta.load(path)


def is_store(text: str) -> bool:
    """Return whether a text is the folder of a store."""
    from mmkv.store import meta

    return exists(text) and meta.is_store(Path(text).expanduser())


def is_place(text: str) -> bool:
    """Return whether a text can only be meant as a video: it is no word that also names a file."""
    if text == "sample" or text.startswith("/dev/video"):
        return True
    if "://" in text:
        return not any(map(str.isspace, text))
    return exists(text) and ("/" in text or bool(Path(text).suffix))


def is_sentence(text: str) -> bool:
    """Return whether a text looks like words rather than like a path."""
    return text.endswith("?") or (" " in text and "/" not in text and not _ending(text))


def exists(text: str) -> bool:
    """Return whether there is a file or folder of this name."""
    try:
        return bool(text) and Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a name, or no home
        return False


def _ending(text: str) -> bool:
    ending = Path(text).suffix
    return 2 <= len(ending) <= 5 and " " not in ending
