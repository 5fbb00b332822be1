"""A network address whose host was looked up once: opened there, and nowhere else.

FFmpeg connects to a relay of ours alone, for each connection of the address's own scheme.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, urlunsplit

from mmkv.demos.app.answers import Answers, as_it_comes, http, rtsp
from mmkv.demos.app.files import FORMATS, MAX_SIDE
from mmkv.demos.app.relay import Relay
from mmkv.video import Frame, FrameSource, Reconnect, VideoError, redact
from mmkv.video.container import open_container
from mmkv.video.live import LiveSource
from mmkv.video.network import clean_logs, connect_network
from mmkv.video.pyav_file import Job, PyAvFile
from mmkv.video.recording import LOOK_SECONDS, Kind, kind_of
from mmkv.video.redact import Address

TIMEOUT = 10.0  # seconds
PROTOCOLS = {"rtsp": "tcp", "http": "http,tcp", "https": "https,httpproxy,tls,tcp"}
ANSWERS: dict[str, Answers] = {"rtsp": rtsp, "http": http}  # what https answers is encrypted


@dataclass(frozen=True, slots=True)
class Pinned:
    """An address whose host was looked up.

    Attributes:
        parts: of the address as it was typed.
        number: the host's IP address at that time.
        port: to connect to.
    """

    parts: SplitResult
    number: str
    port: int

    def __str__(self) -> str:
        return redact(urlunsplit(self.parts))

    @contextmanager
    def reached(self) -> Iterator[Way]:
        """Run a relay to the number.

        Yields:
            how FFmpeg gets there.
        """
        scheme = self.parts.scheme
        place = f"{self.parts.hostname}:{self.port}"
        answers = None if self._by_name else ANSWERS.get(scheme, as_it_comes)
        with Relay(place, self.number, self.port, TIMEOUT, answers) as relay:
            given = {**self._options, "protocol_whitelist": PROTOCOLS[scheme]}
            if self._by_name:
                yield Way(
                    Address(urlunsplit(self.parts)), relay, {**given, "http_proxy": relay.address}
                )
                return
            user, at, _ = self.parts.netloc.rpartition("@")
            local = self.parts._replace(netloc=f"{user}{at}{relay.place}")
            # no proxy of the environment's
            yield Way(Address(urlunsplit(local)), relay, {**given, "http_proxy": ""})

    @property
    def _options(self) -> dict[str, str]:
        """Options of FFmpeg that keep it from following anything to another place."""
        if self.parts.scheme == "rtsp":
            # over UDP the server would choose where packets go to
            return {"format_whitelist": "rtsp", "rtsp_transport": "tcp"}
        host = self.parts.netloc.rpartition("@")[2]
        given = {
            "format_whitelist": FORMATS,
            "max_redirects": "0",
            "headers": f"Host: {host}\r\n",
        }
        if self.parts.scheme == "https":
            given["verifyhost"] = str(self.parts.hostname)
        return given

    @property
    def _by_name(self) -> bool:
        """Whether a relay is asked for the name, so that TLS sends it: servers with several names
        need that (SNI). Where no_proxy is set, FFmpeg might bypass the relay: then it gets the
        relay's own address.
        """
        named = ":" not in str(self.parts.hostname) and self.parts.hostname != self.number
        return self.parts.scheme == "https" and named and not os.environ.get("no_proxy")


@dataclass(frozen=True, slots=True)
class Way:
    """How FFmpeg gets to a place, while its relay runs.

    Attributes:
        address: what FFmpeg opens.
        relay: what it connects to.
        options: further options of FFmpeg.
    """

    address: Address
    relay: Relay
    options: dict[str, str]

    @contextmanager
    def explained(self, name: str) -> Iterator[None]:
        """Say `name` instead of the relay's place in errors, and why it refused, where it did.

        Raises:
            VideoError: one was raised inside.
        """
        try:
            yield
        except VideoError as error:
            text = str(error).replace(str(self.address), name)
        else:
            return
        raise VideoError(f"{name}: cannot be opened: {self.relay.why}" if self.relay.why else text)


class Recording(PyAvFile):
    """A recording on a web server.

    Args:
        pinned: where it is.
        fps: frames per second to choose.

    Raises:
        VideoError: it cannot be opened.
    """

    def __init__(self, pinned: Pinned, fps: float) -> None:
        with ExitStack() as stack:
            way = stack.enter_context(pinned.reached())
            protocols, limits = PROTOCOLS[pinned.parts.scheme], (TIMEOUT, TIMEOUT)
            job = Job(way.address, str(pinned), fps, MAX_SIDE, protocols, way.options, limits)
            with way.explained(str(pinned)):
                super().__init__(job)
            self._way = stack.pop_all()

    def close(self) -> None:
        """Stop reading, and end the relay."""
        super().close()
        if hasattr(self, "_way"):  # it was opened
            self._way.close()


def open_address(pinned: Pinned, fps: float) -> FrameSource:
    """Open a camera, or a recording on a web server.

    Args:
        pinned: where it is.
        fps: frames per second to choose.

    Raises:
        VideoError: it cannot be opened, or leads elsewhere.
    """
    name, scheme, kind = str(pinned), pinned.parts.scheme, Kind.LIVE
    if scheme != "rtsp":
        begun = time.monotonic()
        limits = (TIMEOUT, min(TIMEOUT, LOOK_SECONDS))
        with (
            pinned.reached() as way,
            way.explained(name),
            clean_logs(way.address),
            open_container(
                way.address, name, protocols=PROTOCOLS[scheme], options=way.options, timeout=limits
            ) as container,
        ):
            kind = kind_of(container, begun)
        if kind is Kind.RECORDING:
            return Recording(pinned, fps)

    def connect(
        stopped: Callable[[], bool],
    ) -> Iterator[tuple[float | None, Callable[[], Frame]]]:
        with pinned.reached() as way, way.explained(name):
            frames = connect_network(way.address, TIMEOUT, MAX_SIDE, way.options)
            yield from frames(stopped)

    return LiveSource(
        name, connect, fps=fps, reconnect=Reconnect(attempts=5), ends=kind is Kind.OPEN
    )
