"""Slots of one model: answers take one each, and leave it to the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from weakref import WeakSet

import torch

from mmkv.decode.graph import Recorder, recorder_for
from mmkv.decode.slot import Slot
from mmkv.decode.weights import places_of
from mmkv.models.base import VideoModel

_IDLE = 1  # slots kept while no answer has them


class Slots:
    """Hands out slots, each to one answer at a time.

    Where steps are recorded, a slot that is given back is kept for the next answer, with its
    recording, unless the model's weights were replaced or moved meanwhile; elsewhere its memory
    goes.

    Args:
        devices: gives those of the layers, as they are now.
    """

    def __init__(self, adapter: VideoModel, devices: Callable[[], Sequence[torch.device]]) -> None:
        self._adapter = adapter
        self._where = devices
        self._idle: list[Slot] = []
        self._all: WeakSet[Slot] = WeakSet()
        self._lock = threading.Lock()
        self._devices = list(devices())
        self.recorder: Recorder | None = self._recorder()

    @property
    def nbytes(self) -> int:
        """Bytes of all slots, those of answers under way too."""
        with self._lock:
            return sum(slot.nbytes for slot in self._all)

    def take(self) -> Slot:
        """A slot that is nobody else's."""
        adapter = self._adapter
        with self._lock:
            devices = list(self._where())
            if devices != self._devices:
                self._devices = devices
                self.recorder = self._recorder()
            weights = None
            if self.recorder is not None:
                weights = places_of(adapter.language_model, adapter.lm_head)
            self._idle = [slot for slot in self._idle if slot.weights == weights]
            if self._idle:
                return self._idle.pop()
            slot = Slot(adapter.shape, adapter.axes, devices, adapter.dtype, adapter.device)
            slot.weights = weights
            self._all.add(slot)
            return slot

    def give(self, slot: Slot) -> None:
        """Give a slot back; whoever had it does not use it any more."""
        if self.recorder is None:
            return
        slot.clear()
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(slot)

    def _recorder(self) -> Recorder | None:
        ends = {self._adapter.device, *(p.device for p in self._adapter.lm_head.parameters())}
        return recorder_for({*self._devices, *ends})
