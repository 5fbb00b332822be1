"""The site is built without a warning: every page is in the menu, every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_page_is_in_the_menu_once() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1].split("\n\n")[0]
    listed = re.findall(r": (\S+\.md)$", menu, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_make_docs_stops_at_a_warning() -> None:
    done = subprocess.run(["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True)
    (build,) = [line for line in done.stdout.splitlines() if "mkdocs build" in line]
    assert "--strict" in build
    assert not {"-q", "--quiet"} & set(build.split())  # MkDocs would not count its warnings


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "WARNING" not in done.stderr
    api = (tmp_path / "api.html").read_text("utf-8")
    assert 'id="mmkv.Stream.ask"' in api
    formulas = (tmp_path / "kernels.html").read_text("utf-8")
    assert "<math" in formulas
    assert "arithmatex" not in formulas
    for page in tmp_path.rglob("*.html"):
        assert not re.findall(r'(?:src|<link[^>]*href)="(?:https?:)?//', page.read_text("utf-8"))
