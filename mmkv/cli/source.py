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
        live: whether it is watched as something without an end of its own.
        told: whether the user said that it is live, or is not; None: it is found out.
    """

    value: str | int
    name: str
    live: bool
    told: bool | None = None

    @classmethod
    def parse(cls, text: str, *, duration: float | None, live: bool | None = None) -> Source:
        """Find out what a text names.

        Args:
            text: as typed by the user.
            duration: seconds that a live source is to be watched; None: not said.
            live: whether an address is a live stream, as the user says; None: not said.

        Raises:
            ValueError, OSError: it names no video.
            typer.BadParameter: `duration` was given for a source that ends by itself, or `live` for
                one that is no address.
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
            endless = scheme not in FILES or (scheme != "file" and duration is not None)
            source = cls(text, redact(text), live=endless if live is None else live, told=live)
        else:
            raise FileNotFoundError(
                f"{redact(text)}: no such file or folder, and neither an address nor a webcam's "
                "index; `sample` is the bundled video"
            )
        if live is not None and (source.told is None or scheme == "file"):
            raise typer.BadParameter(
                f"--live and --no-live are for network addresses, and {source.name} is none"
            )
        if duration is not None and not source.live:
            raise typer.BadParameter(
                f"--duration is for live sources, and {source.name} ends by itself; "
                "--until limits what a question may look at"
            )
        if not source.live and source.told is None and scheme not in FILES:
            open_source(source.value).close()  # a bad file is reported before a model is loaded
        return source
