"""A whole model of the 7B shape with random weights: encoding, asking, generating."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers

import mmkv
from benchmarks.gpu.report import Row, Step, check, row
from benchmarks.gpu.setup import Sizes, wait
from benchmarks.gpu.stock import stock
from mmkv.engine.cuda_graph import CudaGraphs
from mmkv.models.tiny import CHECKPOINT

FPS = 0.5
HOUR = 3600.0
TOKENS = 48  # generated
ENCODE_SECONDS = 90.0  # at most, to have an hour of video behind
LATER_SECONDS = 140.0  # left for what comes after it


def steps(sizes: Sizes, left: Callable[[], float]) -> list[Step]:
    """What is measured, by name; one stream serves all, and `left` is the seconds available."""
    held: dict[str, Any] = {}
    return [
        ("7B encode", 60.0, lambda: encode(sizes, held, left)),
        ("7B first token", 20.0, lambda: first_token(sizes, held)),
        ("7B everything resident", 20.0, lambda: resident(sizes, held)),
        ("7B stock decode", 40.0, lambda: against_stock(sizes, held)),
    ]


def need(held: dict[str, Any], name: str) -> Any:
    """What an earlier step left.

    Raises:
        LookupError: that step failed, or was left out.
    """
    if name not in held:
        raise LookupError("needs '7B encode', which did not get through")
    return held[name]


def random_model(sizes: Sizes) -> mmkv.VideoLM:
    """LLaVA-OneVision as large as its 7B checkpoint, 196 tokens a frame; a toy where it is dry."""
    config = transformers.AutoConfig.from_pretrained(CHECKPOINT)
    config.text_config.vocab_size *= 2  # more than the tokenizer has, as below
    settings = json.loads((CHECKPOINT / "preprocessor_config.json").read_text())
    if not sizes.dry:
        sizes_text = {
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.kv_heads,
            "max_position_embeddings": 32768, "vocab_size": 152064, "tie_word_embeddings": False,
            "layer_types": ["full_attention"] * sizes.layers,
        }  # fmt: skip
        sizes_vision = {
            "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26,
            "num_attention_heads": 16, "patch_size": 14, "image_size": 384,
        }  # fmt: skip
        for part, values in (
            (config.text_config, sizes_text),
            (config.vision_config, sizes_vision),
        ):
            for name, value in values.items():
                setattr(part, name, value)
        config.tie_word_embeddings = False
        settings["size"] = {"height": 384, "width": 384}
    kind = transformers.LlavaOnevisionForConditionalGeneration
    dtype = torch.float32 if sizes.dry else torch.bfloat16
    torch.set_default_dtype(dtype)
    try:
        with torch.device(sizes.device), torch.inference_mode(False):
            model = kind(config)
    finally:
        torch.set_default_dtype(torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    return mmkv.load(model=model, tokenizer=tokenizer, preprocess=settings)


def encode(sizes: Sizes, held: dict[str, Any], left: Callable[[], float]) -> Iterator[Row]:
    vlm = random_model(sizes)
    held["vlm"] = vlm
    vlm.stop_tokens = frozenset()  # answers of random weights end nowhere in particular
    stream = vlm.stream(_config(sizes, 4 if sizes.dry else 32))
    held["stream"] = stream
    side, frames = _frames(sizes)
    count = 0

    def feed() -> None:
        nonlocal count
        stream.feed(frames, [(count + i) / FPS for i in range(8)])
        count += 8

    while count < (8 if sizes.dry else 80):  # the window fills, everything is compiled
        feed()
    wait(sizes)
    started, before = time.perf_counter(), count
    until = started + max(5.0, min(ENCODE_SECONDS, left() - LATER_SECONDS))
    wanted = 16 if sizes.dry else int(HOUR * FPS)
    while count < wanted and time.perf_counter() < until:
        feed()
    wait(sizes)
    taken = time.perf_counter() - started
    held["hours"] = count / FPS / HOUR
    yield row("encode, random 7B, window full", (count - before) / taken, "frames/s")
    yield row("tokens per frame", vlm.tokens_per_frame(side, side), "")
    for stage, spent in stream.stats().timings.items():
        yield row(f"encode, stage {stage}", 1e3 * spent / count, "ms/frame")


def first_token(sizes: Sizes, held: dict[str, Any]) -> Iterator[Row]:
    vlm, stream, hours = need(held, "vlm"), need(held, "stream"), need(held, "hours")
    each: dict[bool, float] = {}
    yield from _generate(sizes, vlm, stream, f"{hours:.2f} h behind", each)
    held["per_token"] = each


def resident(sizes: Sizes, held: dict[str, Any]) -> Iterator[Row]:
    """The same where every answer attends to the whole packed past."""
    vlm = need(held, "vlm")
    frames, count = _frames(sizes)[1], 16 if sizes.dry else 160
    with vlm.stream(_config(sizes, "all")) as stream:
        for at in range(0, count, 8):
            stream.feed(frames, [(at + i) / FPS for i in range(8)])
        yield from _generate(sizes, vlm, stream, f"{count} frames resident", {})


def _generate(
    sizes: Sizes, vlm: mmkv.VideoLM, stream: mmkv.Stream, what: str, each: dict[bool, float]
) -> Iterator[Row]:
    """Seconds per token into `each`, with CUDA graphs and without; the tokens have to agree."""
    found: dict[bool, tuple[int, ...]] = {}
    tokens = 6 if sizes.dry else TOKENS
    if sizes.dry:
        vlm.buffers.recorder = Again()
    for graphs in (False, True):
        vlm.cuda_graphs = graphs
        if not sizes.dry:
            stream.ask("what is there?", max_new_tokens=tokens)  # compiles and records
        answer = stream.ask("what is there?", max_new_tokens=tokens)
        found[graphs], each[graphs] = answer.token_ids, answer.timings["decode"] / (tokens - 1)
        how = "replayed" if graphs else "eager"
        if not graphs:
            first = answer.timings["first_token"]
            yield row(f"first token, {what}", 1e3 * first, "ms")
        yield row(f"per generated token, {what}, {how}", 1e3 * each[graphs], "ms")
    unequal = sum(a != b for a, b in zip(found[True], found[False], strict=True))
    yield check(f"tokens replayed and eager, {what}", unequal, 0, "tokens differ")
    recorder = vlm.buffers.recorder
    works = isinstance(recorder, CudaGraphs | Again) and recorder.works
    yield check(f"steps are recorded, {what}", float(not works), 0, "failures")


class Again:
    """Stands in for a CUDA graph where there is none: replaying is doing the step again."""

    def __init__(self) -> None:
        self.works = False

    def __call__(self, step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        self.works = True
        return step


def against_stock(sizes: Sizes, held: dict[str, Any]) -> Iterator[Row]:
    """The same language model's decode with transformers' static cache."""
    vlm, stream = need(held, "vlm"), held.pop("stream", None)
    if stream is not None:
        stream.close()
    yield from stock(sizes, vlm, held.get("per_token", {}))


def _config(sizes: Sizes, retrieve: Any) -> mmkv.CacheConfig:
    window = 4 if sizes.dry else 64
    return mmkv.CacheConfig(
        window_frames=window, recent_frames=2, retrieve_frames=retrieve, key_bits=1.5, value_bits=2
    )


def _frames(sizes: Sizes) -> tuple[int, torch.Tensor]:
    side = 64 if sizes.dry else 384
    return side, torch.randint(0, 256, (8, side, side, 3), dtype=torch.uint8)
