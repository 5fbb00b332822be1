"""Options that several commands share are written once, and reach each command."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mmkv.cli import groups, options
from mmkv.cli.app import app
from mmkv.cli.ask import ask
from mmkv.cli.caption import caption
from mmkv.cli.demo import demo
from mmkv.cli.encode import encode
from mmkv.cli.find import find
from mmkv.cli.info import info

OWN = ["--max-pixels", "9", "--device", "cpu", "--dtype", "float32", "--revision", "main"]


def run(*arguments: str) -> list[dict[str, Any]]:
    """What a command with groups is called with."""
    calls: list[dict[str, Any]] = []

    def command(
        *, quiet: options.Quiet = False, packing: groups.Packing, loading: groups.Loading
    ) -> None:
        calls.append({"quiet": quiet, "packing": packing, "loading": loading})

    small = typer.Typer()
    small.command()(groups.expanded(command))
    assert CliRunner().invoke(small, arguments).exit_code == 0
    return calls


def test_a_groups_options_reach_the_command_as_one() -> None:
    (call,) = run("--key-bits", "2", *OWN, "-q")
    assert call["quiet"] is True
    assert call["packing"] == groups.Packing(key_bits=2.0)
    assert call["loading"] == groups.Loading(9, "cpu", "float32", "main")


def test_only_what_was_named_is_given_to_the_engine() -> None:
    (call,) = run("--keep-ratio", "1")
    assert call["packing"].given == {"keep_ratio": 1.0}
    assert call["loading"].given == {"device": "auto", "dtype": "auto"}


@pytest.mark.parametrize("command", [ask, caption, demo, encode, find, info])
def test_every_command_with_a_model_loads_it_by_the_same_options(command: Any) -> None:
    text = CliRunner().invoke(app, [command.__name__, "--help"]).output
    for option in OWN[::2]:
        assert f"\n  {option} " in text
