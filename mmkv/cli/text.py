"""Numbers the way people read them, and the lines that a command prints."""

from __future__ import annotations

from collections.abc import Sequence


def clock(seconds: float) -> str:
    """A position in a video: 0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(n: float) -> str:
    """Bytes, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "bytes" or n >= 10 else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def took(seconds: float) -> str:
    """How long something took: 12 ms, 3.4 s, 2 min 5 s, 13 h 36 min."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 100 else f"{minutes} min {rest} s"


def moments(times: Sequence[float], gap: float) -> list[str]:
    """Positions, best first, with neighbours closer than `gap` seconds joined: 0:42-0:45, 0:03."""
    runs: list[list[float]] = []
    for time in sorted(times):
        if runs and time - runs[-1][-1] <= gap:
            runs[-1].append(time)
        else:
            runs.append([time])
    runs.sort(key=lambda run: min(map(times.index, run)))
    ends = [(clock(run[0]), clock(run[-1])) for run in runs]
    return [first if first == last else f"{first}-{last}" for first, last in ends]


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, the first padded."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)
