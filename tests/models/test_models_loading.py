"""Checkpoints of every family load as transformers saved them; others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from engine_reference import archived_kv
from small_models import EVERY, PREPROCESS, clip, small_vlm

import mmkv
from mmkv.models.registry import REFUSED

CONFIG = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4)


@pytest.fixture(scope="module", params=list(EVERY))
def saved(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[str, Path]:
    """A family and the folder its small model was saved to."""
    vlm, folder = small_vlm(request.param), tmp_path_factory.mktemp(request.param)
    vlm.model.save_pretrained(folder)
    vlm.tokenizer.save_pretrained(folder)
    size = {"height": 40, "width": 40} if request.param == "llava_onevision" else {}
    fields = {"image_mean": PREPROCESS.mean, "image_std": PREPROCESS.std, "size": size}
    if request.param == "smolvlm":
        fields |= {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 48}}
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return request.param, folder


def answer(vlm: mmkv.VideoLM) -> tuple[int, ...]:
    with vlm.stream(CONFIG) as stream:
        stream.feed(clip(9), np.arange(9.0))
        return stream.ask("What?", max_new_tokens=6).token_ids


def options(family: str) -> dict[str, Any]:
    return {"max_pixels": small_vlm(family).adapter.max_pixels}


def test_a_folder_answers_like_the_model_it_was_saved_from(saved: tuple[str, Path]) -> None:
    family, folder = saved
    vlm = mmkv.load(str(folder), **options(family))
    assert vlm.family == small_vlm(family).family
    assert vlm.dtype == torch.float32
    assert answer(vlm) == answer(small_vlm(family))


@pytest.mark.parametrize("where", ["cpu", "auto"])
def test_a_device_map_answers_the_same(saved: tuple[str, Path], where: str) -> None:
    family, folder = saved
    device_map = {"": "cpu"} if where == "cpu" else where
    vlm = mmkv.load(str(folder), device_map=device_map, dtype=torch.float32, **options(family))
    assert answer(vlm) == answer(small_vlm(family))


@pytest.mark.filterwarnings("ignore:The following device_map keys")  # a parameter, no module
@pytest.mark.parametrize("disk", ["two layers", "all but the embeddings"])
def test_weights_on_disk_answer_the_same(
    saved: tuple[str, Path], tmp_path: Path, disk: str
) -> None:
    family, folder = saved
    adapter = small_vlm(family).adapter
    names = [f"model.{name}" for name, _ in adapter.model.model.named_children()]
    decoder = "model.text_model" if family == "smolvlm" else "model.language_model"
    names.remove(decoder)
    parts = [name for name, _ in adapter.language_model.named_children()]
    parts = [f"{decoder}.{name}" for name in parts if name != "embed_tokens"]
    if disk == "two layers":
        parts.remove(f"{decoder}.layers")
        layers = [f"{decoder}.layers.{i}" for i in range(len(adapter.language_model.layers))]
        names += [*parts, *layers]
        away = layers[1:3]
    else:
        names += parts
        away = names
    device_map = {name: "disk" if name in away else "cpu" for name in names}
    here = ["lm_head", f"{decoder}.embed_tokens"]
    if family == "llava_onevision":
        here.append("model.image_newline")
    device_map |= dict.fromkeys(here, "cpu")
    vlm = mmkv.load(
        str(folder), device_map=device_map, offload_folder=str(tmp_path), **options(family)
    )
    assert next(vlm.adapter.language_model.layers[1].mlp.parameters()).device.type == "meta"
    assert answer(vlm) == answer(small_vlm(family))


@pytest.mark.filterwarnings("ignore:The following device_map keys")
def test_a_newline_left_on_disk_is_named(tmp_path: Path) -> None:
    parts = ("vision_tower", "multi_modal_projector", "language_model")
    device_map = dict.fromkeys(["lm_head", *(f"model.{p}" for p in parts)], "cpu")
    with pytest.raises(ValueError, match=r"model\.image_newline on disk.*map .* to a device"):
        mmkv.load(
            "mmkv-tiny",
            device_map={**device_map, "model.image_newline": "disk"},
            offload_folder=str(tmp_path),
        )


def test_bfloat16_runs(saved: tuple[str, Path]) -> None:
    family, folder = saved
    vlm = mmkv.load(str(folder), dtype="bfloat16", **options(family))
    with vlm.stream(CONFIG) as stream:
        stream.feed(clip(20), np.arange(20.0))
        assert archived_kv(stream).dtype == torch.bfloat16
        assert stream._state.window.layers[0].key.dtype == torch.bfloat16
        assert stream.ask("What?", max_new_tokens=3).token_ids


def test_a_checkpoint_without_preprocessing_is_refused(
    saved: tuple[str, Path], tmp_path: Path
) -> None:
    for file in saved[1].iterdir():
        if file.name != "preprocessor_config.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"no preprocessor_config\.json"):
        mmkv.load(str(tmp_path))


@pytest.mark.parametrize("known", [True, False])
def test_an_unknown_architecture_lists_the_supported_ones(tmp_path: Path, known: bool) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama" if known else "x"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"LlamaForCausalLM; supported: .*Qwen3VLForCond"):
        mmkv.load(str(tmp_path))


def test_foreign_code_is_refused(tmp_path: Path) -> None:
    config = {
        "architectures": ["OddModel"],
        "model_type": "odd",
        "auto_map": {"AutoConfig": "odd.OddConfig"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "odd.py").write_text("raise SystemExit('ran foreign code')")
    with pytest.raises(ValueError, match="trust_remote_code is refused"):
        mmkv.load(str(tmp_path), trust_remote_code=True)
    with pytest.raises(ValueError, match=r"OddModel is not in the installed transformers.*code"):
        mmkv.load(str(tmp_path))


def test_foreign_code_beside_an_architecture_of_transformers_is_not_the_reason(
    tmp_path: Path,
) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "odd.LlamaForCausalLM"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no adapter for the architecture LlamaForCausalLM"):
        mmkv.load(str(tmp_path))


@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_known_not_to_work_is_refused_with_the_reason(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": [name], "auto_map": {"AutoModel": "m.M"}})
    )
    with pytest.raises(ValueError) as refused:
        mmkv.load(str(tmp_path))
    assert str(refused.value).startswith(f"{name} is not supported: {REFUSED[name]}; supported: ")


def test_molmo2s_first_frame_sees_its_last() -> None:
    pytest.importorskip("transformers.models.molmo2", reason="comes with transformers 5.20")
    config = transformers.Molmo2Config(
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1},
        adapter_config={"hidden_size": 32, "text_hidden_size": 32, "vision_feature_layer": [0]},
        text_config={
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
        },
    )
    model = transformers.Molmo2ForConditionalGeneration(config).eval()
    assert type(model).__name__ in REFUSED
    embeds = torch.randn(1, 4, 32)
    changed = embeds.clone()
    changed[0, -1] += 1
    with torch.inference_mode():
        for kind, seen in ((1, True), (0, False)):  # of frames, of text
            first, other = (
                model(inputs_embeds=e, mm_token_type_ids=torch.full((1, 4), kind)).logits[0, 0]
                for e in (embeds, changed)
            )
            assert ((first - other).abs().max() > 1e-6) == seen


def test_a_missing_folder_is_an_os_error() -> None:
    with pytest.raises(OSError):
        mmkv.load("./no/such/folder", local_files_only=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "pass either a name"),
        ({"model": 1}, "without tokenizer"),
        ({"name": "a", "model": 1}, "pass either a name"),
        ({"name": "a", "tokenizer": 1}, "go with model="),
        ({"model": 1, "tokenizer": 1, "device": "cpu"}, "device cannot change"),
        ({"model": 1, "tokenizer": 1, "revision": "x"}, "revision cannot change"),
        ({"name": "a", "max_pixels": 0}, "max_pixels=0 is not allowed"),
        ({"name": "mmkv-tiny", "device": "warp"}, "device='warp' is not known"),
    ],
)
def test_arguments_that_contradict_each_other_are_named(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mmkv.load(**given)
