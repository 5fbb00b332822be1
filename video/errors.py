"""What goes wrong with a video, as errors a user can act on."""


class VideoError(ValueError):
    """A source cannot be read. The message is one sentence naming the source and the cause."""


class VideoNotFoundError(VideoError, FileNotFoundError):
    """There is no file or folder at the given path."""

    # FileNotFoundError.__str__ prints errno pairs; the one-sentence message is wanted instead.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""
