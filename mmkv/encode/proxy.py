"""A text that follows each chunk while it is encoded, to observe its tokens; it is not kept.

A live stream has no question yet. The text is the chat template's own, with `focus` in the
question's place; it passes through the model in the chunk's forward, after the chunk, so that
frames cannot see it. It sees the stream's opening tokens, the chunk and itself, placed as if the
question were about the chunk as a whole clip.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmkv.config.resolved import ResolvedConfig
from mmkv.encode.window import EncodePass, Window
from mmkv.engine import hooks
from mmkv.eviction.base import ALL_TEXT
from mmkv.eviction.registry import make_eviction
from mmkv.kernels.attention_mass import attention_mass
from mmkv.kernels.buffer_attention import buffer_attention
from mmkv.kernels.rotate_write import rotate_write
from mmkv.models.base import VideoModel
from mmkv.models.prompt import Prompt, Template


class Proxy:
    """The text.

    Args:
        adapter: the model.
        prompt: what follows the last frame of a clip.
        observes: see `Eviction`.
    """

    def __init__(self, adapter: VideoModel, prompt: Prompt, observes: int) -> None:
        self.adapter = adapter
        self._prompt = prompt
        self._observes = observes
        self._embeds: Tensor | None = None

    @property
    def ids(self) -> list[int]:
        """Token ids, as many as embeddings."""
        lead = len(self.embeds) - len(self._prompt.ids)
        return [self.adapter.filler] * lead + list(self._prompt.ids)

    @property
    def embeds(self) -> Tensor:
        """Input embeddings `[p, D]`."""
        if self._embeds is None:
            text, lead = self.adapter.embed_text(self._prompt.ids), self.adapter.prompt_lead()
            self._embeds = text if lead is None else torch.cat([lead, text])
        return self._embeds

    def observe(self, encode: EncodePass, window: Window, positions: np.ndarray) -> ObservedPass:
        """Make the pass of a chunk, at positions int64 `[A, n]`, with the text after it."""
        text = len(self.embeds)
        total = text + positions.shape[1]
        rows = text if self._observes == ALL_TEXT else min(self._observes, total)
        return ObservedPass(encode, window, positions, text, rows)


class ObservedPass:
    """A chunk's pass, with a text after the chunk.

    Attributes:
        places: positions int64 `[A, text]` of the text.
        masses: per layer the attention `[H_kv, n]` that the chunk's tokens get from the observing
            queries, summed over these and over the query heads of a key head.
    """

    def __init__(
        self, encode: EncodePass, window: Window, positions: np.ndarray, text: int, rows: int
    ) -> None:
        self._encode, self._window = encode, window
        self._n, self._text, self._rows = positions.shape[1], text, rows
        sinks = window.sinks
        base = positions[:, :1] - sinks  # as if the chunk began right behind the opening tokens
        start = base + int((positions - base).max()) + 1
        self.places = start + np.arange(text)
        self._places = np.concatenate([base + np.arange(sinks), positions, self.places], axis=1)
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._chunk: list[tuple[Tensor, Tensor, Tensor]] = []  # per layer, where text comes later
        self._heard: dict[int, tuple[Tensor, Tensor]] = {}  # of layers that others read
        self.masses: list[Tensor] = []

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Attend as the chunk's own pass, then as the text, and add to `masses`.

        Chunk and text come in one forward or, where layers carry a state that the text must not
        change, in two.
        """
        n, text = self._n, self._text
        if query.shape[2] == n + text:
            own = (query[:, :, :n], key[:, :, :n], value[:, :, :n])
            out = self._encode.attend(layer, *own, scaling)
            return torch.cat([out, self._say(layer, query, key, value, scaling)], dim=1)
        if layer == len(self._chunk):
            self._chunk.append((query, key, value))
            return self._encode.attend(layer, query, key, value, scaling)
        before = self._chunk[layer]
        query, key, value = (
            torch.cat([old, new], dim=2)
            for old, new in zip(before, (query, key, value), strict=True)
        )
        return self._say(layer, query, key, value, scaling)

    def again(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """Attend by the queries of a layer that reads this layer's keys; nothing is observed."""
        n, text = self._n, self._text
        if query.shape[2] == n + text:
            out = self._encode.again(layer, query[:, :, :n], scaling)
            return torch.cat([out, self._hear(layer, query[:, :, n:], scaling)], dim=1)
        if layer not in self._heard:
            return self._encode.again(layer, query, scaling)
        return self._hear(layer, query, scaling)

    def _hear(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """Attend as the last tokens of the text, over what it has in a layer."""
        key, value = self._heard[layer]
        cos, sin = self._table(key)
        before = key.shape[2] - query.shape[2]
        table = (cos[before:], sin[before:])
        return buffer_attention(query, key, value, before, scaling, table)

    def _say(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attend as the text, which is the end of these tokens, and add to `masses`."""
        n, text, rows = self._n, self._text, self._rows
        ring = self._window.layers[layer]
        cos, sin = self._table(key)
        sinks, total = len(cos) - n - text, len(cos)
        size = (1, key.shape[1], total, key.shape[3])
        seen_key, seen_value = key.new_empty(size), value.new_empty(size)
        if ring.sink_key is not None and ring.sink_value is not None:
            table = (cos[:sinks], sin[:sinks])
            rotate_write(ring.sink_key, ring.sink_value, table, seen_key, seen_value, 0)
        rotate_write(key, value, (cos[sinks:], sin[sinks:]), seen_key, seen_value, sinks)
        self._heard = {layer: (seen_key, seen_value)}  # layers read the last one of a kind
        before = total - text
        said = self._hear(layer, query[:, :, -text:], scaling)
        first = total - rows
        table = (cos[first:], sin[first:])
        mass = attention_mass(query[0, :, -rows:], seen_key[0], scaling, first, table)
        self.masses.append(mass[:, before - n : before])
        return said

    def _table(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if like.device not in self._tables:
            table = self._window.rotary(self._places, like.device, like.dtype)
            self._tables[like.device] = table
        return self._tables[like.device]


def encode_observed(
    proxy: Proxy,
    encode: EncodePass,
    window: Window,
    positions: np.ndarray,
    embeds: Tensor,
    ids: list[int],
    extras: dict[str, Any],
) -> Tensor:
    """Run a chunk's forward with the text after it; the text leaves no trace in the stream.

    Args:
        proxy: the text.
        encode: the chunk's pass.
        window: that it is written into.
        positions: int64 `[A, n]`.
        embeds: `[n, D]`.
        ids: n token ids.
        extras: what else the model needs of the chunk.

    Returns:
        the attention that the chunk's tokens got, float32 `[L, H_kv, n]` on the CPU.
    """
    adapter, text = proxy.adapter, proxy.embeds
    run = proxy.observe(encode, window, positions)
    extras = extras | adapter.keys_only
    if encode.carry is None:
        visual = extras.get("visual_pos_masks")
        if visual is not None:
            extras = {**extras, "visual_pos_masks": F.pad(visual, (0, len(text)))}
        extras |= adapter.token_inputs(ids + proxy.ids)
        hooks.run(adapter, run, torch.cat([embeds, text]), **extras)
    else:
        extras |= adapter.token_inputs(ids)
        hooks.run(adapter, run, embeds, encode.carry, encode.local, **extras)
        fork = encode.carry.fork()
        local = fork.local(window.rotary, run.places)
        extras = adapter.token_inputs(proxy.ids) | adapter.keys_only
        hooks.run(adapter, run, text, fork, local, **extras)
    return torch.stack([mass.cpu() for mass in run.masses])


def proxy_of(config: ResolvedConfig, adapter: VideoModel, template: Template) -> Proxy | None:
    """Return the text that observes chunks; None where the policy observes nothing.

    Raises:
        ValueError: `focus` is too long for a prompt.
    """
    observes = make_eviction(config.eviction).observes
    if config.keep_ratio == 1 or not observes:
        return None
    prompt = (
        template.prompt("")
        if config.focus is None
        else template.fitting(config.focus, name="focus")
    )
    return Proxy(adapter, prompt, observes)
