"""Stream addresses without their secrets."""

import re
from dataclasses import dataclass, field

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*):/{1,3}")
_LOGIN = re.compile(r"^(?:[a-zA-Z]+//)?[^/@\s]+:.*@")  # an address whose scheme was forgotten
_HIDDEN = "***"


def redact(address: object) -> str:
    """Make an address printable: no user name, no password, no query values, no fragment.

    Args:
        address: a network address, or anything else (paths are returned unchanged).

    Returns:
        for example `rtsp://***@10.0.0.7/live?token=***`. Everything before the last `@` is
        hidden, so that a password containing `/` or `@`, which no parser splits off, stays hidden
        too; where a `?` or `#` before it makes the parts ambiguous, everything but the scheme is.
    """
    text = str(address)
    found = _SCHEME.match(text)
    if found is None:
        return _LOGIN.sub(f"{_HIDDEN}@", text)
    rest = text[found.end() :]
    user = ""
    if "@" in rest:
        before, _, rest = rest.rpartition("@")
        if "?" in before or "#" in before:  # the @ may be in the query, the ? in the password
            return found.group(0) + _HIDDEN
        user = _HIDDEN + "@"
    rest = rest.partition("#")[0]
    place, mark, query = rest.partition("?")
    if mark:
        query = "&".join(_hide_value(part) for part in query.split("&"))
    return f"{found.group(0)}{user}{place}{mark}{query}"


def _hide_value(part: str) -> str:
    key, mark, _ = part.partition("=")
    return f"{key}={_HIDDEN}" if mark else _HIDDEN


@dataclass(frozen=True, slots=True)
class Address:
    """A network address whose `str` and `repr` are redacted.

    Attributes:
        secret: the address to connect to, password and all.
    """

    secret: str = field(repr=False)

    def __str__(self) -> str:
        return redact(self.secret)

    def __repr__(self) -> str:
        return f"Address({redact(self.secret)!r})"

    @property
    def scheme(self) -> str:
        """The protocol in lower case, for example "rtsp"."""
        return self.secret.partition(":")[0].lower()

    def clean(self, text: str) -> str:
        """Remove every secret part of this address from a text, such as a log line of FFmpeg."""
        text = text.replace(self.secret, redact(self.secret))
        text = re.sub(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"]+", lambda m: redact(m.group(0)), text)
        for secret in self._secrets():
            text = text.replace(secret, _HIDDEN)
        return re.sub(r"(?i)(authorization:).*", rf"\1 {_HIDDEN}", text)

    def _secrets(self) -> list[str]:
        """The secret parts, longest first, each also as FFmpeg sees it after unquoting."""
        from urllib.parse import unquote

        rest = _SCHEME.sub("", self.secret)
        user = rest.rpartition("@")[0]
        query = rest.partition("?")[2]
        values = [part.partition("=")[2] or part for part in query.split("&")]
        parts = {user, user.partition(":")[2], query, *values}
        parts |= {unquote(part) for part in parts}
        return sorted((part for part in parts if len(part) > 2), key=len, reverse=True)
