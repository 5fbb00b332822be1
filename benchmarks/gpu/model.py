"""A whole model of the 7B shape with random weights: encoding, asking, generating."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import torch
import transformers

import mmkv
from benchmarks.gpu.correctness import check
from benchmarks.gpu.report import Row, Step, row
from benchmarks.gpu.setup import Sizes
from mmkv.decode.graph import CudaGraphs
from mmkv.models.tiny import CHECKPOINT

FPS = 0.5
HOUR = 3600.0
TOKENS = 48  # generated
ENCODE_SECONDS = 90.0  # at most, to have an hour of video behind


def steps(sizes: Sizes) -> list[Step]:
    """What is measured, by name; one stream serves all."""
    held: dict[str, Any] = {}
    return [
        ("7B encode", 150.0, lambda: encode(sizes, held)),
        ("7B first token", 30.0, lambda: first_token(held)),
        ("7B everything resident", 30.0, lambda: resident(sizes, held)),
        ("7B stock decode", 80.0, lambda: stock(sizes, held)),
    ]


def random_model(sizes: Sizes) -> mmkv.VideoLM:
    """LLaVA-OneVision as large as its 7B checkpoint, 196 tokens a frame; a toy where it is dry."""
    config = transformers.AutoConfig.from_pretrained(CHECKPOINT)
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


def encode(sizes: Sizes, held: dict[str, Any]) -> Iterator[Row]:
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
    started, before = time.perf_counter(), count
    until = started + (1.0 if sizes.dry else ENCODE_SECONDS)
    wanted = 24 if sizes.dry else int(HOUR * FPS)
    while count < wanted and time.perf_counter() < until:
        feed()
    _wait(sizes)
    taken = time.perf_counter() - started
    held["hours"] = count / FPS / HOUR
    yield row("encode, random 7B, window full", (count - before) / taken, "frames/s")
    yield row("tokens per frame", vlm.tokens_per_frame(side, side), "")
    for stage, spent in stream.stats().timings.items():
        yield row(f"encode, stage {stage}", 1e3 * spent / count, "ms/frame")


def first_token(held: dict[str, Any]) -> Iterator[Row]:
    vlm, stream, hours = held["vlm"], held["stream"], held["hours"]
    found: dict[bool, tuple[tuple[int, ...], float]] = {}
    yield from _generate(vlm, stream, f"{hours:.2f} h behind", found)
    held["per_token"], held["eager_token"] = found[True][1], found[False][1]


def resident(sizes: Sizes, held: dict[str, Any]) -> Iterator[Row]:
    """The same where every answer attends to the whole packed past."""
    frames, count = _frames(sizes)[1], 16 if sizes.dry else 160
    with held["vlm"].stream(_config(sizes, "all")) as stream:
        for at in range(0, count, 8):
            stream.feed(frames, [(at + i) / FPS for i in range(8)])
        yield from _generate(held["vlm"], stream, f"{count} frames resident", {})


def _generate(
    vlm: mmkv.VideoLM,
    stream: mmkv.Stream,
    what: str,
    found: dict[bool, tuple[tuple[int, ...], float]],
) -> Iterator[Row]:
    """Tokens and seconds per token, with CUDA graphs and without; the tokens have to agree."""
    for graphs in (False, True):
        vlm.cuda_graphs = graphs
        stream.ask("what is there?", max_new_tokens=TOKENS)  # compiles and records
        answer = stream.ask("what is there?", max_new_tokens=TOKENS)
        each = answer.timings["decode"] / (TOKENS - 1)
        found[graphs] = (answer.token_ids, each)
        how = "replayed" if graphs else "eager"
        if not graphs:
            first = answer.timings["first_token"]
            yield row(f"first token, {what}", 1e3 * first, "ms")
        yield row(f"per generated token, {what}, {how}", 1e3 * each, "ms")
    unequal = sum(a != b for a, b in zip(found[True][0], found[False][0], strict=True))
    yield check(f"tokens replayed and eager, {what}", unequal, 0, "tokens differ")
    recorder = vlm.slots.recorder
    if vlm.device.type == "cuda":
        failed = float(not (isinstance(recorder, CudaGraphs) and recorder.works))
        yield check(f"steps are recorded, {what}", failed, 0, "failures")


def _config(sizes: Sizes, retrieve: Any) -> mmkv.CacheConfig:
    window = 4 if sizes.dry else 64
    return mmkv.CacheConfig(
        window_frames=window, recent_frames=2, retrieve_frames=retrieve, key_bits=1.5, value_bits=2
    )


def _frames(sizes: Sizes) -> tuple[int, torch.Tensor]:
    side = 64 if sizes.dry else 384
    return side, torch.randint(0, 256, (8, side, side, 3), dtype=torch.uint8)


def stock(sizes: Sizes, held: dict[str, Any]) -> Iterator[Row]:
    """The same language model's decode with transformers' static cache."""
    vlm = held["vlm"]
    held.pop("stream").close()
    model, head = vlm.adapter.language_model, vlm.adapter.lm_head
    length = int(34 * vlm.tokens_per_frame(384, 384)) if not sizes.dry else 40
    cache = transformers.StaticCache(config=model.config, max_cache_len=length + 64)
    width = model.config.hidden_size
    embeds = torch.zeros(1, length, width, dtype=vlm.dtype, device=sizes.device)
    at = torch.arange(length, device=sizes.device)
    model(inputs_embeds=embeds, past_key_values=cache, cache_position=at, use_cache=True)
    one, last = embeds[:, :1].contiguous(), at[-1:] + 1
    everything = torch.arange(length + 64, device=sizes.device)
    mask = (everything <= last)[None, None, None]

    def step() -> torch.Tensor:
        out = model(
            inputs_embeds=one, past_key_values=cache, cache_position=last,
            position_ids=last[None], attention_mask=mask, use_cache=True,
        )  # fmt: skip
        return head(out.last_hidden_state).argmax(-1)

    found = {"eager": _wall(sizes, step)}
    yield row("per generated token, stock eager, static cache", 1e3 * found["eager"], "ms")
    if not sizes.dry:
        found["compiled"] = _wall(sizes, torch.compile(step, mode="reduce-overhead"))
        yield row("per generated token, stock compiled", 1e3 * found["compiled"], "ms")
        ratio = held["per_token"] / found["compiled"]
        yield row("per generated token, mmkv / stock compiled", ratio, "x", 1.15, least=False)
    ratio = held["eager_token"] / found["eager"]
    yield row("per generated token, mmkv eager / stock eager", ratio, "x")


def _wall(sizes: Sizes, step: Any) -> float:
    """Seconds of a step, the time to launch it included."""
    for _ in range(3):
        step()
    _wait(sizes)
    rounds = 3 if sizes.dry else 30
    started = time.perf_counter()
    for _ in range(rounds):
        step()
    _wait(sizes)
    return (time.perf_counter() - started) / rounds


def _wait(sizes: Sizes) -> None:
    if sizes.device.type == "cuda":
        torch.cuda.synchronize()
