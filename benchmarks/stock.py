"""Compared with what one would do in stock transformers: same process, model and questions.

A question comes every `every` frames. Re-encode: `generate` over the whole clip so far for each
question. Grow: a `DynamicCache` that keeps every frame; each question runs on it and is then
cropped off. Answers have a fixed number of tokens, so that all three do equal work.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import DynamicCache

import mmkv
from benchmarks.common import chunks, save, show
from mmkv.engine.transformers_compat import cache_argument

CHUNK = 8
QUESTION = "what colour was the circle?"
TOKENS = 4


def run(vlm: mmkv.VideoLM, total: int = 768, every: int = 64) -> dict[str, Any]:
    """Measure and print, in frames per second of watching and answering together."""
    ways = {"mmkv": _mmkv, "grow": _grow, "re-encode": _reencode}
    seconds: dict[str, list[float]] = {}
    for name, way in ways.items():
        with torch.inference_mode():
            seconds[name] = way(vlm, total, every)
    rate = {name: total / sum(spent) for name, spent in seconds.items()}
    tail = {name: every / spent[-1] for name, spent in seconds.items()}
    result = {"frames": total, "question_every": every, "fps": rate, "fps_at_the_end": tail}
    show(
        f"{total} frames, a question every {every} ({vlm.name})",
        [
            ("", "frames/s", "frames/s at the end"),
            *((name, f"{rate[name]:.0f}", f"{tail[name]:.0f}") for name in ways),
        ],
    )
    save("stock", result)
    return result


def _mmkv(vlm: mmkv.VideoLM, total: int, every: int) -> list[float]:
    config = mmkv.CacheConfig(window_frames=16, recent_frames=4, retrieve_frames=8)
    spans, started = [], time.perf_counter()
    with vlm.stream(config) as stream:
        for i, (stack, times) in enumerate(chunks(total, CHUNK)):
            stream.feed(stack, times)
            if (i + 1) * CHUNK % every == 0:
                for _ in range(1):
                    _exactly(vlm, stream)
                spans.append(time.perf_counter() - started)
                started = time.perf_counter()
    return spans


def _exactly(vlm: mmkv.VideoLM, stream: mmkv.Stream) -> None:
    """One answer of TOKENS tokens, whatever the model would say."""
    stop, vlm.stop_tokens = vlm.stop_tokens, frozenset()
    try:
        stream.ask(QUESTION, max_new_tokens=TOKENS)
    finally:
        vlm.stop_tokens = stop


def _prompt(vlm: mmkv.VideoLM) -> tuple[list[int], list[int]]:
    message = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    text = vlm.tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )
    before, after = text.split("<video>")
    encode = vlm.tokenizer
    return (
        encode(before, add_special_tokens=False).input_ids,
        encode(after, add_special_tokens=False).input_ids,
    )


def _pixels(vlm: mmkv.VideoLM, stack: torch.Tensor) -> torch.Tensor:
    from mmkv.models.fit import fit_frames

    return fit_frames(stack, vlm.adapter.grid(64, 64), vlm.adapter.preprocess)


def _reencode(vlm: mmkv.VideoLM, total: int, every: int) -> list[float]:
    before, after = _prompt(vlm)
    tokens = vlm.adapter.grid(64, 64).tokens
    seen: list[torch.Tensor] = []
    spans, started = [], time.perf_counter()
    for i, (stack, _) in enumerate(chunks(total, CHUNK)):
        seen.append(stack)
        if (i + 1) * CHUNK % every == 0:
            pixels = _pixels(vlm, torch.cat(seen))
            video = [vlm.model.config.video_token_id] * (len(pixels) * tokens + 1)
            vlm.model.generate(
                input_ids=torch.tensor([before + video + after]),
                pixel_values_videos=pixels[None],
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                do_sample=False,
            )
            spans.append(time.perf_counter() - started)
            started = time.perf_counter()
    return spans


def _grow(vlm: mmkv.VideoLM, total: int, every: int) -> list[float]:
    adapter = vlm.adapter
    before, after = _prompt(vlm)
    cache = DynamicCache()
    _forward(adapter, cache, adapter.embed_text(before))
    spans, started = [], time.perf_counter()
    for i, (stack, _) in enumerate(chunks(total, CHUNK)):
        features, _ = adapter.vision(_pixels(vlm, stack), adapter.grid(64, 64))
        _forward(adapter, cache, features.flatten(0, 1))
        if (i + 1) * CHUNK % every == 0:
            length = cache.get_seq_length()
            lead = adapter.prompt_lead()
            prompt = adapter.embed_text(after)
            hidden = _forward(adapter, cache, prompt if lead is None else torch.cat([lead, prompt]))
            for _ in range(TOKENS - 1):
                token = int(adapter.lm_head(hidden[0, -1]).argmax())
                hidden = _forward(adapter, cache, adapter.embed_text([token]))
            _drop(cache, cache.get_seq_length() - length)
            spans.append(time.perf_counter() - started)
            started = time.perf_counter()
    return spans


def _drop(cache: DynamicCache, tokens: int) -> None:
    for layer in cache.layers:
        layer.keys = layer.keys[:, :, :-tokens]
        layer.values = layer.values[:, :, :-tokens]


def _forward(adapter: Any, cache: DynamicCache, embeds: torch.Tensor) -> torch.Tensor:
    model = adapter.language_model
    past = {cache_argument(model): cache}
    return model(inputs_embeds=embeds[None], use_cache=True, **past).last_hidden_state
