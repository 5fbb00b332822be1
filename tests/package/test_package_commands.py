"""`make` and `.ci/run`: install once, refuse what cannot work, fail when a check fails."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
from waiting import finish

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The installer with nothing real behind it; `installer.ran` lists what pip was asked."""
    spec = importlib.util.spec_from_file_location("installer", ROOT / ".ci" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ran = []
    root = tmp_path / "checkout"
    for name in ("video", "models"):
        (root / "mmkv" / name).mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, root / name)
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module, "version_of", lambda python: sys.version_info[:2])
    monkeypatch.setattr(module, "torch_of", lambda python: "2.13.0")
    monkeypatch.setattr(module, "pip", lambda python, *arguments: module.ran.append(arguments))
    return module


def install(module: ModuleType, venv: Path, *extras: str) -> None:
    venv.mkdir(exist_ok=True)
    sys.argv = ["install.py", str(venv), *extras]
    module.main()


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.delenv("TORCH_INDEX", raising=False)


def test_a_second_run_installs_nothing(installer: ModuleType, tmp_path: Path) -> None:
    install(installer, tmp_path / "venv", "dev", "demo")
    install(installer, tmp_path / "venv", "demo")
    assert installer.ran == [("--editable", ".[demo,dev]")]


def test_another_extra_keeps_the_earlier_ones(installer: ModuleType, tmp_path: Path) -> None:
    install(installer, tmp_path / "venv")
    install(installer, tmp_path / "venv", "dev")
    install(installer, tmp_path / "venv")
    assert installer.ran == [("--editable", "."), ("--editable", ".[dev]")]


def test_new_requirements_are_installed(installer: ModuleType, tmp_path: Path) -> None:
    install(installer, tmp_path / "venv")
    with (installer.ROOT / "pyproject.toml").open("a") as file:
        file.write("# another requirement\n")
    install(installer, tmp_path / "venv")
    assert len(installer.ran) == 2


def test_an_installation_that_failed_is_tried_again(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(python: Path, *arguments: str) -> None:
        raise SystemExit("error: pip could not install")

    with monkeypatch.context() as patch:
        patch.setattr(installer, "pip", fail)
        with pytest.raises(SystemExit):
            install(installer, tmp_path / "venv")
    install(installer, tmp_path / "venv")
    assert len(installer.ran) == 1


@pytest.mark.parametrize("index", [None, "https://example.invalid/whl/cpu"])
def test_missing_torch_is_installed_first_and_pinned(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str | None
) -> None:
    monkeypatch.setattr(installer, "torch_of", lambda python: None)
    if index:
        monkeypatch.setenv("TORCH_INDEX", index)
    install(installer, tmp_path / "venv")
    where = ("--index-url", index) if index else ()
    assert installer.ran[0] == (*where, f"torch=={installer.TORCH}")


@pytest.mark.parametrize(("torch", "shares"), [("2.13.0", True), (None, False)])
def test_a_torch_that_the_python_has_is_shared(
    installer: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    torch: str | None,
    shares: bool,
) -> None:
    ran: list[list[str]] = []

    def record(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(installer, "torch_of", lambda python: torch)
    monkeypatch.setattr(installer.subprocess, "run", record)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    installer.create(tmp_path / "venv")
    assert ("--system-site-packages" in ran[0]) == shares


def test_an_old_python_is_refused_in_one_sentence(
    installer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 6))
    with pytest.raises(SystemExit, match=r"mmkv needs Python 3\.11.* is 3\.9; .*PYTHON="):
        installer.check_python()


def test_two_installations_at_once_take_turns(installer: ModuleType, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    with open(installer.ROOT / ".venv.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=install, args=(installer, venv))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert installer.ran == []
    finish(thread)
    assert len(installer.ran) == 1


def test_make_alone_lists_the_commands() -> None:
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    for command in ("demo", "test", "test-transformers", "lint", "bench", "docs", "clean"):
        assert f"make {command}" in done.stdout


@pytest.mark.parametrize("broken", ["lint", "transformers", "test", "nothing"])
def test_ci_fails_when_a_check_fails_and_ends_with_pytest(tmp_path: Path, broken: str) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    rules = [
        f"{name}:\n\t@echo '{line}'\n\t@{'false' if name == broken else 'true'}\n"
        for name, line in [("lint", "All checks passed!"), ("test", "== 3 passed in 0.1s ==")]
    ]
    (tmp_path / "Makefile").write_text("\n".join(rules))
    oldest = tmp_path / ".ci" / "transformers"
    oldest.write_text(f"#!/bin/sh\ntest $1 = oldest && test {broken} != transformers\n")
    oldest.chmod(0o755)
    chromium = tmp_path / "bin" / "chromium"  # else it would install one
    chromium.parent.mkdir()
    chromium.write_text("#!/bin/sh\n")
    chromium.chmod(0o755)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    clean["PATH"] = f"{chromium.parent}{os.pathsep}{clean['PATH']}"
    run = ["bash", str(tmp_path / ".ci" / "run")]
    done = subprocess.run(run, capture_output=True, text=True, env=clean)
    assert (done.returncode == 0) == (broken == "nothing")
    if broken == "nothing":
        assert done.stdout.splitlines()[-1] == "== 3 passed in 0.1s =="
