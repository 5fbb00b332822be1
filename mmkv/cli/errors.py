"""What goes wrong on the command line, as one sentence and a next step instead of a traceback."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import typer

from mmkv.cli.messages import plain, say

EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED, EXIT_PIPE = 1, 2, 130, 141


class CommandError(Exception):
    """A user's error, already put into words."""


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command so that what it raises becomes one line on stderr and an exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with plain(quiet=bool(kwargs.get("quiet"))):
                command(*args, **kwargs)
                sys.stdout.flush()
        except typer.Exit:
            raise
        except BrokenPipeError as error:  # nobody reads our output any more: nobody to report to
            give_up_output()
            raise typer.Exit(EXIT_PIPE) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(stopped()) from error
        except Exception as error:
            if is_usage(error):
                raise
            if kwargs.get("debug"):
                traceback.print_exc()
            say("error", in_words(error, model=kwargs.get("model")))
            try:
                sys.stdout.flush()
            except OSError:  # otherwise Python tries once more when it ends, and complains
                give_up_output()
            raise typer.Exit(EXIT_FAILED) from error

    return run


def give_up_output() -> None:
    """Discard what stdout could not take, and everything after it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stopped() -> int:
    """Report that Ctrl-C was pressed; returns the exit code."""
    typer.echo("stopped", err=True)
    return EXIT_STOPPED


def is_usage(error: BaseException) -> bool:
    """Return whether the parser raised it (its classes have moved between typer's versions)."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def usage(error: Any) -> int:
    """Report an error of the command line, as the parser raised it; returns the exit code."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message(), err=True)
        return EXIT_USAGE
    command = context.command_path if context else "mmkv"
    text = error.format_message().rstrip(".").removeprefix("Invalid value: ")
    if text.startswith("No such command"):
        text += "; to ask about a video: mmkv ask VIDEO 'what happens?'"
    say("error", f"{text} (see `{command} --help`)")
    return EXIT_USAGE


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, then what caused it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


HUB = {  # what the Hub's client says, by class name: it need not be imported to be recognised
    "GatedRepoError": "model {model} is gated: accept its terms on its page on the Hugging Face "
    "Hub, then log in with `hf auth login`",
    "RepositoryNotFoundError": "there is no model {model} on the Hugging Face Hub (a private one "
    "needs `hf auth login`); give an id such as Qwen/Qwen3-VL-2B-Instruct, or a local folder",
    "RevisionNotFoundError": "model {model} has no such revision; leave --revision out for the "
    "newest one",
    "HFValidationError": "{model} is neither a local folder nor a Hugging Face id; give an id such "
    "as Qwen/Qwen3-VL-2B-Instruct, or a local folder",
    "OfflineModeIsEnabled": "model {model} is not on this machine, and offline mode is on; unset "
    "HF_HUB_OFFLINE, or give a local folder",
    "LocalEntryNotFoundError": "model {model} is not on this machine, and the Hugging Face Hub "
    "cannot be reached; check the network, or give a local folder",
    "ConnectError": "model {model} is not on this machine, and the Hugging Face Hub cannot be "
    "reached; check the network, or give a local folder",
}
MEMORY = (
    "the GPU ran out of memory; try a smaller --max-pixels, --window-frames or --retrieve-frames, "
    "or --device cpu"
)


def in_words(error: BaseException, model: str | None = None) -> str:
    """Put an error into one sentence and, where there is one, a next step.

    Args:
        error: any error.
        model: the model that was named, for errors of the Hub.
    """
    name = type(error).__name__
    if isinstance(error, CommandError):
        return str(error)
    if name == "OutOfMemoryError" or "CUDA out of memory" in str(error):
        return MEMORY
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller --max-pixels, --window-frames or model"
    known = {type(cause).__name__ for cause in chain(error)}
    if model and isinstance(error, (OSError, ValueError)):
        for kind, text in HUB.items():
            if kind in known:
                return text.format(model=model)
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; install what is missing with pip"
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename}: no such file or folder"
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename}: permission denied"
    if isinstance(error, (OSError, ValueError, ImportError)) or name == "VideoError":
        return str(error) or name
    return f"{name}: {error} (unexpected: --debug shows where; please report it)"
