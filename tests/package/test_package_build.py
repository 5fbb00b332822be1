"""What people install: a wheel built from an sdist, and the refusal to build an empty one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINKS = ("video", "kernels", "models", "demos")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, symbolic links included, to build in."""
    copy = tmp_path_factory.mktemp("checkout") / "mmkv"
    skip = shutil.ignore_patterns(".git", ".venv*", "*.egg-info", "__pycache__", "build", "dist")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=skip)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `build` makes from the sdist that it made from the checkout."""
    out = tmp_path_factory.mktemp("dist")
    done = build(checkout, "--outdir", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def build(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "build", "--no-isolation", *arguments, str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


def test_wheel_holds_every_module_of_the_checkout(wheel: Path, checkout: Path) -> None:
    there = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    modules = {f"mmkv/{path.relative_to(checkout)}" for link in LINKS
               for path in (checkout / link).rglob("*.py")}  # fmt: skip
    modules |= {str(p.relative_to(checkout)) for p in (checkout / "mmkv").rglob("*.py")}
    assert modules <= there


def test_wheel_holds_the_bundled_model_its_video_and_type_marker(
    wheel: Path, checkout: Path
) -> None:
    there = set(zipfile.ZipFile(wheel).namelist())
    tiny = checkout / "models" / "tiny"
    data = [*(tiny / "checkpoint").glob("*"), tiny / "sample.mp4", tiny / "sample.json"]
    assert {f"mmkv/{path.relative_to(checkout)}" for path in data} <= there
    assert "mmkv/py.typed" in there


def test_wheel_takes_no_other_import_name(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mmkv"}


def test_installed_wheel_imports_by_itself(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
    code = (
        f"import sys, json; sys.path.insert(0, {str(target)!r}); import mmkv, mmkv.video, "
        "mmkv.models, mmkv.cli; "
        "print(json.dumps([mmkv.__file__, mmkv.video.__file__, mmkv.models.__file__]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert all(name.startswith(str(target)) for name in json.loads(done.stdout))


def test_a_checkout_without_symbolic_links_stops_the_build(checkout: Path, tmp_path: Path) -> None:
    broken = tmp_path / "mmkv"
    broken.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", ".ci"):
        copy = shutil.copytree if (checkout / name).is_dir() else shutil.copy
        copy(checkout / name, broken / name)
    (broken / "mmkv").mkdir()
    (broken / "mmkv" / "__init__.py").touch()
    for name in LINKS:  # what git leaves where it cannot make a link
        (broken / "mmkv" / name).write_text(f"../{name}")
    done = build(broken, "--wheel")
    assert done.returncode != 0
    assert "mmkv/video is not a folder" in done.stdout + done.stderr
    install = [sys.executable, str(broken / ".ci" / "install.py"), str(tmp_path / "venv")]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: mmkv/video is not a folder")
    assert done.stderr.count("\n") == 1
