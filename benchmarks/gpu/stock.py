"""Decode as stock transformers has it: a static cache, eager and compiled, replayed or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import torch
import transformers
from torch import Tensor

import mmkv
from benchmarks.gpu.report import Row, missing, row
from benchmarks.gpu.setup import Sizes, captured, wait
from mmkv.engine.transformers_compat import cache_argument

FRAMES = 34  # as many as an answer attends to
WARM = 3  # steps before those that are timed
BAR = 1.15  # of the fastest compiled way

Step = Callable[[], Tensor]


class Token:
    """One token behind as many tokens as an answer attends to; always the same one."""

    def __init__(self, sizes: Sizes, vlm: mmkv.VideoLM) -> None:
        self._model, self._head = vlm.adapter.language_model, vlm.adapter.lm_head
        model, device = self._model, sizes.device
        self._length = 40 if sizes.dry else int(FRAMES * vlm.tokens_per_frame(384, 384))
        slots = self._length + WARM + rounds(sizes) + 1
        self._cache = transformers.StaticCache(config=model.config, max_cache_len=slots)
        shape = (1, self._length, model.config.hidden_size)
        embeds = torch.zeros(shape, dtype=vlm.dtype, device=device)
        at = torch.arange(self._length, device=device)
        self._past = {cache_argument(model): self._cache}
        model(inputs_embeds=embeds, cache_position=at, use_cache=True, **self._past)
        self._one, self._at = embeds[:, :1].contiguous(), at[-1:] + 1
        self._mask = (torch.arange(slots, device=device) <= self._at)[None, None, None]

    def __call__(self) -> Tensor:
        out = self._model(
            inputs_embeds=self._one, cache_position=self._at, position_ids=self._at[None],
            attention_mask=self._mask, use_cache=True, **self._past,
        )  # fmt: skip
        token: Tensor = self._head(out.last_hidden_state).argmax(-1)
        return token

    def rewind(self) -> None:
        """Forget the steps taken: the cache counts them, and has room for those of one way."""
        for layer in self._cache.layers:
            counted = getattr(layer, "cumulative_length", None)
            if isinstance(counted, Tensor):
                counted.fill_(self._length)


def stock(sizes: Sizes, vlm: mmkv.VideoLM, own: Mapping[bool, float]) -> Iterator[Row]:
    """Seconds per token of each way, and of mmkv's over them.

    Args:
        own: mmkv's seconds per token, replayed (True) and eager.
    """
    found: dict[str, float] = {}
    with torch.inference_mode(False), torch.no_grad():
        token = Token(sizes, vlm)
    for name, make in _ways(sizes, token).items():
        try:
            with torch.inference_mode(False), torch.no_grad():
                token.rewind()
                found[name] = _wall(sizes, make())
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:120]
            yield missing(f"per generated token, stock {name}", f"{type(error).__name__}: {first}")
            continue
        yield row(f"per generated token, stock {name}, static cache", 1e3 * found[name], "ms")
    compiled = [taken for name, taken in found.items() if "compiled" in name]
    if compiled and True in own:
        ratio = own[True] / min(compiled)
        yield row("per generated token, mmkv / stock compiled", ratio, "x", BAR, least=False)
    if "eager" in found and False in own:
        yield row("per generated token, mmkv eager / stock eager", own[False] / found["eager"], "x")


def _ways(sizes: Sizes, token: Step) -> dict[str, Callable[[], Step]]:
    backend = "eager" if sizes.dry else "inductor"
    compiled = torch.compile(token, backend=backend, dynamic=False)
    return {
        "eager": lambda: token,
        "eager, replayed": lambda: _graph(sizes, token),
        "compiled": lambda: compiled,
        "compiled, replayed": lambda: _graph(sizes, compiled),
    }


def _graph(sizes: Sizes, step: Step) -> Step:
    """The step as a CUDA graph; itself where there are none."""
    if sizes.device.type != "cuda":
        return step
    again, token = captured(step)

    def replay() -> Tensor:
        again()
        return token

    return replay


def _wall(sizes: Sizes, step: Step) -> float:
    """Seconds of a step, with the time to launch it and to read its token."""
    for _ in range(WARM):
        step()
    wait(sizes)
    started = time.perf_counter()
    for _ in range(rounds(sizes)):
        step().item()
    return (time.perf_counter() - started) / rounds(sizes)


def rounds(sizes: Sizes) -> int:
    """Steps that are timed."""
    return 3 if sizes.dry else 30
