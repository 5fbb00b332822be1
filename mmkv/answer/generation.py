"""One question through the model: its prompt once, then one generated token a step."""

from __future__ import annotations

import threading
import time

import numpy as np
import torch
from torch import Tensor

from mmkv.answer.context import Context
from mmkv.answer.past import Past
from mmkv.answer.retrieval_pass import RetrievalPass, after_newest
from mmkv.answer.retriever import LayerChoice, Retriever
from mmkv.engine import hooks
from mmkv.engine.decode_step import Decoding
from mmkv.engine.runtime import ModelRuntime
from mmkv.models.base import VideoModel
from mmkv.models.prompt import Prompt


class Generation:
    """What a prompt retrieves, and the logits after it. Making one runs nothing; `close` ends it.

    Args:
        runtime: the model.
        context: what may be seen.
        prompt: the question as tokens.
        retriever: chooses blocks of the context, layer by layer.
        past: how the chosen ones are reached.
        room: most tokens that will be generated; 0: nothing will, and `logits` are not computed.

    Attributes:
        logits: `[V]`, of the next token; known after `prefill`, new after each `step`.
        choices: what each layer chose; this and the others are known after `prefill`.
        foreseen: see `Answer`.
        timings: seconds of the prompt's pass, and of its stages.
    """

    def __init__(
        self,
        runtime: ModelRuntime,
        context: Context,
        prompt: Prompt,
        retriever: Retriever,
        past: Past,
        room: int = 0,
    ) -> None:
        self.runtime = runtime
        self.context = context
        self.prompt = prompt
        self.retriever = retriever
        self.choices: list[LayerChoice] = []
        self.foreseen: float | None = None
        self.timings: dict[str, float] = {}
        self._past = past
        self._room = room
        self._hook: hooks.AttentionHook | None = None

    def prefill(self, cancel: threading.Event | None = None) -> None:
        """Pass the prompt through the model; every layer chooses and reads on the way.

        Raises:
            Cancelled: `cancel` was set before the model was free.
        """
        runtime = self.runtime
        adapter = runtime.adapter
        self._hook = hooks.AttentionHook(adapter.language_model)
        try:
            embeds, words = prompt_input(adapter, self.prompt)
            lead = len(embeds) - len(self.prompt.ids)
            extras = adapter.token_inputs([adapter.filler] * lead + list(self.prompt.ids))
            buffers = runtime.buffers.acquire()
            self.engine_pass = RetrievalPass(
                self.context,
                runtime.rotary,
                words,
                self.retriever,
                self._past,
                self._room,
                buffers,
            )
            with runtime.lock.hold(cancel), torch.inference_mode():
                started = time.perf_counter()
                buffers.take(self.context.carry)
                local = None
                if buffers.carry is not None:
                    places = after_newest(self.context)[:, None] + np.arange(len(embeds))
                    local = buffers.carry.local(runtime.rotary, places)
                hidden = hooks.run(
                    adapter, self.engine_pass, embeds, buffers.carry, local, **extras
                )
                if self._room:
                    self.logits: Tensor = adapter.lm_head(hidden[-1])
                spent = time.perf_counter() - started
        except BaseException:
            self._hook.release()
            self._hook = None
            raise
        recorder = runtime.buffers.recorder if runtime.cuda_graphs else None
        self._decoding = Decoding(adapter, runtime.rotary, self.engine_pass, recorder)
        self.choices, self.foreseen = self.engine_pass.choices, self.engine_pass.foreseen
        self.timings = {"prefill": spent, **self.engine_pass.timings}

    def step(self, token: int) -> Tensor:
        """Return logits `[V]` after one more token; the next step may overwrite them."""
        self.logits = self._decoding.step(token)
        return self.logits

    def close(self) -> None:
        """Give the buffers back, and release the model and what was seen."""
        if self._hook is None:
            return
        self.runtime.buffers.release(self.engine_pass.buffers)
        del self.context, self.retriever, self.engine_pass, self._past, self._decoding
        self._hook.release()
        self._hook = None


def prompt_input(adapter: VideoModel, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Embed what follows the last frame.

    Returns:
        input embeddings `[n, D]`; which tokens are the question's words, bool `[n]`.
    """
    lead, embeds = adapter.prompt_lead(), adapter.embed_text(prompt.ids)
    words = torch.tensor(prompt.words)
    if lead is not None:
        embeds = torch.cat([lead, embeds])
        words = torch.cat([torch.zeros(len(lead), dtype=torch.bool), words])
    return embeds, words if words.any() else torch.ones_like(words)
