"""An answer while it is generated: iterate its text, close it to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmkv import seam
from mmkv.answer import Answer, FrameRef, rank
from mmkv.answer_pass import AnswerPass
from mmkv.context import Context
from mmkv.models.prompt import Prompt
from mmkv.sampling import Sampler, Sampling
from mmkv.turns import Cancelled

if TYPE_CHECKING:
    from mmkv.video_lm import VideoLM

log = logging.getLogger("mmkv")


class Reply:
    """Text as it is generated.

    frames: what the answer is given from, known before the first token.
    answer: the whole answer, once the iteration has ended or was closed.
    """

    def __init__(
        self,
        vlm: VideoLM,
        context: Context,
        prompt: Prompt,
        sampling: Sampling,
        retrieve: int,
        asked: float,
    ) -> None:
        self._vlm = vlm
        self._context = context
        self._prompt = prompt
        self._sampling = sampling
        self._cancel = threading.Event()
        self._asked = asked
        self._ids: list[int] = []
        self._finish = "cancelled"
        self._answer: Answer | None = None
        self._timings = {"wait": time.perf_counter() - asked}
        seam.attach(vlm.adapter.language_model)
        self._attached = True
        try:
            self._prefill(retrieve)
        except BaseException:
            self._release()
            raise
        self._text = self._generate()

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
        return next(self._text)

    def close(self) -> None:
        """Stop generating; may be called from any thread."""
        self._cancel.set()

    def finish(self) -> Answer:
        """Generate to the end and return the answer."""
        for _ in self:
            pass
        return self.answer

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        for _ in self._text:
            pass

    def __del__(self) -> None:
        self._release()

    def _prefill(self, retrieve: int) -> None:
        adapter, context = self._vlm.adapter, self._context
        lead = adapter.prompt_lead()
        embeds = adapter.embed_text(self._prompt.ids)
        words = torch.tensor(self._prompt.words)
        if lead is not None:
            embeds = torch.cat([lead, embeds])
            words = torch.cat([torch.zeros(len(lead), dtype=torch.bool), words])
        if not words.any():
            words = torch.ones_like(words)
        room = self._sampling.max_new_tokens
        self._pass = AnswerPass(context, self._vlm.rotary, words, retrieve, room)
        with self._vlm.turns.turn(self._cancel), torch.inference_mode():
            started = time.perf_counter()
            hidden = seam.run(adapter.language_model, self._pass, embeds)
            self._logits: Tensor = adapter.lm_head(hidden[-1])
            self._sampler = Sampler(self._sampling, self._logits.device)
            self._timings["prefill"] = time.perf_counter() - started
        self._timings.update(self._pass.timings)
        self._frames = rank(self._pass.choices, context.candidates, context.recent, retrieve)

    def _generate(self) -> Iterator[str]:
        shown = ""
        try:
            for text in self._decode():
                # a character may need several tokens: wait for the whole of it
                if text.endswith("�"):
                    continue
                if len(text) > len(shown):
                    piece, shown = text[len(shown) :], text
                    yield piece
            whole = self._decoded()
            if len(whole) > len(shown):
                yield whole[len(shown) :]
        except Cancelled:
            self._finish = "cancelled"
        finally:
            self._answer = self._build()
            self._release()

    def _decode(self) -> Iterator[str]:
        adapter, sampling = self._vlm.adapter, self._sampling
        started = time.perf_counter()
        while True:
            if self._cancel.is_set():
                raise Cancelled
            with self._vlm.turns.turn(self._cancel), torch.inference_mode():
                token = self._sampler(self._logits)
                if token in self._vlm.stop_tokens:
                    self._finish = "stop"
                    break
                self._ids.append(token)
                if len(self._ids) == 1:
                    self._timings["first_token"] = time.perf_counter() - self._asked
                if len(self._ids) == sampling.max_new_tokens:
                    self._finish = "length"
                    break
                hidden = seam.run(adapter.language_model, self._pass, adapter.embed_text([token]))
                self._logits = adapter.lm_head(hidden[-1])
                self._timings["decode"] = time.perf_counter() - started
            yield self._decoded()

    def _decoded(self) -> str:
        text = self._vlm.tokenizer.decode(self._ids, skip_special_tokens=True)
        return str(text)

    def _build(self) -> Answer:
        timings = {**self._timings, "total": time.perf_counter() - self._asked}
        return Answer(
            text=self._decoded().strip(),
            token_ids=tuple(self._ids),
            finish_reason=self._finish,
            as_of=self._context.seconds,
            frames=self._frames,
            timings=timings,
            hint=_hint(self._prompt.unknown),
        )

    def _release(self) -> None:
        if getattr(self, "_attached", False):
            self._attached = False
            seam.detach(self._vlm.adapter.language_model)


def _hint(unknown: Sequence[str]) -> str | None:
    if not unknown:
        return None
    words = ", ".join(repr(word) for word in dict.fromkeys(unknown))
    return f"this model does not know the words {words}; the answer may be meaningless"
