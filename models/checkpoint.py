"""The files of a checkpoint, in a folder or on the Hub, without importing torch or transformers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"


class CheckpointFiles:
    """Files of one checkpoint.

    Args:
        name: a local folder, or a Hub id.
        revision: a branch or commit on the Hub; None: the newest.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        self.name = name
        self._revision = revision
        self._pinned = False
        self._folder = Path(name) if Path(name).is_dir() else None

    def find(self, file: str) -> Path | None:
        """Return where a file is on this machine; it is downloaded if need be.

        Returns:
            its path; None where the checkpoint has no such file.

        Raises:
            OSError: there is no such checkpoint, or it cannot be reached.
            ValueError: the name is neither a folder's nor one that the Hub could know.
        """
        if self._folder is not None:
            path = self._folder / file
            return path if path.is_file() else None
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        if self._pinned:
            cached = try_to_load_from_cache(self.name, file, revision=self._revision)
            if cached is not None:  # a path, or a mark that there is no such file
                return Path(cached) if isinstance(cached, str) else None
        try:
            path = Path(hf_hub_download(self.name, file, revision=self._revision))
        except LocalEntryNotFoundError:
            if file == "config.json":  # every checkpoint has one, so it is the Hub that is missing
                raise
            return None
        except EntryNotFoundError:
            return None
        if not self._pinned:  # the others are of the same commit, and cached ones need no network
            self._revision, self._pinned = path.parent.name, True
        return path

    def config(self) -> dict[str, Any]:
        """Read the configuration.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is not a JSON object.
        """
        path = self.find("config.json")
        if path is None:
            raise FileNotFoundError(
                f"{self.name} has no config.json, so it is no model; give the folder of a "
                "checkpoint, or a Hugging Face id such as Qwen/Qwen3-VL-2B-Instruct"
            )
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"{path} is not a JSON object; fetch the checkpoint again")
        return found

    def weight_bytes(self) -> int | None:
        """Return the bytes of all weights as they are stored; None where nothing here says so."""
        index = self.find(INDEX)
        if index is not None:
            total = json.loads(index.read_text(encoding="utf-8")).get("metadata", {})
            if isinstance(size := total.get("total_size"), int | float):
                return int(size)
        return sum(map(_weights, self._weights())) or None

    def _weights(self) -> list[Path]:
        """Files of weights on this machine; none is downloaded."""
        if self._folder is not None:
            return sorted(self._folder.glob("*.safetensors"))
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.name, WEIGHTS, revision=self._revision)
        return [Path(cached)] if isinstance(cached, str) else []


def _weights(file: Path) -> int:
    """Bytes of a safetensors file but for its header, whose length it begins with."""
    with file.open("rb") as opened:
        (header,) = struct.unpack("<Q", opened.read(8))
    return file.stat().st_size - 8 - int(header)
