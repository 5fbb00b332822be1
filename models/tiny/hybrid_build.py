"""The architecture of mmkv-tiny's hybrid sibling: Qwen3.5 with about a million parameters."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5TextConfig,
    Qwen3_5VisionConfig,
)

from mmkv.models.tiny.build import PREPROCESSOR, word_id
from mmkv.models.tiny.tokenizer import (
    END,
    IMAGE_PAD,
    PAD,
    START,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
)
from mmkv.models.tiny.world import FRAME

PATCH, MERGE, PAIR = 8, 4, 2  # pixels, patches per token and side, frames per token
ROWS = FRAME // (PATCH * MERGE)
SHORT, LONG = 2.0, 500.0  # tokens after which a head's state has faded to 1/e, before training
GRID_PREPROCESSOR: dict[str, Any] = {
    **PREPROCESSOR,
    "size": {"shortest_edge": FRAME**2, "longest_edge": 256 * FRAME**2},
    "patch_size": PATCH,
    "merge_size": MERGE,
    "temporal_patch_size": PAIR,
}


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3_5Config:
    """Configure 64 x 64 pixels as 2 x 2 tokens, one per quadrant; four layers, the last full."""
    text = Qwen3_5TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        linear_num_key_heads=4,
        linear_num_value_heads=4,
        linear_key_head_dim=32,
        linear_value_head_dim=32,
        max_position_embeddings=4096,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [3, 3, 2],
            "mrope_interleaved": True,
        },
        tie_word_embeddings=True,
        bos_token_id=word_id(tokenizer, START),
        eos_token_id=word_id(tokenizer, END),
        pad_token_id=word_id(tokenizer, PAD),
    )
    vision = Qwen3_5VisionConfig(
        depth=2,
        hidden_size=64,
        intermediate_size=128,
        num_heads=4,
        patch_size=PATCH,
        spatial_merge_size=MERGE,
        temporal_patch_size=PAIR,
        out_hidden_size=text.hidden_size,
        num_position_embeddings=(FRAME // PATCH) ** 2,
    )
    return Qwen3_5Config(
        vision_config=vision,
        text_config=text,
        image_token_id=word_id(tokenizer, IMAGE_PAD),
        video_token_id=word_id(tokenizer, VIDEO_PAD),
        vision_start_token_id=word_id(tokenizer, VISION_START),
        vision_end_token_id=word_id(tokenizer, VISION_END),
        tie_word_embeddings=True,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> Qwen3_5ForConditionalGeneration:
    """Make the model with random weights, and heads that forget at different speeds."""
    torch.manual_seed(seed)
    model = Qwen3_5ForConditionalGeneration(build_config(tokenizer))
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            if layer.block_type == "linear_attention":
                mixer = layer.linear_attn
                spread = torch.linspace(math.log(SHORT), math.log(LONG), mixer.num_v_heads)
                fading = torch.exp(-spread)  # per token, what softplus of the bias should be
                mixer.dt_bias.copy_(torch.log(torch.expm1(fading)))
                mixer.A_log.zero_()
    return model
