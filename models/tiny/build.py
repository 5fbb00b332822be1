"""The architecture of mmkv-tiny: a LLaVA-OneVision model of about 4 million parameters."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from mmkv.models.tiny.tokenizer import END, IMAGE, PAD, START, VIDEO
from mmkv.models.tiny.world import FRAME

PREPROCESSOR: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": FRAME, "width": FRAME},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def word_id(tokenizer: PreTrainedTokenizerFast, word: str) -> int:
    """Return the id of one word."""
    return int(tokenizer.get_vocab()[word])


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionConfig:
    """Configure 64 x 64 pixels, patches of 8, pooled to 16 tokens a frame; Qwen2 of width 256."""
    vision = SiglipVisionConfig(
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=FRAME,
        patch_size=8,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=320,  # 16 frames and a question: what it is trained on
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=word_id(tokenizer, START),
        eos_token_id=word_id(tokenizer, END),
        pad_token_id=word_id(tokenizer, PAD),
    )
    return LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=word_id(tokenizer, IMAGE),
        video_token_index=word_id(tokenizer, VIDEO),
        image_grid_pinpoints=[[FRAME, FRAME]],
        vision_aspect_ratio="anyres_max_1",
        tie_word_embeddings=True,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> LlavaOnevisionForConditionalGeneration:
    """Make the model with random weights."""
    torch.manual_seed(seed)
    model = LlavaOnevisionForConditionalGeneration(build_config(tokenizer))
    torch.nn.init.normal_(model.model.image_newline, std=0.02)
    return model


def save_checkpoint(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    dtype: torch.dtype = torch.float16,
    preprocessor: dict[str, Any] = PREPROCESSOR,
    processors: tuple[str, str] = ("LlavaOnevisionImageProcessor", "LlavaOnevisionVideoProcessor"),
) -> None:
    """Write weights, configuration, tokenizer, chat template and preprocessing to a folder.

    Args:
        model: left as it is.
        tokenizer: with its chat template.
        folder: made if it is not there.
        dtype: of the weights on disk.
        preprocessor: how images and frames become pixels.
        processors: transformers classes for images and for videos.
    """
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.data = parameter.data.to(dtype)
    twin.config.dtype = dtype
    twin.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=48,
        bos_token_id=word_id(tokenizer, START),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    twin.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image = {**preprocessor, "image_processor_type": processors[0]}
    video = {**preprocessor, "video_processor_type": processors[1]}
    for name, content in (
        ("preprocessor_config.json", image),
        ("video_preprocessor_config.json", video),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
