"""Summaries as bytes in a store: those of the index, as they are."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkv.archive.blocks import SUMMARY_KINDS
from mmkv.models.layers import Shape


def facts(centre: Sequence[Tensor]) -> dict[str, Any]:
    """What reading summaries needs, as JSON.

    Args:
        centre: per layer float32 `[H_kv, D]`; empty if there is none yet.
    """
    coded = None
    if centre:
        raw = torch.stack([layer.cpu() for layer in centre]).numpy().astype("<f4").tobytes()
        coded = base64.b64encode(raw).decode()
    return {"kind": SUMMARY_KINDS[0], "centre": coded}


def centre_of(facts: Mapping[str, Any], shape: Shape) -> list[Tensor]:
    """The centre that a store names.

    Raises:
        ValueError: its summaries are of an unknown kind.
    """
    if facts["kind"] not in SUMMARY_KINDS:
        raise ValueError(
            f"the store's summaries are of a kind {facts['kind']!r} that this version does not "
            f"know; it knows {', '.join(SUMMARY_KINDS)}"
        )
    if facts["centre"] is None:
        return []
    values = np.frombuffer(bytearray(base64.b64decode(facts["centre"])), dtype="<f4")
    whole = torch.from_numpy(values.astype(np.float32))
    return list(whole.view(shape.layers, shape.kv_heads, shape.head_dim))


def to_bytes(summaries: Tensor) -> bytes:
    """Bytes of blocks' summaries in host memory, float16 `[n, L, m, H_kv, D]`."""
    return summaries.numpy().astype("<f2").tobytes()


def from_bytes(stored: bytes, count: int, shape: Shape) -> list[Tensor]:
    """Summaries of `count` blocks, per layer, float16."""
    values = np.frombuffer(bytearray(stored), dtype="<f2").astype(np.float16)
    stacked = torch.from_numpy(values).view(count, shape.layers, -1, shape.kv_heads, shape.head_dim)
    return list(stacked.unbind(dim=1))
