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

FRAMES = 34  # as many as an answer attends to
BAR = 1.15  # of the fastest compiled way

Step = Callable[[], Tensor]


def stock(sizes: Sizes, vlm: mmkv.VideoLM, own: Mapping[bool, float]) -> Iterator[Row]:
    """Seconds per token of each way, and of mmkv's over them.

    Args:
        own: mmkv's seconds per token, replayed (True) and eager.
    """
    found: dict[str, float] = {}
    for name, make in _ways(sizes, vlm).items():
        try:
            with torch.inference_mode(False), torch.no_grad():
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


def _ways(sizes: Sizes, vlm: mmkv.VideoLM) -> dict[str, Callable[[], Step]]:
    steps: dict[str, Step] = {}

    def eager() -> Step:
        steps["eager"] = _step(sizes, vlm)
        return steps["eager"]

    def compiled() -> Step:
        backend = "eager" if sizes.dry else "inductor"
        steps["compiled"] = torch.compile(steps["eager"], backend=backend, dynamic=False)
        return steps["compiled"]

    return {
        "eager": eager,
        "eager, replayed": lambda: _graph(sizes, steps["eager"]),
        "compiled": compiled,
        "compiled, replayed": lambda: _graph(sizes, steps["compiled"]),
    }


def _step(sizes: Sizes, vlm: mmkv.VideoLM) -> Step:
    """One token behind as many tokens as an answer attends to; always the same one."""
    model, head = vlm.adapter.language_model, vlm.adapter.lm_head
    length = 40 if sizes.dry else int(FRAMES * vlm.tokens_per_frame(384, 384))
    cache = transformers.StaticCache(config=model.config, max_cache_len=length + 64)
    shape = (1, length, model.config.hidden_size)
    embeds = torch.zeros(shape, dtype=vlm.dtype, device=sizes.device)
    at = torch.arange(length, device=sizes.device)
    model(inputs_embeds=embeds, past_key_values=cache, cache_position=at, use_cache=True)
    one, last = embeds[:, :1].contiguous(), at[-1:] + 1
    mask = (torch.arange(length + 64, device=sizes.device) <= last)[None, None, None]

    def step() -> Tensor:
        out = model(
            inputs_embeds=one, past_key_values=cache, cache_position=last,
            position_ids=last[None], attention_mask=mask, use_cache=True,
        )  # fmt: skip
        token: Tensor = head(out.last_hidden_state).argmax(-1)
        return token

    return step


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
    for _ in range(3):
        step()
    wait(sizes)
    rounds = 3 if sizes.dry else 30
    started = time.perf_counter()
    for _ in range(rounds):
        step().item()
    return (time.perf_counter() - started) / rounds
