"""An answer token by token: each is the same step, which is replayed after the first few."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from mmkv.engine import hooks
from mmkv.engine.cuda_graph import Recorder
from mmkv.engine.decode_buffers import DecodeBuffers
from mmkv.engine.passes import Pass
from mmkv.engine.rotary import Rotary
from mmkv.models.base import VideoModel

_WARM = 2  # steps that are run first, to compile kernels and let libraries allocate workspaces


class Decodable(Pass, Protocol):
    """A pass whose prompt went through the model; per token it touches `buffers` and `outside`."""

    buffers: DecodeBuffers

    @property
    def outside(self) -> object:
        """What else it reads, which the next answer does not share; None for nothing."""

    def begin_decode(self) -> None:
        """Set in the buffers where the first generated token stands."""


class Decoding:
    """Generates with one pass.

    Args:
        adapter: the model.
        rotary: its angles.
        engine_pass: the pass.
        recorder: records a step to replay it; None: every step is run.
    """

    def __init__(
        self, adapter: VideoModel, rotary: Rotary, engine_pass: Decodable, recorder: Recorder | None
    ) -> None:
        self._adapter = adapter
        self._rotary = rotary
        self._pass = engine_pass
        self._recorder = recorder
        self._done = 0

    def step(self, token: int) -> Tensor:
        """Return logits `[V]` after one more token; the next step may overwrite them."""
        buffers = self._pass.buffers
        if not self._done:
            self._pass.begin_decode()
        buffers.make_room()
        buffers.token.fill_(token)
        outside = self._pass.outside
        if self._recorder is None or buffers.recorded_for is not outside:
            buffers.replay = buffers.recorded_for = None
        if buffers.replay is None and self._recorder is not None and self._done >= _WARM:
            buffers.replay, buffers.recorded_for = self._recorder(self._step), outside
            if buffers.replay is None:
                self._recorder = None
        logits = self._step() if buffers.replay is None else buffers.replay()
        buffers.lengths = [length + 1 for length in buffers.lengths]
        self._done += 1
        return logits

    def _step(self) -> Tensor:
        """Run one step; all that changes between steps is in the buffers' tensors."""
        adapter, buffers = self._adapter, self._pass.buffers
        buffers.tick(self._rotary)
        embeds = adapter.language_model.embed_tokens(buffers.token)
        extras = adapter.token_inputs(buffers.token)
        hidden = hooks.run(adapter, self._pass, embeds, buffers.carry, buffers.local, **extras)
        logits: Tensor = adapter.lm_head(hidden[-1])
        buffers.advance()
        return logits
