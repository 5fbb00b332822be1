"""Entry point: the command line is parsed here, and every command is one file beside it."""

from __future__ import annotations

from typing import Annotated

import typer

from mmkv import __version__
from mmkv.cli import errors, groups
from mmkv.cli.ask import ask
from mmkv.cli.caption import caption
from mmkv.cli.demo import demo
from mmkv.cli.encode import encode
from mmkv.cli.find import find
from mmkv.cli.info import info
from mmkv.cli.store import rm

app = typer.Typer(
    name="mmkv",
    help="Watch a video forever in bounded GPU memory, and ask it anything at any time.",
    epilog="\b\nExample:\n"
    "  mmkv ask my.mp4 'When does the door open?' --model Qwen/Qwen3-VL-2B-Instruct",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def show_version(wanted: bool) -> None:
    """Print the version, and end the command, where `wanted`.

    Raises:
        typer.Exit: after printing.
    """
    if wanted:
        typer.echo(f"mmkv {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take the options that come before a command."""


for command in (ask, caption, encode, find, demo, info, rm):
    app.command()(errors.guarded(groups.expanded(command)))


def run() -> int:
    """Run the process's command line.

    Returns:
        the exit code.
    """
    try:
        code = app(prog_name="mmkv", standalone_mode=False)
    except typer.Abort:
        return errors.stopped()
    except Exception as error:
        if not errors.is_usage(error):
            raise
        return errors.usage(error)
    return code if isinstance(code, int) else 0
