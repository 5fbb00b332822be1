"""Generating an answer's tokens: fixed memory, one step, and its replay as a CUDA graph."""

from mmkv.decode.decoding import Decoding
from mmkv.decode.slot import Slot
from mmkv.decode.slots import Slots

__all__ = ["Decoding", "Slot", "Slots"]
