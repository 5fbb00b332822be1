"""How `--help` looks: a usage line for each form of a command, and options by what they are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

SECTIONS = {  # what is not listed is shown under "Options"
    "Model": ("model", "revision", "device", "dtype", "max_pixels"),
    "Watching": ("fps", "duration", "reader"),
    "A stream on disk": ("store", "append", "max_disk", "max_age"),
    "What a question sees": ("since", "until", "window_frames", "recent_frames",
                             "retrieve_frames", "max_ram"),
    "Words of an answer": ("max_new_tokens", "temperature", "top_p", "seed"),
    "Packing earlier frames": ("key_bits", "value_bits", "keep_ratio", "eviction", "merging",
                               "focus"),
    "Output": ("json", "quiet", "debug", "help"),
}  # fmt: skip


def command_with(*forms: str) -> type[TyperCommand]:
    """Make a class of commands that are typed in one of these forms.

    Args:
        forms: what stands behind the command's name, options left out.
    """

    class Formed(TyperCommand):
        """A command whose help shows each form."""

        def format_usage(self, ctx: Any, formatter: Any) -> None:
            """Write a line for each form."""
            for place, form in enumerate(forms):
                prefix = "Usage: " if place == 0 else "       "
                formatter.write_usage(ctx.command_path, f"{form} [OPTIONS]".lstrip(), prefix)

        def format_options(self, ctx: Any, formatter: Any) -> None:
            """Write arguments, then options in sections."""
            arguments = [p for p in self.params if p.param_type_name == "argument"]
            _write(formatter, "Arguments", [(_name(p), p.help or "") for p in arguments])  # type: ignore[attr-defined]
            options = [p for p in self.get_params(ctx) if p.param_type_name == "option"]
            listed = {name: section for section, names in SECTIONS.items() for name in names}
            for section in ("Options", *SECTIONS):
                mine = [p for p in options if listed.get(str(p.name), "Options") == section]
                _write(formatter, section, [r for p in mine if (r := p.get_help_record(ctx))])

    return Formed


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _write(formatter: Any, title: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)
