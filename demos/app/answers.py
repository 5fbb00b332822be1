"""What a server may answer: nothing that leads FFmpeg to another place gets through.

A head is read here by strict rules and written anew, so that FFmpeg cannot find in it what was
overlooked here: another length, another status, or another place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

ELSEWHERE = "it leads to another address, which is not followed"
HEAD = 65_536  # bytes of one head, at most
BODY = 1_000_000  # bytes of an RTSP message's body, at most
PACKET = 8  # bytes of an interleaved packet, at least; FFmpeg reads on amid shorter ones
DROPPED = ("location", "refresh", "connection", "keep-alive", "content-length")

Answers = Callable[[BinaryIO], Iterator[bytes]]
_FIELD = re.compile(r"([A-Za-z0-9][\w.-]*)[ \t]*:[ \t]*([^\x00-\x1f\x7f]*)", re.ASCII)


class Refusal(Exception):
    """An answer that is not passed on; its text says why."""


def rtsp(source: BinaryIO) -> Iterator[bytes]:
    """Pass on RTSP messages and the packets between them.

    Args:
        source: what the server sends.

    Yields:
        whole messages and packets; packets that are too short to be any are left out.

    Raises:
        Refusal: a message redirects, or is none.
    """
    what = "RTSP"
    while first := source.read(1):
        if first == b"$":
            yield from _packet(source)
            continue
        if first in (b"\r", b"\n"):  # between messages
            continue
        start, fields = _head(first, source, what)
        found = re.fullmatch(r"RTSP/1\.0 (\d{3})(?: .*)?", start)
        if found is not None and found[1].startswith("3"):
            raise Refusal(ELSEWHERE)
        if found is None and re.fullmatch(r"[A-Z_]+ [!-~]+ RTSP/1\.0", start) is None:
            raise Refusal(f"it does not speak {what}")
        if start.startswith("REDIRECT "):
            raise Refusal(ELSEWHERE)
        length = _length(fields, what)
        if length is None:
            yield _written(start, fields, {})
            continue
        if length > BODY:
            raise Refusal(f"an answer of {length} bytes is too long")
        body = source.read(length)
        if len(body) < length:
            return
        yield _written(start, fields, {"Content-Length": str(length)}) + body


def http(source: BinaryIO) -> Iterator[bytes]:
    """Pass on the answer to one HTTP request, after which the connection ends.

    Args:
        source: what the server sends.

    Yields:
        the head, then the body as it comes.

    Raises:
        Refusal: it redirects, or is no such answer.
    """
    first = source.read(1)
    if not first:
        return
    start, fields = _head(first, source, "HTTP")
    found = re.fullmatch(r"HTTP/1\.[01] (\d{3})(?: .*)?", start)
    if found is None:
        raise Refusal("it does not speak HTTP")
    if found[1][0] not in "245":
        raise Refusal(ELSEWHERE if found[1].startswith("3") else f"it answers {found[1]}")
    length = _length(fields, "HTTP")
    own = {"Connection": "close"}
    if length is not None:
        own["Content-Length"] = str(length)
    yield _written(start, fields, own)
    yield from as_it_comes(source)


def as_it_comes(source: BinaryIO) -> Iterator[bytes]:
    """Pass on everything, such as a body, or what cannot be read on the way."""
    while data := source.read1(65_536):  # type: ignore[attr-defined]
        yield data


def _packet(source: BinaryIO) -> Iterator[bytes]:
    head = source.read(3)  # channel, length
    length = int.from_bytes(head[1:], "big")
    data = source.read(length)
    if len(head) == 3 and len(data) == length >= PACKET:
        yield b"$" + head + data


def _head(first: bytes, source: BinaryIO, what: str) -> tuple[str, list[tuple[str, str]]]:
    """A head's first line and its well-formed fields."""
    lines, size = [], 0
    line = first + source.readline(HEAD)
    while line.strip(b"\r\n"):
        size += len(line)
        if size > HEAD or not line.endswith(b"\n"):
            raise Refusal(f"it does not speak {what}")
        lines.append(line.rstrip(b"\r\n").decode("latin-1"))
        line = source.readline(HEAD)
    if not line or not re.fullmatch(r"[ -~]+", lines[0]):
        raise Refusal(f"it does not speak {what}")
    found = (_FIELD.fullmatch(line) for line in lines[1:])
    return lines[0], [(field[1], field[2].strip()) for field in found if field is not None]


def _length(fields: list[tuple[str, str]], what: str) -> int | None:
    """The length of the body; None where none is declared."""
    found = {value for name, value in fields if name.lower() == "content-length"}
    if not found:
        return None
    (value, *others) = found
    if others or not re.fullmatch(r"[0-9]{1,15}", value):
        raise Refusal(f"it does not speak {what}")
    return int(value)


def _written(start: str, fields: list[tuple[str, str]], own: dict[str, str]) -> bytes:
    """The head as it is passed on, with fields of our own in place of those that are dropped."""
    kept = [(name, value) for name, value in fields if name.lower() not in DROPPED]
    lines = [start, *(f"{name}: {value}" for name, value in [*kept, *own.items()])]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
