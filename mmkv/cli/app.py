"""Entry point: the command line is parsed here, and every command is one file beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from mmkv import __version__
from mmkv.cli import errors, groups, usage
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


# what `mmkv --help` says of each, and the forms in which it is typed
COMMANDS: dict[Callable[..., None], tuple[str, tuple[str, ...]]] = {
    ask: (
        "Watch a video and answer questions about it.",
        ("VIDEO QUESTION...", "--store DIR QUESTION...", "sample"),
    ),
    caption: ("Caption many videos, stretch by stretch.", ("VIDEO...", "--list FILE")),
    encode: (
        "Watch without asking, to keep a video in a store.",
        ("VIDEO...", "VIDEO... --store DIR"),
    ),
    find: ("Find when something is seen in a video.", ("VIDEO TEXT", "--store DIR TEXT")),
    demo: ("Ask about videos in the browser.", ("",)),
    info: ("Show versions, a model's costs, or a store.", ("", "--model ID", "DIR")),
    rm: ("Remove a store.", ("DIR",)),
}

for command, (short, forms) in COMMANDS.items():
    kind = usage.command_with(*forms)
    app.command(cls=kind, short_help=short)(errors.guarded(groups.expanded(command)))


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
