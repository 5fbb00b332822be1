"""Whether a Matroska or WebM file is whole."""

_HEADER, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
HEAD_BYTES = 4096  # more than enough for `declared_bytes`


def declared_bytes(head: bytes) -> int | None:
    """Read how long a file is by its own account.

    Args:
        head: its first bytes.

    Returns:
        bytes; None if it does not say so, as while it is being recorded, or is of another format.
    """
    if not head.startswith(_HEADER):
        return None
    size, at = _number(head, 4)
    if size is None or head[at + size : at + size + 4] != _SEGMENT:
        return None
    length, begin = _number(head, at + size + 4)
    return None if length is None else begin + length


def is_whole(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes says in its first bytes, `head`, that it is not longer."""
    declared = declared_bytes(head)
    return declared is not None and declared <= size


def _number(data: bytes, at: int) -> tuple[int | None, int]:
    """A number of 1 to 8 bytes, and where it ends; None: unknown, or cut off."""
    width = 9 - data[at].bit_length() if at < len(data) else 9
    if width > 8 or at + width > len(data):
        return None, at
    bits = 7 * width
    value = int.from_bytes(data[at : at + width], "big") & ((1 << bits) - 1)
    return (None if value == (1 << bits) - 1 else value), at + width
