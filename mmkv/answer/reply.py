"""An answer while it is generated: iterate its text, close it to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmkv.answer.answer import Answer, FrameRef, rank, unknown_words
from mmkv.answer.context import Context
from mmkv.answer.resident_pass import ResidentPass
from mmkv.answer.resident_past import FarPast
from mmkv.answer.retrieval_pass import RetrievalPass, prompt_input
from mmkv.answer.retriever import Retriever
from mmkv.engine import hooks
from mmkv.engine.decode_step import Decoding
from mmkv.engine.detokenizer import Decoder
from mmkv.engine.fair_lock import Cancelled
from mmkv.engine.sampling import Sampler, Sampling
from mmkv.models.prompt import Prompt

if TYPE_CHECKING:
    from mmkv.engine.runtime import ModelRuntime

log = logging.getLogger("mmkv")


class Reply:
    """Text as it is generated.

    frames: what the answer is given from, known before the first token.
    answer: the whole answer, once the iteration has ended or was closed.
    """

    def __init__(
        self,
        vlm: ModelRuntime,
        context: Context,
        prompt: Prompt,
        sampling: Sampling,
        retriever: Retriever,
        asked: float,
        far: FarPast | None = None,
        keep: float = 1.0,
    ) -> None:
        self._vlm = vlm
        self._context = context
        self._as_of = context.seconds
        self._prompt = prompt
        self._sampling = sampling
        self._cancel = threading.Event()
        self._asked = asked
        self._ids: list[int] = []
        self._finish = "cancelled"
        self._answer: Answer | None = None
        self._timings = {"wait": time.perf_counter() - asked}
        self._text = Decoder(vlm.tokenizer)
        self._stepping = threading.Lock()
        self._use = hooks.Use(vlm.adapter.language_model)
        try:
            self._prefill(retriever, far, keep)
        except BaseException:
            self._use.release()
            raise

    def __repr__(self) -> str:
        text = self.answer.text
        state = self.answer.finish_reason if self._answer is not None else "generating"
        shown = text if len(text) <= 60 else "..." + text[-57:]
        return f"<Reply {shown!r}: {len(self._ids)} tokens, {state}>"

    @property
    def frames(self) -> tuple[FrameRef, ...]:
        """What the answer is given from, best match first."""
        return self._frames

    @property
    def answer(self) -> Answer:
        """The answer so far; whole once the iteration has ended."""
        if self._answer is not None:
            return self._answer
        return self._build()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            with self._stepping:
                more = self._answer is None and self._advance()
                piece = self._unshown(whole=not more)
            if self._cancel.is_set():
                self.close()  # another thread asked for it during the step
            if piece:
                return piece
            if not more:
                raise StopIteration

    def close(self) -> None:
        """Stop generating and let the model go; may be called from any thread."""
        self._cancel.set()
        if self._stepping.acquire(blocking=False):  # else the step under way ends the answer
            try:
                self._end("cancelled")
            finally:
                self._stepping.release()

    def finish(self) -> Answer:
        """Generate to the end and return the answer."""
        for _ in self:
            pass
        return self.answer

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _prefill(self, retriever: Retriever, far: FarPast | None, keep: float) -> None:
        adapter, context = self._vlm.adapter, self._context
        embeds, words = prompt_input(adapter, self._prompt)
        room = self._sampling.max_new_tokens
        vlm = self._vlm
        settings = (context, vlm.rotary, words, retriever, room, vlm.slots.take())
        self._pass = RetrievalPass(*settings, keep) if far is None else ResidentPass(*settings, far)
        recorder = vlm.slots.recorder if vlm.cuda_graphs else None
        self._decoding = Decoding(adapter, vlm.rotary, self._pass, recorder)
        with self._vlm.turns.turn(self._cancel), torch.inference_mode():
            started = time.perf_counter()
            hidden = hooks.run(adapter.language_model, self._pass, embeds)
            self._logits: Tensor = adapter.lm_head(hidden[-1])
            self._sampler = Sampler(self._sampling, self._logits.device)
            self._timings["prefill"] = time.perf_counter() - started
        self._timings.update(self._pass.timings)
        self._foreseen = self._pass.foreseen
        self._frames = rank(
            self._pass.choices,
            context.candidates,
            context.recent,
            retriever.hits,
            context.thumbnail,
        )

    def _advance(self) -> bool:
        """Generate one token; whether more may follow."""
        try:
            if self._cancel.is_set():
                raise Cancelled
            with self._vlm.turns.turn(self._cancel), torch.inference_mode():
                finish = self._token()
        except BaseException as error:
            self._end("cancelled")
            if isinstance(error, Cancelled):
                return False
            raise
        if finish is not None:
            self._end(finish)
        return finish is None

    def _token(self) -> str | None:
        """One token from the logits, and the logits after it, unless it is the last: then why."""
        token = self._sampler(self._logits)
        if token in self._vlm.stop_tokens:
            return "stop"
        self._ids.append(token)
        now = time.perf_counter()
        if len(self._ids) == 1:
            self._began = now
            self._timings["first_token"] = now - self._asked
        if len(self._ids) == self._sampling.max_new_tokens:
            return "length"
        self._logits = self._decoding.step(token)
        self._timings["decode"] = time.perf_counter() - self._began
        return None

    def _unshown(self, whole: bool) -> str:
        if self._finish == "cancelled" and self._answer is not None:
            return ""
        return self._text.take(self._ids, whole=whole)

    def _decoded(self) -> str:
        return self._text.all(self._ids)

    def _end(self, finish: str) -> None:
        """Fix the answer; what it was generated from is let go."""
        if self._answer is None:
            self._finish = finish
            self._answer = self._build()
            self._vlm.slots.give(self._pass.slot)
            del self._context, self._pass, self._decoding
            self._use.release()

    def _build(self) -> Answer:
        timings = {**self._timings, "total": time.perf_counter() - self._asked}
        return Answer(
            text=self._text.shown if self._finish == "cancelled" else self._decoded(),
            token_ids=tuple(self._ids),
            finish_reason=self._finish,
            as_of=self._as_of,
            frames=self._frames,
            timings=timings,
            hint=unknown_words(self._prompt.unknown),
            foreseen=self._foreseen,
        )
