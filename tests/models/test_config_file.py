"""A configuration read from its file is what transformers' own class makes of the same file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from small_models import EVERY, small_vlm
from transformers.integrations.heterogeneity.configuration_utils import (
    AmbiguousGlobalPerLayerAttributeError,
)

from mmkv.models.config_file import ConfigFile, Unreadable, read_config
from mmkv.models.layers import read_layers
from mmkv.models.registry import FAMILIES as ADAPTERS
from mmkv.models.tiny import CHECKPOINT

ARCHITECTURES = [name for adapter in ADAPTERS for name in adapter.architectures]
DEFAULTS = "sub_configs_defaults"  # says which class a part is of, where a file does not
OTHERS = {"rope_parameters", "dtype"}  # normalised by the base class, which needs torch


def real(architecture: str, values: dict[str, Any]) -> Any:
    return getattr(transformers, architecture).config_class.from_dict(values)


def assert_same(found: ConfigFile, wanted: Any) -> None:
    """Layers, and every field of every part."""
    assert_same_fields(found, wanted)
    text, other = found.get_text_config(), wanted.get_text_config()
    assert read_layers(text) == read_layers(other)


def assert_same_fields(found: ConfigFile, wanted: Any) -> None:
    for name in type(found).fields():
        value = getattr(found, name)
        try:
            other = getattr(wanted, name)
        except AmbiguousGlobalPerLayerAttributeError:
            continue  # layers differ in it, and are compared
        if isinstance(value, ConfigFile):
            assert_same_fields(value, other)
        elif name not in OTHERS:
            assert value == other, name


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("whole", [True, False], ids=["all fields", "those that differ"])
def test_saved_configurations(family: str, whole: bool) -> None:
    config = small_vlm(family).model.config
    values = json.loads(config.to_json_string(use_diff=not whole))
    architecture = type(small_vlm(family).model).__name__
    assert_same(read_config(values), real(architecture, values))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_empty_file_has_the_defaults_of_the_class(architecture: str) -> None:
    kind = getattr(transformers, architecture).config_class
    values = {"model_type": kind.model_type}
    if transformers.AutoConfig in kind.sub_configs.values() and not hasattr(kind, DEFAULTS):
        with pytest.raises(Unreadable):  # before 5.20 only code told of which class a part is
            read_config(values)
    else:
        assert_same(read_config(values), real(architecture, values))


def test_the_bundled_model() -> None:
    values = json.loads((CHECKPOINT / "config.json").read_text())
    assert_same(read_config(values), real(values["architectures"][0], values))


FLAT = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 3,
        "num_hidden_layers": 5}  # fmt: skip
SLIDING = {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 2}


@pytest.mark.parametrize("values", [FLAT, {**FLAT, **SLIDING}, {"num_key_value_heads": None}])
def test_a_flat_file_as_those_of_qwen2_5_vl(values: dict[str, Any]) -> None:
    vision = {"model_type": "qwen2_5_vl", "tokens_per_second": 2}  # as old files call it
    values = {"model_type": "qwen2_5_vl", **values, "vision_config": vision}
    found = read_config(values)
    assert_same(found, real("Qwen2_5_VLForConditionalGeneration", values))
    assert found.vision_config.tokens_per_second == 2


@pytest.mark.parametrize("interval", [2, 3])
def test_what_a_class_derives_from_a_value_that_is_no_field(interval: int) -> None:
    text = {"model_type": "qwen3_5_text", "full_attention_interval": interval}
    values = {"model_type": "qwen3_5", "text_config": text}
    assert_same(read_config(values), real("Qwen3_5ForConditionalGeneration", values))


def test_layers_with_sizes_of_their_own() -> None:
    own = {"1": {"num_key_value_heads": 1, "head_dim": 64}}
    text = {"model_type": "qwen3_vl_text", "num_hidden_layers": 3, "per_layer_config": own}
    values = {"model_type": "qwen3_vl", "text_config": text}
    found = read_layers(read_config(values).get_text_config())
    assert found == read_layers(real(ARCHITECTURES[2], values).get_text_config())
    assert [layer.kv_heads for layer in found] == [32, 1, 32]


@pytest.mark.parametrize(
    "values",
    [{}, {"model_type": "no_such_model"}, {"model_type": "qwen3_vl", "text_config": [1]},
     {"model_type": "llava_onevision", "text_config": {"model_type": "no_such_model"}}],
)  # fmt: skip
def test_what_cannot_be_read_says_so(values: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        read_config(values)


@pytest.mark.parametrize(
    "source",
    ["class OddConfig(PreTrainedConfig):\n    model_type = 'odd'\n    def __init__(self, a=1): ...",
     "class OddConfig(PreTrainedConfig):\n    model_type = 'odd'\n    a: int = somewhere.else_()",
     "class OddConfig(OtherConfig):\n    model_type = 'odd'\n    a: int = 1",
     "class OddConfig(PreTrainedConfig):\n    model_type = 'odd'\n    a: int = 1\n"
     "    def __post_init__(self):\n        self.a = self.convert(1)"],
)  # fmt: skip
def test_a_class_of_another_make_is_left_to_transformers(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models" / "odd"
    folder.mkdir(parents=True)
    (folder / "configuration_odd.py").write_text(source)

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr("mmkv.models.config_file.find_spec", lambda name: Spec)
    with pytest.raises(Unreadable):
        read_config({"model_type": "odd"})


def test_neither_torch_nor_transformers_is_imported_to_know_a_family() -> None:
    code = (
        "import sys, mmkv.models.registry, mmkv.models.config_file as file;"
        "file.read_config({'model_type': 'qwen3_5'}).get_text_config();"
        "sys.exit(str({'torch', 'transformers'} & set(sys.modules) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() in ("", "0"), "import torch inside functions: see `models/base.py`"
