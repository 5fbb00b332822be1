"""A text-image model chooses frames instead of the keys: the same ones for every layer."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from small_models import PREPROCESS, clip, small_vlm, tokenizer

import mmkv

VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 24, "patch_size": 8,
}  # fmt: skip
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 24,
}  # fmt: skip


@functools.cache
def encoder(kind: str = "clip") -> mmkv.TextImage:
    torch.manual_seed(0)
    tok = tokenizer("<video>")
    tok.pad_token = "<|endoftext|>"
    text = {**TEXT, "vocab_size": len(tok), "eos_token_id": tok.eos_token_id, "projection_size": 32}
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
        return mmkv.TextImage(transformers.CLIPModel(config), tok, preprocess())
    siglip = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    return mmkv.TextImage(transformers.SiglipModel(siglip), tok, preprocess())


def preprocess() -> dict[str, Any]:
    return {"image_mean": [0.5] * 3, "image_std": [0.2] * 3, "size": {"height": 24, "width": 24}}


def config(kind: str = "clip", **more: Any) -> mmkv.CacheConfig:
    return mmkv.CacheConfig(
        window_frames=6, recent_frames=2, retrieve_frames=5, neighbours=0, score="external",
        encoder=encoder(kind), **more,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl"])
def test_every_layer_reads_the_frames_nearest_to_the_text(family: str, kind: str) -> None:
    vlm, frames = small_vlm(family), clip(24)
    patch = vlm.adapter.temporal_patch
    with vlm.stream(config(kind)) as stream:
        stream.feed(frames, np.arange(24.0))
        reply = stream.ask_iter("a red car", max_new_tokens=1)
        choices = [choice.chosen for choice in reply._generation.engine_pass.choices]
        reply.close()
    images = encoder(kind).images(list(frames)).double().view(24 // patch, patch, -1).mean(dim=1)
    near = torch.cosine_similarity(images, encoder(kind).text("a red car").double()[None])
    best = near[: -2 // patch].topk(-(-5 // patch)).indices.sort().values.tolist()
    assert choices == [best] * vlm.adapter.shape.layers


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_vectors_are_those_of_the_model_itself(kind: str) -> None:
    model, tok = encoder(kind)._model, encoder(kind)._tokenizer
    picture = clip(1, height=24, width=24)[0]
    pixels = ((picture.permute(2, 0, 1).float() / 255 - 0.5) / 0.2)[None]
    with torch.inference_mode():
        image = model.get_image_features(pixels).pooler_output
        ids = tok("some words", padding="max_length", max_length=24, return_tensors="pt")
        more = {} if kind == "siglip" else {"attention_mask": ids.attention_mask}
        text = model.get_text_features(input_ids=ids.input_ids, **more).pooler_output
    for got, want in (
        (encoder(kind).images([picture])[0], image[0]),
        (encoder(kind).text("some words"), text[0]),
    ):
        assert torch.allclose(got, want / want.norm(), atol=1e-5)


def test_a_store_keeps_the_vectors(tmp_path: Path) -> None:
    vlm = small_vlm("llava_onevision")
    with vlm.stream(config(), store=tmp_path / "kept") as stream:
        stream.feed(clip(24), np.arange(24.0))
        before = stream.find("a red car", k=3)
    with vlm.open(tmp_path / "kept", config=config()) as stream:
        after = stream.find("a red car", k=3)
    assert [m.index for m in after] == [m.index for m in before]


def test_frames_without_vectors_are_told(tmp_path: Path) -> None:
    vlm = small_vlm("llava_onevision")
    plain = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=5)
    with vlm.stream(plain, store=tmp_path / "kept") as stream:
        stream.feed(clip(24), np.arange(24.0))
    wrong = pytest.raises(ValueError, match="encoded without a text-image model")
    with vlm.open(tmp_path / "kept", config=config()) as stream, wrong:
        stream.ask("Which?")


def test_what_is_forgotten_takes_no_memory() -> None:
    with small_vlm("llava_onevision").stream(config(max_ram="200kB")) as stream:
        stream.feed(clip(24), np.arange(24.0))
        stream.find("a red car")
        stream.feed(clip(24), np.arange(24.0, 48.0))
        stream.find("a red car")
        archive = stream._state.archive
        assert archive.first > 10
        assert min(stream._vectors) >= archive.first


def test_an_encoder_is_needed_and_goes_with_its_score() -> None:
    with pytest.raises(ValueError, match="score='external' needs encoder="):
        mmkv.CacheConfig(score="external")
    with pytest.raises(ValueError, match="is for score='external'; score is 'attention'"):
        mmkv.CacheConfig(encoder="some/clip")


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear is not a text-image model; use one with"):
        mmkv.TextImage(torch.nn.Linear(2, 2), None, PREPROCESS)
