"""Small random-weight models of the real classes, with a byte-level tokenizer. No downloads."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

import mmkv
from mmkv.models.preprocess import Preprocess

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|video_pad|>",
    "<|image_pad|>",
    "<video>",
    "<image>",
]
GEMMA = ["<|video|>", "<|image>", "<image|>"]
INTERN = [*SPECIAL, "<img>", "</img>", "<IMG_CONTEXT>"]
SMOL = [
    "<|im_start|>",
    "<image>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<global-img>",
]

_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'video' %}VIDEO{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

PREPROCESS = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.3, 0.25, 0.2))


# what tokenizers of words learn them from
_WORDS = (
    "You are provided the following series of frames from a video.\n\nFrame from 00:00:",
    "User: Assistant: system\nuser\nassistant\nFrame1: ",
    "\n\n",
)
# how text is cut before words are looked up
SPLITS = {
    "smollm2": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)],
    "qwen2": [
        pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
        pre_tokenizers.ByteLevel(False, use_regex=False),
    ],
}


def tokenizer(video: str, special: Sequence[str] = SPECIAL, end: str = "<|im_end|>") -> Any:
    """A byte-level tokenizer.

    Args:
        video: what its chat template renders for a video.
        special: control tokens.
        end: the one that ends a turn.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return _fast(core, video, special, end)


def word_tokenizer(video: str, special: Sequence[str], end: str, split: str) -> Any:
    """A tokenizer that knows a few words; see `tokenizer`.

    Args:
        split: how text is cut, a name of `SPLITS`.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(SPLITS[split])
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, min_frequency=1, show_progress=False
    )
    core.train_from_iterator(_WORDS, trainer)
    return _fast(core, video, special, end)


def _fast(core: Tokenizer, video: str, special: Sequence[str], end: str) -> Any:
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=end,
        additional_special_tokens=[s for s in special if s != end],
    )
    fast.chat_template = _TEMPLATE.replace("VIDEO", video)
    return fast


def _ids(tok: Any) -> dict[str, int]:
    return {s: tok.convert_tokens_to_ids(s) for s in {*SPECIAL, *INTERN, *GEMMA}}


_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}


def _text(tok: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tok),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
        **more,
    }


def _llava() -> tuple[Any, Any]:
    tok = tokenizer("<video>")
    ids = _ids(tok)
    config = transformers.LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 40,
            "patch_size": 8,
            "vision_use_head": False,
        },
        text_config={"model_type": "qwen2", **_text(tok)},
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), tok


def _qwen25() -> tuple[Any, Any]:
    tok = tokenizer("<|vision_start|><|video_pad|><|vision_end|>")
    ids = _ids(tok)
    config = transformers.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 64,
        },
        text_config=_text(
            tok,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],
            },
        ),
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        video_token_id=ids["<|video_pad|>"],
        image_token_id=ids["<|image_pad|>"],
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config), tok


def _qwen3_config(kind: Any, tok: Any, **more: Any) -> Any:
    """A configuration of Qwen3-VL or one of its relatives."""
    ids = _ids(tok)
    return kind(
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config=_text(
            tok,
            head_dim=24,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 4, 4],
                "mrope_interleaved": True,
            },
            **more,
        ),
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        video_token_id=ids["<|video_pad|>"],
        image_token_id=ids["<|image_pad|>"],
    )


def _qwen3(tok: Any = None) -> tuple[Any, Any]:
    tok = tok if tok is not None else tokenizer("<|vision_start|><|video_pad|><|vision_end|>")
    config = _qwen3_config(transformers.Qwen3VLConfig, tok)
    return transformers.Qwen3VLForConditionalGeneration(config), tok


def _qwen35_config(kind: Any, tok: Any, **more: Any) -> Any:
    ids = _ids(tok)
    return kind(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
        },
        text_config=_text(
            tok,
            num_hidden_layers=4,
            layer_types=["linear_attention", "full_attention"] * 2,
            head_dim=24,
            linear_key_head_dim=8,
            linear_value_head_dim=12,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 2, 2],
                "mrope_interleaved": True,
            },
            **more,
        ),
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        video_token_id=ids["<|video_pad|>"],
        image_token_id=ids["<|image_pad|>"],
    )


def _qwen35() -> tuple[Any, Any]:
    tok = tokenizer("<|vision_start|><|video_pad|><|vision_end|>")
    config = _qwen35_config(transformers.Qwen3_5Config, tok)
    return transformers.Qwen3_5ForConditionalGeneration(config), tok


def _qwen35_moe() -> tuple[Any, Any]:
    tok = tokenizer("<|vision_start|><|video_pad|><|vision_end|>")
    config = _qwen35_config(
        transformers.Qwen3_5MoeConfig,
        tok,
        **_EXPERTS,
        shared_expert_intermediate_size=48,
    )
    return transformers.Qwen3_5MoeForConditionalGeneration(config), tok


def _qwen3_moe() -> tuple[Any, Any]:
    tok = tokenizer("<|vision_start|><|video_pad|><|vision_end|>")
    config = _qwen3_config(transformers.Qwen3VLMoeConfig, tok, **_EXPERTS)
    return transformers.Qwen3VLMoeForConditionalGeneration(config), tok


def _cosmos3() -> tuple[Any, Any]:
    tok = tokenizer("<|vision_start|><|video_pad|><|vision_end|>")
    config = _qwen3_config(transformers.Cosmos3OmniConfig, tok)
    return transformers.Cosmos3OmniForConditionalGeneration(config), tok


def _internvl() -> tuple[Any, Any]:
    tok = word_tokenizer("<video>\n", INTERN, "<|im_end|>", "qwen2")
    config = transformers.InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 48,
            "patch_size": 8,
        },
        text_config={"model_type": "qwen2", **_text(tok)},
        image_token_id=_ids(tok)["<IMG_CONTEXT>"],
        image_seq_length=9,
    )
    model = transformers.InternVLForConditionalGeneration(config)
    embeddings = model.model.vision_tower.embeddings
    for weight in (embeddings.cls_token, embeddings.position_embeddings):  # zero in a fresh model
        weight.data.normal_(std=0.5)
    return model, tok


def _smolvlm() -> tuple[Any, Any]:
    tok = word_tokenizer("<video>", SMOL, "<end_of_utterance>", "smollm2")
    config = transformers.SmolVLMConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 48,
            "patch_size": 8,
        },
        text_config={"model_type": "llama", **_text(tok)},
        scale_factor=2,
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )
    return transformers.SmolVLMForConditionalGeneration(config), tok


FIXED = ("llava_onevision", "internvl", "smolvlm")  # families whose checkpoint fixes the size


def _gemma4(**more: Any) -> tuple[Any, Any]:
    """One of the small sizes, and frames that see ahead: of 7 layers 4 have keys, 2 global."""
    tok = tokenizer("<|video|>", (*SPECIAL[:3], *GEMMA))
    ids = _ids(tok)
    near, far = "sliding_attention", "full_attention"
    text = {
        "num_hidden_layers": 7,
        "layer_types": [near, far, near, far, near, near, far],
        "num_kv_shared_layers": 3,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": len(tok),
        "use_bidirectional_attention": "vision",
        "sliding_window": 40,
        "head_dim": 16,
        "global_head_dim": 32,
        "final_logit_softcapping": 4.0,
        "pad_token_id": ids["<|endoftext|>"],
        "rope_parameters": {
            near: {"rope_type": "default", "rope_theta": 100.0},
            far: {
                "rope_type": "proportional",
                "partial_rotary_factor": 0.5,
                "rope_theta": 10000.0,
            },
        },
    }
    text |= more
    text["layer_types"] = list(text["layer_types"])
    config = transformers.Gemma4Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": 8,
            "pooling_kernel_size": 2,
            "position_embedding_size": 64,
        },
        text_config=_text(tok, **text),
        boi_token_id=ids["<|image>"],
        eoi_token_id=ids["<image|>"],
        video_token_id=ids["<|video|>"],
        image_token_id=len(tok) + 1,
        audio_token_id=len(tok) + 2,
    )
    return transformers.Gemma4ForConditionalGeneration(config), tok


def _gemma4_moe(**more: Any) -> tuple[Any, Any]:
    """The mixture of experts: global layers whose keys are their values, and causal frames."""
    near, far = "sliding_attention", "full_attention"
    text = {
        "num_hidden_layers": 5,
        "layer_types": [near, near, far, near, far],
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0,
        "use_bidirectional_attention": None,
        "attention_k_eq_v": True,
        "num_key_value_heads": 4,
        "num_global_key_value_heads": 2,
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
    }
    return _gemma4(**{**text, **more})


FAMILIES = {
    "llava_onevision": _llava,
    "qwen2_5_vl": _qwen25,
    "qwen3_vl": _qwen3,
    "qwen3_5": _qwen35,
    "gemma4": _gemma4,
}
# of the same structure as one of these, for the tests of what is a family's own
RELATIVES = {
    "cosmos3_omni": _cosmos3,
    "qwen3_vl_moe": _qwen3_moe,
    "qwen3_5_moe": _qwen35_moe,
    "gemma4_moe": _gemma4_moe,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
}
EVERY = {**FAMILIES, **RELATIVES}


@functools.cache
def _model(family: str, seed: int, **more: Any) -> tuple[Any, Any]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model, tok = EVERY[family](**more)
        for name, weight in model.named_parameters():
            if "bias" in name and "language_model" in name:
                weight.normal_(std=0.5)  # Qwen2's key biases, which a fresh model has at zero
            if family.startswith("gemma") and ("norm" in name or "position_embedding" in name):
                weight.uniform_(0.4, 0.8)  # all ones in a fresh model
    return model.eval(), tok


def qwen3_vlm(tok: Any) -> mmkv.VideoLM:
    """A loaded random-weight Qwen3-VL whose vocabulary is that of another tokenizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, _ = _qwen3(tok)
    return mmkv.load(
        model=model.eval(), tokenizer=tok, preprocess=PREPROCESS, max_pixels=12 * 16 * 16
    )


def small_vlm(
    family: str,
    seed: int = 0,
    max_pixels: int | None = None,
    *,
    shared: bool = True,
    **more: Any,
) -> mmkv.VideoLM:
    """A loaded random-weight model of a family.

    Args:
        shared: with other tests; a test that changes weights takes a copy of its own.
        more: of its text configuration, for families that take it.
    """
    model, tok = _model(family, seed, **more)
    if not shared:
        model = copy.deepcopy(model)
    if max_pixels is None and family not in FIXED:
        max_pixels = 12 * 16 * 16
    return mmkv.load(
        model=model, tokenizer=tok, preprocess=preprocess_of(family), max_pixels=max_pixels
    )


def preprocess_of(family: str) -> Preprocess:
    """How the family's small model wants its frames; SmolVLM resizes them twice."""
    return replace(PREPROCESS, longest_edge=56) if family == "smolvlm" else PREPROCESS


def clip(n: int, seed: int = 0, height: int = 48, width: int = 64) -> Any:
    """n random uint8 frames `[n, H, W, 3]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator)
