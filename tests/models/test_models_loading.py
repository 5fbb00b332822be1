"""Checkpoints of every family load as transformers saved them; sizes stay within bounds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from engine_reference import archived_kv
from small_models import FAMILIES, PREPROCESS, clip, small_vlm

import mmkv
from mmkv.models.llava_onevision import LlavaOnevision
from mmkv.models.qwen2_5_vl import Qwen25VL
from mmkv.models.qwen3_vl import Qwen3VL

CONFIG = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4)


@pytest.fixture(scope="module", params=list(FAMILIES))
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
    names = [f"model.{name}" for name, _ in small_vlm(family).model.model.named_children()]
    decoder = "model.text_model" if family == "smolvlm" else "model.language_model"
    names.remove(decoder)
    count = len(small_vlm(family).adapter.language_model.layers)
    layers = [f"{decoder}.layers.{i}" for i in range(count)]
    if disk == "two layers":
        names += [f"{decoder}.norm", f"{decoder}.rotary_emb", *layers]
        away = layers[1:]
    else:
        names += [f"{decoder}.{name}" for name in ("norm", "rotary_emb", "layers")]
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
    with pytest.raises(ValueError, match="OddModel; supported"):
        mmkv.load(str(tmp_path))


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


REAL = {
    LlavaOnevision: lambda: transformers.LlavaOnevisionConfig(),
    Qwen25VL: lambda: transformers.Qwen2_5_VLConfig(),
    Qwen3VL: lambda: transformers.Qwen3VLConfig(),
}


def real(family: Any, max_pixels: int | None = None) -> Any:
    """An adapter of the family's published sizes, without weights."""
    model = SimpleNamespace(config=REAL[family]())
    tokenizer = small_vlm("qwen3_vl").tokenizer
    return family(model, tokenizer, PREPROCESS, max_pixels)


@pytest.mark.parametrize("family", REAL)
@pytest.mark.parametrize("size", [(1080, 1920), (1920, 1080), (2160, 3840), (480, 640)])
def test_a_frame_stays_under_two_hundred_tokens_by_default(
    family: Any, size: tuple[int, int]
) -> None:
    adapter = real(family)
    grid = adapter.grid(*size)
    assert grid.tokens < 200
    if adapter.temporal_patch == 2:
        side = adapter._factor
        assert (grid.height % side, grid.width % side) == (0, 0)
        assert abs(grid.height / grid.width / (size[0] / size[1]) - 1) < 0.15


def test_the_published_sizes_are_what_these_tests_stand_on() -> None:
    assert real(LlavaOnevision).grid(1080, 1920).tokens == 196
    assert real(Qwen25VL)._factor == 28
    assert real(Qwen3VL)._factor == 32


@pytest.mark.parametrize("family", [Qwen25VL, Qwen3VL])
@pytest.mark.parametrize("limit", [32 * 32, 100_000, 400_000])
@pytest.mark.parametrize("size", [(1080, 1920), (1, 1), (20, 3000), (3000, 20), (7, 9)])
def test_max_pixels_bounds_a_frame_of_any_shape(
    family: Any, limit: int, size: tuple[int, int]
) -> None:
    adapter = real(family, limit)
    grid = adapter.grid(*size)
    assert grid.tokens >= 1
    assert grid.tokens <= max(limit // adapter._factor**2, 3000 // 20)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_max_pixels_too_small_says_what_is_allowed(family: str) -> None:
    with pytest.raises(ValueError, match="max_pixels=10 is"):
        small_vlm(family, max_pixels=10).tokens_per_frame()
