"""Commands that need no model import neither torch nor transformers, which take seconds.

Tried: help and version, `info` with and without a store, `info --check`, `rm`, `info --model`
(`test_cli_info.py`), and the errors of these. Where there may be a GPU, `info` without a store asks
torch about it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mmkv
from mmkv.cli import machine
from mmkv.models.tiny import SAMPLE_VIDEO

CODE = (
    "import sys\nfrom mmkv.cli import main\n"
    "try: main()\n"
    "except SystemExit as end: code = end.code\n"
    "heavy = {'torch', 'transformers', 'accelerate', 'av', 'cv2', 'huggingface_hub'}\n"
    "print(code or 0, *sorted(heavy & set(sys.modules)), file=sys.stderr)"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("light") / "kept.kv"
    config = mmkv.CacheConfig(keep_ratio=0.5, key_bits=2, value_bits=2, window_frames=4)
    with mmkv.load("mmkv-tiny").stream(config, store=folder) as stream:
        stream.encode(SAMPLE_VIDEO, fps=0.1)
    return folder


def ends_with(*arguments: str | Path) -> tuple[str, str]:
    """Run a command; returns its output, and its exit code with what it imported."""
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout, done.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("rm", "--help")])
def test_help_and_version_are_light(arguments: tuple[str, ...]) -> None:
    assert ends_with(*arguments)[1] == "0"


@pytest.mark.skipif(machine.may_have_gpu(), reason="torch is asked about the GPU of this machine")
def test_info_is_light() -> None:
    assert ends_with("info")[1] == "0"


@pytest.mark.parametrize("options", [(), ("--json",), ("--check",)])
def test_what_a_store_holds_is_told_without_torch(store: Path, options: tuple[str, ...]) -> None:
    out, end = ends_with("info", store, *options)
    assert end == "0"
    assert "mmkv-tiny" in out


@pytest.mark.parametrize("command", ["info", "rm"])
def test_a_folder_without_a_store_is_refused_without_torch(command: str, tmp_path: Path) -> None:
    assert ends_with(command, tmp_path)[1] == "1"


def test_a_store_is_removed_without_torch(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.kv"
    copy.mkdir()
    for file in store.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert ends_with("rm", copy)[1] == "0"
    assert not copy.exists()
