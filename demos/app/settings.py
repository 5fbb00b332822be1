"""What a visitor may choose: how much is kept of each moment, and how often one is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmkv.config.cache import CacheConfig
from mmkv.config.units import size

if TYPE_CHECKING:
    from mmkv import VideoLM
    from mmkv.demos.app.limits import Limits


@dataclass(frozen=True, slots=True)
class Level:
    """A step between detail and memory.

    Attributes:
        name: what the page calls it.
        bits: of keys and values; None: unpacked.
        words: what it means for the visitor.
    """

    name: str
    bits: tuple[float, float] | None
    words: str


LEVELS = {
    level.name: level
    for level in (
        Level("Full detail", None, "every moment is kept exactly as the model saw it"),
        Level("High", (4, 4), "hardly any difference, a fraction of the memory"),
        Level("Light", (2, 2), "small things may be missed now and then"),
        Level("Smallest", (1.5, 2), "for very long videos; details suffer first"),
    )
}
RATES = (0.5, 1.0, 2.0)  # frames per second
MOMENTS = (2, 48)  # retrieved per question, least and most


@dataclass(frozen=True, slots=True)
class Settings:
    """A visitor's choices. They apply to the next video; `follow_ups` at once.

    Attributes:
        level: a name in `LEVELS`.
        fps: frames per second of video.
        moments: earlier frames looked up per question; None for the engine's own choice.
        rush: encode as fast as possible instead of while the video plays.
        follow_ups: whether a question may refer to those before it.

    Raises:
        ValueError: a field is out of range.
    """

    level: str = "Full detail"
    fps: float = 1.0
    moments: int | None = None
    rush: bool = False
    follow_ups: bool = False

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level={self.level!r} is not one of {', '.join(LEVELS)}")
        if self.fps not in RATES:
            raise ValueError(f"fps={self.fps!r} is not one of {RATES}")
        least, most = MOMENTS
        if self.moments is not None and not least <= self.moments <= most:
            raise ValueError(f"moments={self.moments!r} is not between {least} and {most}")

    def config(self, limits: Limits, disk_bytes: int) -> CacheConfig:
        """Make the engine's configuration.

        Args:
            limits: of the server.
            disk_bytes: what is left for the stream's store.
        """
        return CacheConfig(
            **self._choices(), thumbnails=True, max_ram=limits.ram_bytes, max_disk=disk_bytes
        )

    def snippet(self, model: str) -> str:
        """Write Python code that does the same without this page; `model` is a name to load."""
        choices = ", ".join(f"{name}={value}" for name, value in self._choices().items())
        asking = (
            "chat = stream.chat()\n    print(chat.ask" if self.follow_ups else "print(stream.ask"
        )
        return (
            "import mmkv\n\n"
            f'vlm = mmkv.load("{model}")\n'
            f"config = mmkv.CacheConfig({choices})\n"
            "with vlm.stream(config) as stream:\n"
            f'    stream.encode("my.mp4", fps={self.fps:g})\n'
            f'    {asking}("What happens?").text)\n'
        )

    def in_words(self, vlm: VideoLM) -> str:
        """Say what an hour of video takes with these settings, and what that means."""
        level = LEVELS[self.level]
        full = vlm.gb_per_hour(self.fps) * 1e9
        unpacked = vlm.dtype.itemsize * 8
        share = 1.0 if level.bits is None else sum(level.bits) / 2 / unpacked
        about = "" if level.bits is None else "about "
        return f"{level.words.capitalize()}. An hour of video takes {about}{size(full * share)}."

    def _choices(self) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        bits = LEVELS[self.level].bits
        if bits is not None:
            chosen |= {"key_bits": bits[0], "value_bits": bits[1]}
        if self.moments is not None:
            chosen["retrieve_frames"] = self.moments
        return chosen
