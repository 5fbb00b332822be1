"""Lists of videos as other systems write them: encodings, line ends, spaces, quotation marks."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# the longer ones first: UTF-32's little-endian mark begins with UTF-16's
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_list(list_file: str) -> Iterator[tuple[str | None, str]]:
    """Read a list of videos: a path or an address a line, after an id and a tab if wanted.

    The text is UTF-8, UTF-16 or UTF-32, with or without a byte-order mark; lines end in LF, CRLF
    or CR. Empty lines and lines that begin with # are left out. Spaces around a path and a pair of
    quotation marks around it are dropped unless a file of that very name exists.

    Args:
        list_file: the file; "-" is standard input.

    Yields:
        the id, None where there is none, and the path or address.

    Raises:
        ValueError: the list is no text in one of these encodings.
        FileNotFoundError: there is no such file.
    """
    if list_file == "-":
        stream = getattr(sys.stdin, "buffer", None)
        text = _decode(stream.read(), "standard input") if stream else sys.stdin.read()
    else:
        text = _decode(Path(list_file).expanduser().read_bytes(), list_file)
    # not splitlines, which also splits at characters that a name may have
    for line in re.split(r"\r\n|\n|\r", text):
        if line.strip() and not line.lstrip().startswith("#"):
            yield _entry(line)


def _decode(data: bytes, name: str) -> str:
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:4096]:  # no path has one, all of UTF-16's ASCII has
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name}: line {line} is not {(encoding or 'utf-8').upper()} text; "
            "save the list as UTF-8"
        ) from None


def _entry(line: str) -> tuple[str | None, str]:
    id, tab, path = line.rpartition("\t")
    if not tab or not path.strip() or _exists(line):  # a tab may end a line, or be in a name
        return None, _path(line)
    return _unquoted(id.strip()) or None, _path(path)


def _path(text: str) -> str:
    bare = text.strip()
    forms = (text, text.rstrip(), text.lstrip(), bare, _unquoted(bare))
    return next((form for form in forms if _exists(form)), _unquoted(bare))


def _unquoted(text: str) -> str:
    quoted = len(text) > 2 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))
