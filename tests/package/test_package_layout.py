"""The layout that keeps `import mmkv.video` and everybody else's imports working."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("name", ["video", "kernels", "models", "demos"])
def test_import_names_are_relative_links_to_the_top_folders(name: str) -> None:
    link = ROOT / "mmkv" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"


@pytest.mark.parametrize("name", ["kernels/__init__.py", "conftest.py", "tests/__init__.py"])
def test_files_that_would_shadow_other_packages_do_not_exist(name: str) -> None:
    assert not (ROOT / name).exists()


def test_transformers_models_import_from_the_repository_root() -> None:
    code = "import transformers.models.qwen3_vl.modeling_qwen3_vl, mmkv.video"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_supported_python_and_extras_are_declared() -> None:
    assert PROJECT["requires-python"] == ">=3.11"
    assert {"demo", "decord", "dev"} <= set(PROJECT["optional-dependencies"])


def test_triton_is_only_asked_for_where_it_exists() -> None:
    (triton,) = [need for need in PROJECT["dependencies"] if need.startswith("triton")]
    assert "platform_system == 'Linux'" in triton


def test_licence_is_the_full_apache_text() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("mmkv", "Answer AskEvery CacheConfig Chat Eviction Feed FrameRef Frames Merge Moment "
         "Progress Reply Stats StoreError Stream TextImage VideoLM load __version__"),
        ("mmkv.answer", "Answer FrameRef"),
        ("mmkv.archive", "Archive PageSize Snapshot"),
        ("mmkv.codecs", "CODECS Codec PackedLayer Part bits_per_element from_spec make_codec"),
        ("mmkv.config", "CacheConfig"),
        ("mmkv.eviction", "ALL_TEXT EVICTIONS Eviction Frames make_eviction"),
        ("mmkv.merging", "MERGINGS Merge make_merge"),
        ("mmkv.retrieval.text_image", "TextImage"),
        ("mmkv.store", "DamageError Store StoreError StoreMismatchError remove"),
    ],
)  # fmt: skip
def test_public_names_are_where_they_were(module: str, names: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in names.split() if not hasattr(found, name)] == []
