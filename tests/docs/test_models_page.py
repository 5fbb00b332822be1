"""The table of docs/models.md holds what is computed from the configurations below.

They are the published ones of these checkpoints, without what equals the defaults of transformers'
classes. To add a row, add a configuration here; the test prints the row.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_models import EVERY

from mmkv.cli.cost import describe
from mmkv.config.units import size
from mmkv.models.base import VideoModel
from mmkv.models.config_file import read_config
from mmkv.models.layers import read_layers
from mmkv.models.preprocess import Preprocess
from mmkv.models.registry import adapter_for
from mmkv.models.tokenizer_file import TokenizerFile

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text("utf-8")
PIXELS = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

# model: architecture and configuration
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "LLaVA-OneVision 7B": (
        "LlavaOnevisionForConditionalGeneration",
        {
            "model_type": "llava_onevision",
            "text_config": {
                "model_type": "qwen2",
                "hidden_size": 3584,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
            },
        },
    ),
    "Qwen2.5-VL 7B": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "model_type": "qwen2_5_vl",
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
    ),
    "Qwen3-VL 8B": (
        "Qwen3VLForConditionalGeneration",
        {
            "model_type": "qwen3_vl",
            "text_config": {
                "model_type": "qwen3_vl_text",
                "hidden_size": 4096,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
            },
        },
    ),
    "Qwen3.5 9B": ("Qwen3_5ForConditionalGeneration", {"model_type": "qwen3_5"}),
    "Qwen3.5 27B": (
        "Qwen3_5ForConditionalGeneration",
        {
            "model_type": "qwen3_5",
            "text_config": {
                "model_type": "qwen3_5_text",
                "hidden_size": 5120,
                "num_hidden_layers": 64,
                "num_attention_heads": 24,
                "num_key_value_heads": 4,
                "linear_num_value_heads": 48,
            },
        },
    ),
    "Gemma 4 E4B": (
        "Gemma4ForConditionalGeneration",
        {
            "model_type": "gemma4",
            "text_config": {
                "model_type": "gemma4_text",
                "hidden_size": 2560,
                "num_hidden_layers": 42,
                "num_attention_heads": 8,
                "num_key_value_heads": 2,
                "num_kv_shared_layers": 18,
            },
            "vision_config": {"model_type": "gemma4_vision"},
        },
    ),
    "Gemma 4 31B": (
        "Gemma4ForConditionalGeneration",
        {
            "model_type": "gemma4",
            "text_config": {
                "model_type": "gemma4_text",
                "hidden_size": 5376,
                "num_hidden_layers": 60,
                "num_attention_heads": 32,
                "num_key_value_heads": 16,
                "num_global_key_value_heads": 4,
                "attention_k_eq_v": True,
                "sliding_window": 1024,
                "hidden_size_per_layer_input": 0,
            },
            "vision_config": {"model_type": "gemma4_vision"},
        },
    ),
    "InternVL3 8B": (
        "InternVLForConditionalGeneration",
        {
            "model_type": "internvl",
            "text_config": {
                "model_type": "qwen2",
                "hidden_size": 3584,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
            },
        },
    ),
    "SmolVLM2 2.2B": (
        "SmolVLMForConditionalGeneration",
        {
            "model_type": "smolvlm",
            "text_config": {
                "model_type": "llama",
                "hidden_size": 2048,
                "num_hidden_layers": 24,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
            },
            "vision_config": {
                "model_type": "smolvlm_vision",
                "image_size": 384,
                "patch_size": 14,
            },
            "scale_factor": 3,
        },
    ),
}
TIME = {"text": "in text", "position": "by position", "none": "order only"}


def adapter_of(name: str) -> VideoModel:
    architecture, values = MODELS[name]
    family, _ = adapter_for([architecture])
    model = SimpleNamespace(config=read_config(values))
    return family(model, TokenizerFile(lambda file: None), PIXELS, None)


def row(name: str) -> str:
    """One line of the table: 1080p at one frame per second, keys and values in 16 bits."""
    adapter = adapter_of(name)
    cost = describe(adapter, 1.0, "bfloat16")
    (packed,) = [one for one in cost["packed"] if (one["key_bits"], one["value_bits"]) == (2, 2)]
    layers, state = cost["layers"], cost["carried"]
    cells = (
        name,
        ", ".join(f"{count} {kind}" for kind, count in layers.items()),
        size(cost["fp16"]["bytes_per_token"]),
        f"{cost['fp16']['gb_per_hour']:.1f} GB",
        f"{packed['gb_per_hour']:.2f} GB",
        size(state["total"]) if state["total"] else "none",
        str(cost["frames_per_block"]),
        TIME[cost["time"]],
        "logits" if adapter.family in EVERY else "no",
    )
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("name", MODELS)
def test_the_table_has_the_figures_of_a_model(name: str) -> None:
    assert row(name) in PAGE.splitlines()


def test_the_table_has_no_other_rows() -> None:
    _, _, table = PAGE.partition("| model | layers |")
    rows = table.partition("\n\n")[0].splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows if line[0] == "|"] == [*MODELS]


@pytest.mark.parametrize("name", MODELS)
def test_the_configurations_are_read_as_transformers_reads_them(name: str) -> None:
    import transformers

    architecture, values = MODELS[name]
    config = getattr(transformers, architecture).config_class.from_dict(values)
    adapter = adapter_of(name)
    assert adapter.layers == read_layers(config.get_text_config())
    other = type(adapter)(SimpleNamespace(config=config), adapter.tokenizer, PIXELS, None)
    assert adapter.grid(1080, 1920) == other.grid(1080, 1920)


def test_the_page_names_every_family_and_architecture() -> None:
    from mmkv.models.registry import FAMILIES as ADAPTERS

    for adapter in ADAPTERS:
        for architecture in adapter.architectures:
            assert f"`{architecture}`" in PAGE
