"""What a user may name as a video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from mmkv.models.tiny import SAMPLE_VIDEO

FILES = {"file", "http", "https"}  # with --duration, the last two are streams without an end


@dataclass(frozen=True, slots=True)
class Source:
    """A video that was named on the command line.

    Attributes:
        value: what the engine takes: a path, an address, or a webcam's index.
        name: the same for people to read, without a password.
        live: whether it has no end of its own.
    """

    value: str | int
    name: str
    live: bool

    @classmethod
    def parse(cls, text: str, *, duration: float | None) -> Source:
        """Find out what a text names.

        Args:
            text: as typed by the user.
            duration: seconds that a live source is to be watched; None: not said.

        Raises:
            ValueError, OSError: it names no video.
            typer.BadParameter: `duration` was given for a source that ends by itself.
        """
        from mmkv.video import open_source
        from mmkv.video.redact import redact

        path, scheme = Path(text).expanduser(), text.partition("://")[0].lower()
        if path.exists() and not path.is_char_device():
            path = path.absolute() if text.isdigit() else path  # a file named 0 is no webcam
            source = cls(str(path), text, live=False)
        elif text == "sample":
            source = cls(str(SAMPLE_VIDEO), text, live=False)
        elif text.isdigit():
            source = cls(int(text), f"webcam {text}", live=True)
        elif text.startswith("/dev/video") and text[10:].isdigit():
            source = cls(int(text[10:]), text, live=True)
        elif "://" in text:
            live = scheme not in FILES or (scheme != "file" and duration is not None)
            source = cls(text, redact(text), live=live)
        else:
            raise FileNotFoundError(
                f"{redact(text)}: no such file or folder, and neither an address nor a webcam's "
                "index; `sample` is the bundled video"
            )
        if duration is not None and not source.live:
            raise typer.BadParameter(
                f"--duration is for live sources, and {source.name} ends by itself; "
                "--until limits what a question may look at"
            )
        if not source.live and scheme not in FILES:
            open_source(source.value).close()  # a bad file is reported before a model is loaded
        return source
