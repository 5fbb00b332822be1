"""Options that belong together: a command takes a group as one parameter.

Typer reads a command's signature; `expanded` puts a group's options there, one by one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from mmkv.cli import options


@dataclass(frozen=True, slots=True)
class Group:
    """Base class of groups, whose fields are options with their defaults."""

    @property
    def given(self) -> dict[str, Any]:
        """The options by name that have a value."""
        return options.given(**{f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True, slots=True)
class Loading(Group):
    """How a model is loaded; the options' help says what each field is."""

    max_pixels: options.MaxPixels = None
    device: options.Device = "auto"
    dtype: options.Dtype = "auto"
    revision: options.Revision = None


@dataclass(frozen=True, slots=True)
class Watching(Group):
    """How a source is watched; the options' help says what each field is."""

    fps: options.Fps = 1.0
    duration: options.Duration = None
    live: options.Live = None
    reader: options.Reader = "auto"


@dataclass(frozen=True, slots=True)
class Memory(Group):
    """How much of a stream a question can see; the options' help says what each field is."""

    window_frames: options.Window = None
    retrieve_frames: options.Retrieve = None
    max_ram: options.MaxRam = None


@dataclass(frozen=True, slots=True)
class Packing(Group):
    """How earlier frames are packed and thinned; the options' help says what each field is."""

    key_bits: options.KeyBits = None
    value_bits: options.ValueBits = None
    keep_ratio: options.KeepRatio = None
    eviction: options.Eviction = None
    merging: options.Merging = None
    focus: options.Focus = None


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command for Typer: every option of its groups becomes a parameter."""
    hints = get_type_hints(command, include_extras=True)
    groups = {
        n: hint for n, hint in hints.items() if inspect.isclass(hint) and issubclass(hint, Group)
    }
    parameters = list(_parameters(command, hints, groups))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _parameters(
    command: Callable[..., None], hints: dict[str, Any], groups: dict[str, type[Group]]
) -> Iterator[inspect.Parameter]:
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            yield parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        own = get_type_hints(groups[name], include_extras=True)
        for field in fields(groups[name]):
            yield inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=own[field.name],
            )
