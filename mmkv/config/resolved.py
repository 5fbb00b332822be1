"""A stream's settings once every default is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmkv.codecs import Codec
    from mmkv.eviction import Eviction
    from mmkv.merging import Merge


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedConfig:
    """A `CacheConfig` with every default decided; the same names, sizes in bytes, times in seconds.

    Where nothing is retrieved, the recent frames are the whole window.

    Attributes:
        resident: whether answers attend to all of the packed past; `retrieve_frames` is then only
            how many frames they name.
    """

    window_frames: int
    recent_frames: int
    retrieve_frames: int
    neighbours: int
    retrieve_run: int
    score: str
    landmarks: int
    thumbnails: bool
    chunk_frames: int
    resident: bool
    codec: str | Codec | None
    key_bits: float | None
    value_bits: float | None
    group_size: int | None
    transform: str | None
    remove_mean: bool | None
    protected_layers: Sequence[int] | None
    protected_bits: float | None
    keep_ratio: float
    eviction: str | Eviction
    merging: str | Merge
    focus: str | None
    answer_keep_ratio: float
    page_tokens: int | None
    page_seconds: float
    max_ram: int | None
    index_bytes: int | None
    snapshot_frames: int | None
    snapshot_ram: int | None
    max_disk: int | None
    max_age: float | None
