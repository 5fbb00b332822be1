"""An answer while it is generated: iterate its text, close it to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import torch

from mmkv.answer.answer import Answer, FrameRef, rank, unknown_words
from mmkv.answer.generation import Generation
from mmkv.engine.detokenizer import Detokenizer
from mmkv.engine.fair_lock import Cancelled
from mmkv.engine.sampling import Sampler, Sampling


class Reply:
    """Text as it is generated.

    Iterate over it for the pieces; a `with` block closes it.
    """

    def __init__(self, generation: Generation, sampling: Sampling, asked: float) -> None:
        """Prepare a reply; `start` runs the prompt.

        Args:
            generation: of the question; closed when the reply ends.
            sampling: how tokens are chosen.
            asked: when the question came, by `time.perf_counter`.
        """
        self._generation = generation
        self._runtime = generation.runtime
        self._as_of = generation.context.seconds
        self._hint = unknown_words(generation.prompt.unknown)
        self._sampling = sampling
        self._cancel = threading.Event()
        self._asked = asked
        self._ids: list[int] = []
        self._finish = "cancelled"
        self._answer: Answer | None = None
        self._frames: tuple[FrameRef, ...] = ()
        self._timings = {"wait": time.perf_counter() - asked}
        self._text = Detokenizer(generation.runtime.tokenizer)
        self._stepping = threading.Lock()
        self._sampler: Sampler | None = None

    def __repr__(self) -> str:
        text = self.answer.text
        state = self.answer.finish_reason if self._answer is not None else "generating"
        shown = text if len(text) <= 60 else "..." + text[-57:]
        return f"<Reply {shown!r}: {len(self._ids)} tokens, {state}>"

    def start(self) -> Reply:
        """Pass the prompt through the model; from here on, `frames` are known."""
        generation, context = self._generation, self._generation.context
        generation.prefill(self._cancel)
        self._timings.update(generation.timings)
        hits = generation.retriever.hits
        try:
            self._frames = rank(
                generation.choices, context.candidates, context.recent, hits, context.thumbnail
            )
        except BaseException:
            generation.close()
            raise
        return self

    @property
    def frames(self) -> tuple[FrameRef, ...]:
        """What the answer is given from, best match first; known before the first token."""
        return self._frames

    @property
    def answer(self) -> Answer:
        """The answer so far; complete once the iteration has ended or was closed."""
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
        """Stop generating and release the model; may be called from any thread."""
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

    def _advance(self) -> bool:
        """Generate one token; return whether more may follow."""
        try:
            if self._cancel.is_set():
                raise Cancelled
            with self._runtime.lock.hold(self._cancel), torch.inference_mode():
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
        """Take a token and compute the logits after it; if it is the last, return why instead."""
        logits = self._generation.logits
        if self._sampler is None:
            self._sampler = Sampler(self._sampling, logits.device)
        token = self._sampler(logits)
        if token in self._runtime.stop_tokens:
            return "stop"
        self._ids.append(token)
        now = time.perf_counter()
        if len(self._ids) == 1:
            self._began = now
            self._timings["first_token"] = now - self._asked
        if len(self._ids) == self._sampling.max_new_tokens:
            return "length"
        self._generation.step(token)
        self._timings["decode"] = time.perf_counter() - self._began
        return None

    def _unshown(self, whole: bool) -> str:
        if self._finish == "cancelled" and self._answer is not None:
            return ""
        return self._text.take(self._ids, whole=whole)

    def _decoded(self) -> str:
        return self._text.all(self._ids)

    def _end(self, finish: str) -> None:
        """Fix the answer, and release what it was generated from."""
        if self._answer is None:
            self._finish = finish
            self._answer = self._build()
            self._generation.close()

    def _build(self) -> Answer:
        timings = {**self._timings, "total": time.perf_counter() - self._asked}
        return Answer(
            text=self._text.shown if self._finish == "cancelled" else self._decoded(),
            token_ids=tuple(self._ids),
            finish_reason=self._finish,
            as_of=self._as_of,
            frames=self._frames,
            timings=timings,
            hint=self._hint,
            foreseen=self._generation.foreseen,
        )
