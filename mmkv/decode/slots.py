"""Slots of one model: answers take one each, and leave it to the next."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch

from mmkv.decode.graph import Recorder, recorder_for
from mmkv.decode.slot import Slot
from mmkv.models.base import VideoModel

_IDLE = 1  # slots kept while no answer has them


class Slots:
    """Hands out slots, each to one answer at a time.

    Where steps are recorded, a slot that is given back is kept for the next answer, with its
    recording; elsewhere its memory goes.

    Args:
        devices: of the layers.
    """

    def __init__(self, adapter: VideoModel, devices: Sequence[torch.device]) -> None:
        self._adapter = adapter
        self._devices = list(devices)
        self._idle: list[Slot] = []
        self._lock = threading.Lock()
        ends = {adapter.device, *(p.device for p in adapter.lm_head.parameters())}
        self.recorder: Recorder | None = recorder_for({*devices, *ends})

    @property
    def nbytes(self) -> int:
        """Bytes of slots that no answer has."""
        with self._lock:
            return sum(slot.nbytes for slot in self._idle)

    def take(self) -> Slot:
        """A slot that is nobody else's."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        adapter = self._adapter
        return Slot(adapter.shape, adapter.axes, self._devices, adapter.dtype, adapter.device)

    def give(self, slot: Slot) -> None:
        """Give a slot back; whoever had it does not use it any more."""
        if self.recorder is None:
            return
        slot.clear()
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(slot)
