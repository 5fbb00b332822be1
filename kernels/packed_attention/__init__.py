"""Attention of a few queries over packed history, to be joined with other attention."""

from mmkv.kernels.packed_attention.naive import (
    PackedHistory,
    join,
    packed_attention,
    plain_attention,
    resident_keys,
    resident_values,
    slot_bits,
)

__all__ = [
    "PackedHistory",
    "join",
    "packed_attention",
    "plain_attention",
    "resident_keys",
    "resident_values",
    "slot_bits",
]
