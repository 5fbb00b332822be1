"""Where the archive's pages go and come from: all that it knows of a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from mmkv.archive.blocks import CachedBlock
from mmkv.archive.pages import Page, StoredPage


class PageSink(Protocol):
    """Takes pages to be kept; an error is raised as an OSError by the next call that waits."""

    @property
    def first(self) -> int:
        """The oldest block that is kept, or will be."""

    @property
    def nbytes(self) -> int:
        """Bytes of pages that wait to be written."""

    def saw(self, seconds: float) -> None:
        """Be told how far the stream has come, whose newest page is not handed over yet."""

    def put(self, page: Page, blocks: Sequence[CachedBlock], summaries: bytes, keep: int) -> None:
        """Hand a page over, once; never waits.

        Args:
            summaries: of its blocks.
            keep: blocks from this number on must stay.
        """

    def note(self, **facts: Any) -> None:
        """Keep facts about the stream beside its pages."""

    def make_room(self) -> None:
        """Wait while too much waits to be written."""

    def flush(self) -> None:
        """Return when every page that was handed over is safe."""

    def close(self) -> None:
        """Take no more pages; those that cannot be written are lost."""


class PageSource(Protocol):
    """Gives pages that were kept."""

    @property
    def first(self) -> int:
        """The oldest block that is kept."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """Facts that were noted."""

    def pages(self) -> Iterable[StoredPage]:
        """Pages not given before, oldest first."""
