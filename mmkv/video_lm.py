"""A loaded video LLM, ready for streams."""

from __future__ import annotations

import os
from typing import Literal

from mmkv.config.cache import CacheConfig
from mmkv.engine.runtime import ModelRuntime
from mmkv.session.opening import new_stream, open_stream
from mmkv.session.stream import Stream


class VideoLM(ModelRuntime):
    """A model and its tokenizer. Made by `mmkv.load`.

    Attributes:
        name: what was loaded.
        family: the adapter's name.
        cuda_graphs: whether answers replay their decode step as a CUDA graph, where possible.
    """

    def stream(
        self,
        config: CacheConfig | None = None,
        *,
        system: str | None = None,
        store: str | os.PathLike[str] | None = None,
    ) -> Stream:
        """Open a stream.

        Args:
            config: its memory; None: the defaults.
            system: a system message in front of everything.
            store: a new folder that the stream is kept in, to be opened again with `open`.

        Raises:
            ValueError: a setting is not allowed.
            StoreError: there is a store at that place already, or none can be made.
        """
        return new_stream(self, config or CacheConfig(), system, store)

    def open(
        self,
        path: str | os.PathLike[str],
        mode: Literal["r", "a"] = "r",
        *,
        config: CacheConfig | None = None,
    ) -> Stream:
        """Open a stream that was kept in a store.

        Args:
            path: the store's folder.
            mode: "r" answers questions, also while another process writes the store, from what it
                has flushed; "a" continues encoding, with times that follow on.
            config: how much memory is used and how questions are answered; None: as before. What
                encoding depends on (`window_frames`, the codec, `landmarks`, `thumbnails`) cannot
                change. With mode "a", thinning (`keep_ratio`, `eviction`, `merging`, `focus`)
                changes where it is named, and stays so when the store is opened again.

        Raises:
            ValueError: a setting is not allowed, or differs from what encoding depends on.
            StoreMismatchError: another model, version or codec made the store.
            StoreError: there is no store, it is damaged, or another process is writing it.
        """
        return open_stream(self, path, mode, config)
