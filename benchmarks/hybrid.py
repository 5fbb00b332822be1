"""What a carried state costs, on random weights of Qwen3.5: `python -m benchmarks.hybrid`.

encode: a chunk through the engine beside the bare chunked forward with transformers' own cache, in
turns. fork: copying the state of a 9B (24 layers of Gated DeltaNet) beside the first token of a
question, whose time is that of one layer of each kind times their number, since a CPU rarely holds
all of them.
"""

from __future__ import annotations

import copy
import time
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import DynamicCache

import mmkv
from benchmarks.common import machine, median, save, show, timed
from mmkv.engine.carry import Carry
from mmkv.engine.transformers_compat import cache_argument
from mmkv.models.layers import read_layers
from mmkv.models.preprocess import Preprocess

CHUNK, CHUNKS, WARM = 8, 60, 10  # frames in a chunk; chunks; those not counted
WINDOW = 32  # frames
PROMPT = 40  # tokens of a question
PAD = "<|vision_start|><|video_pad|><|vision_end|>"


def build() -> mmkv.VideoLM:
    """Eight layers, three of four recurrent, 256 wide; random weights."""
    tok = copy.copy(mmkv.load("mmkv-tiny").tokenizer)
    tok.chat_template = tok.chat_template.replace("<video>", PAD)
    config = transformers.Qwen3_5Config(
        vision_config={
            "depth": 1, "hidden_size": 64, "intermediate_size": 64, "num_heads": 2,
            "patch_size": 8, "out_hidden_size": 256, "num_position_embeddings": 64,
        },
        text_config={
            "vocab_size": len(tok), "hidden_size": 256, "intermediate_size": 768,
            "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 64, "linear_num_key_heads": 4, "linear_num_value_heads": 8,
            "linear_key_head_dim": 32, "linear_value_head_dim": 32,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25,
                "mrope_section": [3, 3, 2], "mrope_interleaved": True,
            },
        },
        vision_start_token_id=0, vision_end_token_id=1, video_token_id=2, image_token_id=3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Qwen3_5ForConditionalGeneration(config)
    half = (0.5, 0.5, 0.5)
    return mmkv.load(model=model, tokenizer=tok, preprocess=Preprocess(half, half))


@torch.inference_mode()
def encode(vlm: mmkv.VideoLM) -> dict[str, float]:
    """Seconds of the language model's part of a chunk, engine and bare, medians in turns."""
    model = vlm.adapter.language_model
    cache = DynamicCache(config=model.config)
    past = {cache_argument(model): cache}
    per_pair = round(2 * vlm.tokens_per_frame(128, 128))
    tokens = CHUNK // 2 * per_pair
    embeds = torch.randn(1, tokens, model.config.hidden_size) / 10
    frames = torch.randint(0, 256, (CHUNK, 128, 128, 3), dtype=torch.uint8)
    engine, bare = [], []
    with vlm.stream(mmkv.CacheConfig(window_frames=WINDOW, chunk_frames=CHUNK)) as stream:
        for i in range(CHUNKS):
            before = stream.stats().timings["encode"]
            stream.feed(frames, [float(CHUNK * i + j) for j in range(CHUNK)])
            spent = stream.stats().timings["encode"] - before
            took = timed(lambda: model(inputs_embeds=embeds, use_cache=True, **past))
            _keep_last(cache, WINDOW // 2 * per_pair)
            if i >= WARM:
                engine.append(spent)
                bare.append(took)
    ratios = [a / b for a, b in zip(engine, bare, strict=True)]
    return {
        "tokens_per_chunk": tokens,
        "engine_ms": 1e3 * median(engine),
        "bare_ms": 1e3 * median(bare),
        "ratio": median(ratios),
    }


def _keep_last(cache: DynamicCache, tokens: int) -> None:
    """Keep of the attention layers what a window shows."""
    for layer in cache.layers:
        if getattr(layer, "keys", None) is not None:
            layer.keys = layer.keys[:, :, -tokens:].contiguous()
            layer.values = layer.values[:, :, -tokens:].contiguous()


@torch.inference_mode()
def fork() -> dict[str, float]:
    """Copying a 9B's state, and a question's first token there."""
    text = transformers.Qwen3_5TextConfig()  # the defaults are a 9B's
    layers = read_layers(text)
    model: Any = SimpleNamespace(layers=layers)  # without weights
    carry = Carry(model)
    keys, values = text.linear_num_key_heads, text.linear_num_value_heads
    wide, high = text.linear_key_head_dim, text.linear_value_head_dim
    channels = 2 * keys * wide + values * high
    for index, layer in enumerate(layers):
        if layer.kind == "carry":
            carry.cache.update_conv_state(
                torch.zeros(1, channels, text.linear_conv_kernel_dim, dtype=torch.bfloat16), index
            )
            carry.cache.update_recurrent_state(torch.zeros(1, values, wide, high), index)
    copies = [timed(carry.fork) for _ in range(20)]
    count = {name: text.layer_types.count(name) for name in set(text.layer_types)}
    prompt = torch.randn(1, PROMPT, text.hidden_size) / 10
    token = sum(_layer_seconds(text, name, prompt) * n for name, n in count.items())
    return {
        "state_mib": carry.nbytes / 2**20,
        "fork_ms": 1e3 * median(copies),
        "first_token_ms": 1e3 * token,
        "share": median(copies) / token,
    }


def _layer_seconds(text: Any, name: str, prompt: Tensor) -> float:
    """Seconds of one decoder layer at the 9B shape, float32."""
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextModel

    one = copy.deepcopy(text)
    one.num_hidden_layers, one.layer_types, one.vocab_size = 1, [name], 8
    model = Qwen3_5TextModel(one).eval()
    times = []
    for _ in range(4):
        started = time.perf_counter()
        model(inputs_embeds=prompt, use_cache=False)
        times.append(time.perf_counter() - started)
    return median(times[1:])


def main() -> None:
    """Measure, print and save."""
    result = {"encode": encode(build()), "fork": fork()}
    save("hybrid", result)
    print(", ".join(f"{key} {value}" for key, value in machine().items() if value is not None))
    one, other = result["encode"], result["fork"]
    engine = f"engine {one['engine_ms']:.1f} ms, bare {one['bare_ms']:.1f} ms"
    state = f"{other['state_mib']:.1f} MiB, {other['fork_ms']:.1f} ms"
    first = f"first token {other['first_token_ms']:.0f} ms"
    show(
        "a state beside keys and values",
        [
            ("encode a chunk", f"{engine}: {one['ratio']:.3f} x", "at most 1.15 x"),
            ("fork of a 9B's state", f"{state}, {first}: {other['share']:.1%}", "at most 5 %"),
        ],
    )


if __name__ == "__main__":
    main()
