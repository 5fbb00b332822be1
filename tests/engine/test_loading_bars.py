"""Loading shows no bar of transformers, and leaves the process's settings as they were.

Tried: the bundled model and one of every way to load (a name, a folder), a bar of another thread
while a model is loaded, two threads that load at once, somebody else's hook before and during a
load, a load that fails, and `progress=True`.
"""

from __future__ import annotations

import logging as pylogging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging
from waiting import finish

import mmkv
from mmkv.engine.loading_bars import hidden_bars
from mmkv.models.tiny import CHECKPOINT


class Shown:
    """A hook that notes which bars are begun, as other code may have one."""

    def __init__(self) -> None:
        self.bars: list[str] = []

    def __call__(self, factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.bars.append(str(kwargs.get("desc")))
        return logging.EmptyTqdm(*args, **kwargs)


@pytest.fixture
def shown() -> Any:
    hook = Shown()
    before = logging.set_tqdm_hook(hook)
    yield hook
    assert logging.set_tqdm_hook(before) is hook  # nobody's hook was lost


def begin_a_bar() -> None:
    for _ in logging.tqdm([1], desc="another"):
        pass


@pytest.mark.parametrize("name", ["mmkv-tiny", str(CHECKPOINT)])
def test_a_load_in_a_new_process_prints_nothing_and_changes_no_setting(name: str) -> None:
    code = (
        "import logging, mmkv\n"
        "from transformers.utils import logging as theirs\n"
        "from huggingface_hub.utils import are_progress_bars_disabled\n"
        "def state(): return (theirs.is_progress_bar_enabled(), are_progress_bars_disabled(),\n"
        "    theirs.get_verbosity(), theirs._tqdm_hook, logging.getLogger().handlers[:])\n"
        "before = state()\n"
        f"vlm = mmkv.load({name!r})\n"
        "assert state() == before, (before, state())\n"
        "for _ in theirs.tqdm([1], desc='another'): pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "Loading" not in done.stderr
    assert "another" in done.stderr


def test_a_bar_is_shown_to_who_asks(shown: Shown) -> None:
    mmkv.load("mmkv-tiny")
    assert shown.bars == []
    mmkv.load("mmkv-tiny", progress=True)
    assert shown.bars == ["Loading weights"]


def test_another_threads_bar_is_shown_while_a_model_is_loaded(shown: Shown) -> None:
    with hidden_bars():
        begin_a_bar()
        thread = threading.Thread(target=begin_a_bar)
        thread.start()
        finish(thread)
        assert shown.bars == ["another"]


def test_two_threads_load_at_once_and_the_last_restores_the_hook(shown: Shown) -> None:
    first_in, first_out = threading.Event(), threading.Event()

    def first() -> None:
        with hidden_bars():
            first_in.set()
            assert first_out.wait(60)
            begin_a_bar()

    thread = threading.Thread(target=first)
    thread.start()
    assert first_in.wait(60)
    with hidden_bars():  # begins later, ends earlier
        begin_a_bar()
    begin_a_bar()
    first_out.set()
    finish(thread)
    assert shown.bars == ["another"]


def test_a_hook_that_others_set_meanwhile_stays_theirs(shown: Shown) -> None:
    other = Shown()
    with hidden_bars():
        ours = logging.set_tqdm_hook(other)
    begin_a_bar()
    assert (other.bars, shown.bars) == (["another"], [])
    assert logging.set_tqdm_hook(ours) is other  # they end, and restore what they found
    begin_a_bar()
    assert shown.bars == ["another"]
    with hidden_bars():
        begin_a_bar()
    begin_a_bar()
    assert shown.bars == ["another", "another"]


def test_a_load_that_fails_restores_the_hook(shown: Shown, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        mmkv.load(str(tmp_path))
    begin_a_bar()
    assert shown.bars == ["another"]


def test_a_load_logs_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    theirs = pylogging.getLogger("transformers")
    theirs.addHandler(caplog.handler)
    try:
        mmkv.load("mmkv-tiny")
    finally:
        theirs.removeHandler(caplog.handler)
    assert [record.message for record in caplog.records] == []
