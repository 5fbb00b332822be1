"""One visitor: a video, a stream and a conversation that nobody else can reach."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmkv.cli.errors import in_words
from mmkv.demos.app.camera import CameraSource
from mmkv.demos.app.exchange import Exchange
from mmkv.demos.app.files import open_file
from mmkv.demos.app.folders import delete
from mmkv.demos.app.hosts import AllowedHosts
from mmkv.demos.app.limits import Limits
from mmkv.demos.app.pinned import open_address
from mmkv.demos.app.settings import Settings
from mmkv.demos.app.watch import Video, Watch
from mmkv.models.tiny import SAMPLE_VIDEO
from mmkv.video import VideoError

if TYPE_CHECKING:
    from mmkv import VideoLM
    from mmkv.video import FrameSource

log = logging.getLogger("mmkv.demo")

Scope = Literal["watched", "position", "encoded"]
EXCHANGES = 50  # the newest, which the page shows
CATCH_UP = 10.0  # seconds that a question waits for frames the player has shown already


class Session:
    """What one visitor's page controls. Every method may be called from any thread.

    Args:
        vlm: the model, shared with the other sessions, which take turns fairly.
        folder: an empty folder of this session alone, deleted by `end`.
        limits: what the visitor may take.
        hosts: network addresses that may be watched; None for none.
        settings: the visitor's choices at first.
        clock: seconds that only rise.

    Attributes:
        settings: the visitor's choices.
        watch: the video on its way through the model, if any.
        exchanges: questions and answers, oldest first.
        message: what went wrong last, for the page to show.
        ended: whether `end` was called.
        active: when the visitor last did something, by `clock`.
        seen: when the page last gave a sign, by `clock`.
    """

    def __init__(
        self,
        vlm: VideoLM,
        folder: Path,
        limits: Limits,
        hosts: AllowedHosts | None = None,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.vlm = vlm
        self.folder = folder
        self.limits = limits
        self.hosts = hosts or AllowedHosts()
        self.settings = settings or Settings()
        self.watch: Watch | None = None
        self.exchanges: list[Exchange] = []
        self.message = ""
        self.ended = False
        self._clock = clock
        self._lock = threading.RLock()
        self._opening = threading.Lock()  # one video is opened at a time
        self.active = self.seen = clock()

    def touch(self) -> None:
        """Note that the visitor did something, or is watching."""
        self.active = self.seen = self._clock()

    def beat(self) -> None:
        """Note that the visitor's page is still open."""
        self.seen = self._clock()

    def sample(self) -> None:
        """Watch the bundled video."""
        video = Video("sample", "sample.mp4", SAMPLE_VIDEO)
        self._begin(video, lambda: open_file(SAMPLE_VIDEO, video.name, self.settings.fps))

    def file(self, path: Path, name: str) -> None:
        """Watch a file that was sent; it is in this session's folder and is deleted with it.

        Args:
            path: the file; deleted if it cannot be watched.
            name: what its owner calls it.

        Raises:
            ValueError: it cannot be opened, or the session has ended.
        """
        video = Video("file", name, path, mine=True)
        try:
            self._begin(video, lambda: open_file(path, name, self.settings.fps))
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def camera(self) -> None:
        """Watch the pictures that `picture` brings."""
        fps, seconds = self.settings.fps, self.limits.stream_seconds
        self._begin(Video("camera", "camera"), lambda: CameraSource(fps, seconds, self._clock))

    def address(self, text: str) -> None:
        """Watch a network address.

        Raises:
            ValueError: it cannot be opened, or its host is not listed.
        """
        pinned = self.hosts.pin(text)
        video = Video("address", str(pinned))
        self._begin(video, lambda: open_address(pinned, self.settings.fps))

    def again(self) -> None:
        """Watch the same file from its start, with the settings as they are now."""
        with self._lock:
            watch = self.watch
        if watch is None or watch.video.path is None:
            return
        path, name = watch.video.path, watch.video.name
        video = Video(watch.video.kind, name, path, mine=watch.video.mine)
        self._begin(video, lambda: open_file(path, name, self.settings.fps))

    def picture(self, data: bytes) -> bool:
        """Take a camera's picture; returns whether it was taken.

        Raises:
            VideoError: it is not a picture, damaged, or too large.
        """
        watch = self.watch
        if watch is None or watch.camera is None:
            return False
        taken = watch.camera.put(data)
        if taken:
            self.touch()
        return taken

    def play(self, position: float, furthest: float, *, playing: bool, rush: bool) -> None:
        """Note where the player is.

        Args:
            position: seconds of the video.
            furthest: seconds that it has reached so far.
            playing: whether it is playing now.
            rush: whether it is at the end, or cannot play the video.
        """
        self.seen = self._clock()
        if playing:
            self.active = self.seen
        watch = self.watch
        if watch is not None:
            watch.play(position, furthest)
            if rush:
                watch.rush()

    def ask(self, question: str, scope: Scope = "watched") -> Exchange:
        """Ask about the video.

        Args:
            question: any text.
            scope: what may be used: up to where the visitor has "watched", up to the player's
                "position", or all that is "encoded".

        Returns:
            the exchange, already started.

        Raises:
            ValueError: there is no video or question, it is too long, or another question is
                being answered.
        """
        self.touch()
        question = question.strip()
        with self._lock:
            watch = self.watch
            if watch is None:
                raise ValueError("Choose a video first.")
            if not question:
                raise ValueError("Type a question first.")
            if len(question) > self.limits.question_chars:
                raise ValueError(
                    f"The question has {len(question)} characters; at most "
                    f"{self.limits.question_chars} are allowed."
                )
            if self.answering is not None:
                raise ValueError("One question at a time: wait for the answer, or stop it.")
            until = self._until(watch, scope)
            exchange = Exchange(question, lambda: self._reply(watch, question, until), sentence)
            self.exchanges = [*self.exchanges, exchange][-EXCHANGES:]
            return exchange.start()

    @property
    def answering(self) -> Exchange | None:
        """The question that is being answered."""
        last = self.exchanges[-1] if self.exchanges else None
        return None if last is None or last.over else last

    def stop(self) -> None:
        """End the answer in progress."""
        self.touch()
        exchange = self.answering
        if exchange is not None:
            exchange.stop()

    def forget(self) -> None:
        """Stop everything, and delete the video, the stream and the conversation."""
        with self._opening:
            self._forget()

    def end(self) -> None:
        """Like `forget`, but for good, and the folder is deleted too."""
        self.ended = True
        try:
            self.forget()
        finally:
            delete(self.folder)

    def _forget(self, keep: Path | None = None) -> None:
        with self._lock:
            watch, self.watch = self.watch, None
            exchanges, self.exchanges = self.exchanges, []
            self.message = ""
        for exchange in exchanges:
            exchange.stop()
        if watch is not None:
            watch.close(keep)

    def _begin(self, video: Video, open_source: Callable[[], FrameSource]) -> None:
        self.touch()
        with self._opening:
            if self.ended:
                raise ValueError("This session has ended; reload the page.")
            self._forget(keep=video.path)
            try:
                watch = Watch(self.vlm, video, open_source, self.settings, self.limits, self.folder)
            except Exception as error:
                self.message = sentence(error)
                raise
            with self._lock:
                self.watch = watch

    def _until(self, watch: Watch, scope: Scope) -> float | None:
        if watch.video.path is None or scope == "encoded":  # without a file there is no player
            return None
        return watch.position if scope == "position" else watch.furthest

    def _reply(self, watch: Watch, question: str, until: float | None) -> object:
        settings = self.settings
        self._catch_up(watch, until or 0.0)
        asker = watch.chat if settings.follow_ups else watch.stream
        return asker.ask_iter(question, until=until, max_new_tokens=self.limits.answer_tokens)

    def _catch_up(self, watch: Watch, until: float) -> None:
        """Wait for the frames that the visitor has seen already, within reason."""
        gap = 1 / watch.settings.fps
        end = time.monotonic() + CATCH_UP
        while time.monotonic() < end and watch.feed.running:
            if watch.encoded is not None and watch.encoded >= until - gap:
                return
            time.sleep(0.02)


def sentence(error: Exception) -> str:
    """Put an error into words for a visitor, without revealing anything about the server."""
    if isinstance(error, ValueError):
        text = str(error)
        if text.startswith(("no frames", "the stream has no frames")):
            return "No part of the video has been seen yet; let it play for a moment."
        if not isinstance(error, VideoError):  # that one begins with a file's name
            text = text[:1].upper() + text[1:]
        return text if text.endswith((".", "!", "?")) else f"{text}."
    log.error("unexpected: %s", in_words(error))
    return "Something went wrong on the server; try again."
