"""`mmkv info`: what it tells about this machine and about a model agrees with torch and the engine.

Models are folders with small configurations, as `save_pretrained` writes them, without weights.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import FAMILIES, PREPROCESS, small_vlm

import mmkv
from mmkv.cli import cost, machine, main
from mmkv.models.config_file import Unreadable
from mmkv.models.tiny import CHECKPOINT, SAMPLE_VIDEO


def save(family: str, folder: Path, **changes: Any) -> Path:
    """A checkpoint without weights."""
    vlm = small_vlm(family)
    values = json.loads(vlm.model.config.to_json_string()) | changes
    values.setdefault("architectures", [type(vlm.model).__name__])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    pixels = {"image_mean": PREPROCESS.mean, "image_std": PREPROCESS.std}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    vlm.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["mmkv", "info", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    code = end.value.code
    assert isinstance(code, int)
    return code, *capsys.readouterr()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_costs_what_the_loaded_one_says(family: str, dtype: str, tmp_path: Path) -> None:
    folder, vlm = save(family, tmp_path), small_vlm(family)
    pixels = vlm.adapter.max_pixels
    found = cost.cost_of(str(folder), 2.0, max_pixels=pixels, dtype=dtype)
    element = 4 if dtype == "float32" else 2
    assert found["family"] == vlm.family
    assert found["tokens_per_frame"] == vlm.tokens_per_frame()
    assert found["bytes_per_token"] == vlm.bytes_per_token * element // 4
    assert found["bytes_per_frame"] == found["bytes_per_token"] * vlm.tokens_per_frame()
    assert found["gb_per_hour"] == pytest.approx(vlm.gb_per_hour(2.0) * element / 4)
    assert found["fp16"]["gb_per_hour"] == pytest.approx(vlm.gb_per_hour(2.0) / 2)
    assert found["frames_per_block"] == vlm.adapter.temporal_patch
    assert found["layers"].get("global") == len(vlm.adapter.global_layers)
    assert sum(found["layers"].values()) == len(vlm.adapter.layers)
    assert (found["carried"]["total"] > 0) == vlm.adapter.carries
    assert found["text_counted"]


@pytest.mark.parametrize("bits", [(2, 2), (1.5, 1.58)])
def test_packed_bits_are_those_of_a_stream(bits: tuple[float, float]) -> None:
    vlm = mmkv.load("mmkv-tiny")
    config = mmkv.CacheConfig(key_bits=bits[0], value_bits=bits[1], window_frames=4)
    with vlm.stream(config) as stream:
        stream.encode(SAMPLE_VIDEO, fps=1.0)
        measured = stream.stats().bits_per_element
    found = cost.cost_of("mmkv-tiny", 1.0, path=str(CHECKPOINT))
    (row,) = [r for r in found["packed"] if (r["key_bits"], r["value_bits"]) == bits]
    assert row["bits_per_element"] == pytest.approx(measured, abs=0.01)
    ratio = row["gb_per_hour"] / found["fp16"]["gb_per_hour"]
    assert ratio == pytest.approx(row["bits_per_element"] / 16)


def test_few_frames_share_a_page_that_time_closes() -> None:
    bits = [
        cost.cost_of("mmkv-tiny", fps, path=str(CHECKPOINT))["packed"][0]["bits_per_element"]
        for fps in (1.0, 0.01)
    ]
    assert bits[1] > bits[0]


def test_the_default_dtype_is_the_checkpoints(tmp_path: Path) -> None:
    folder = save("qwen3_vl", tmp_path, dtype=None, torch_dtype="bfloat16")
    assert cost.cost_of(str(folder), 1.0)["dtype"] == "bfloat16"
    assert cost.cost_of("mmkv-tiny", 1.0, path=str(CHECKPOINT))["dtype"] == "float16"


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_5"])
def test_where_a_file_cannot_be_read_alone_transformers_reads_it(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(save(family, tmp_path))
    expected = cost.cost_of(folder, 1.0)

    def fails(values: object) -> None:
        raise Unreadable("by this test")

    monkeypatch.setattr(cost, "read_config", fails)
    assert cost.cost_of(folder, 1.0) == expected


def test_weights_are_those_of_the_index_or_of_the_files(tmp_path: Path) -> None:
    folder = save("qwen3_vl", tmp_path)
    assert cost.cost_of(str(folder), 1.0)["weight_bytes"] is None
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (folder / name).write_bytes(struct.pack("<Q", len(header)) + header + bytes(12))
    assert cost.cost_of(str(folder), 1.0)["weight_bytes"] == 24
    index = {"metadata": {"total_size": 30}, "weight_map": {}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert cost.cost_of(str(folder), 1.0)["weight_bytes"] == 30
    weights = cost.cost_of("mmkv-tiny", 1.0, path=str(CHECKPOINT))["weight_bytes"]
    model = mmkv.load("mmkv-tiny", dtype="float16").model
    assert weights == sum(p.numel() * p.element_size() for p in model.parameters())


def test_without_a_tokenizer_the_text_is_not_counted_and_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save("qwen3_vl", tmp_path)
    whole = cost.cost_of(str(folder), 1.0)["tokens_per_frame"]
    (folder / "tokenizer.json").unlink()
    found = cost.cost_of(str(folder), 1.0)
    assert not found["text_counted"]
    assert 0 < found["tokens_per_frame"] < whole
    _, out, _ = told(capsys, monkeypatch, "--model", folder)
    assert "without the text around it (there is no tokenizer.json)" in out


def test_a_model_in_the_hubs_cache_is_found_without_a_network(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--some--model"
    save("qwen3_5", repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    (repo / ".no_exist" / "abc").mkdir(parents=True)
    (repo / ".no_exist" / "abc" / "model.safetensors.index.json").touch()
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    command = [sys.executable, "-m", "mmkv", "info", "--model", "some/model"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"layers +4 decoder layers: 2 global, 2 carry", done.stdout)
    assert re.search(r"frames +2 frames together; .* in text before it", done.stdout)
    assert re.search(r"carried +.*however long the video \(.*recurrent.*convolution\)", done.stdout)
    assert re.search(r"weights +not known from the configuration", done.stdout)


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown kind of layer": (
        {"text_config": {"model_type": "qwen3_5_text", "num_hidden_layers": 2,
                         "layer_types": ["full_attention", "indexed_attention"]}},
        "layers of the type 'indexed_attention', which mmkv cannot stream",
    ),
    "code of its own": (
        {"architectures": ["OddForVideo"], "auto_map": {"AutoModel": "odd.OddForVideo"}},
        "OddForVideo; supported: .* brings code of its own, which mmkv never runs",
    ),
    "no architecture": ({"architectures": None}, "architecture none named"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_mmkv_cannot_stream_is_one_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, words = CASES[case]
    code, out, err = told(capsys, monkeypatch, "--model", save("qwen3_5", tmp_path, **changes))
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"error: .*{words}.*\n", err)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, "has no config.json, so it is no model; give"),
        ("config.json", "{", "config.json is not a JSON object; fetch the checkpoint again"),
        ("config.json", "[]", "config.json is not a JSON object; fetch the checkpoint again"),
        ("preprocessor_config.json", None, "has no preprocessor_config.json with an image_mean"),
    ],
)
def test_a_file_that_is_missing_or_broken_is_one_sentence(
    file: str, content: str | None, words: str,
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = save("qwen3_vl", tmp_path) / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    code, out, err = told(capsys, monkeypatch, "--model", tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {tmp_path}")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.skipif(machine.may_have_gpu(), reason="torch is asked about the GPU of this machine")
def test_neither_torch_nor_transformers_is_imported(tmp_path: Path) -> None:
    folder = save("qwen3_5", tmp_path)
    code = (
        "import sys\nfrom mmkv.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print({'torch', 'transformers', 'accelerate'} & set(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "info", "--model", folder, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == "set()\n"
    assert json.loads(done.stdout)["model"]["carried"]["total"] > 0


def test_what_is_said_about_the_gpu_agrees_with_torch() -> None:
    assert machine.has_cuda() == torch.cuda.is_available()
    built = torch.version.cuda is not None or torch.version.hip is not None
    assert machine.for_gpus() == built
    if not machine.may_have_gpu():
        assert torch.cuda.device_count() == 0
    assert machine.operations() == sorted(
        path.parent.name for path in Path(mmkv.__file__).parent.glob("kernels/*/triton.py")
    )


def test_what_is_missing_and_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    monkeypatch.setattr(machine, "for_gpus", lambda: False)
    code, out, _ = told(capsys, monkeypatch)
    assert code == 0
    for name in ("GPU", "gradio", "ray", "scenedetect-headless", "pyarrow", "triton"):
        assert re.search(rf"missing +{name}: .*install", out), name
    assert re.search(r"kernels .*window attention", out)
