"""`mmkv info`: versions, devices and what runs where; with a model, what it costs per frame."""

from __future__ import annotations

import json as jsonlib
import platform
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from mmkv.cli import arguments, errors, groups, machine, options, session
from mmkv.cli.messages import table
from mmkv.cli.store import describe, lines
from mmkv.config.units import counted, size, took
from mmkv.models.tiny import CHECKPOINT

TIME = {
    "text": "in text before it",
    "position": "by the position of its tokens",
    "none": "not at all, only their order",
}


def info(
    folder: Annotated[
        str | None, typer.Argument(metavar="DIR", help="A store; show what it holds.")
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            envvar="MMKV_MODEL",
            metavar="ID",
            show_default=False,
            help="Show what this model costs: a Hugging Face id, or a local folder.",
        ),
    ] = None,
    fps: options.Fps = 1.0,
    loading: groups.Loading,
    check: Annotated[
        bool, typer.Option("--check", help="With DIR: read every byte of it.")
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show what is installed here, what a model costs, or what a store holds.

    \b
    Example:
      mmkv info --model Qwen/Qwen3-VL-2B-Instruct --fps 2
      mmkv info my.kv
    """
    if folder is not None:
        arguments.check_store(folder)
        held = describe(folder, check=check)
        typer.echo(jsonlib.dumps(held, ensure_ascii=False) if json else lines(held))
        if held["damaged"]:
            raise typer.Exit(errors.EXIT_FAILED)
        return
    if check:
        raise typer.BadParameter("--check is for a store: mmkv info DIR --check")
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": {name: machine.installed(name) for name in machine.PACKAGES},
        "missing": machine.missing(),
        "devices": machine.devices(),
        "kernels": machine.operations(),
        "families": families(),
    }
    if model is not None:
        found["model"] = cost_of(model, fps, loading)
    typer.echo(jsonlib.dumps(found, ensure_ascii=False) if json else report(found))


def families() -> dict[str, list[str]]:
    """List the supported families, each with the architectures that a checkpoint may name."""
    from mmkv.models.registry import FAMILIES

    return {family.family: list(family.architectures) for family in FAMILIES}


def cost_of(name: str, fps: float, loading: groups.Loading) -> dict[str, Any]:
    """Work out what a 1080p video costs with a model, as it would be loaded on this machine.

    Args:
        name: a Hub id, a folder, or the bundled model.
        fps: frames per second of video.
        loading: how the model would be loaded; it is not.

    Returns:
        see `mmkv.cli.cost.describe`.
    """
    from mmkv.cli import cost

    path = str(CHECKPOINT) if name == session.BUNDLED else name
    device, dtype = loading.device, loading.dtype
    if dtype == "auto" and not device.startswith(("cuda", "mps")):
        on_gpu = device == "auto" and machine.has_cuda()
        dtype = "auto" if on_gpu else "float32"
    session.check_hub(path)
    with nullcontext() if Path(path).is_dir() else session.plain_hub():
        return cost.cost_of(
            name,
            fps,
            path=path,
            revision=loading.revision,
            max_pixels=loading.max_pixels,
            dtype=None if dtype == "auto" else dtype,
        )


def report(found: dict[str, Any]) -> str:
    """Format everything found, one line each."""
    rows = [("python", found["python"])]
    rows += [(name, number or "not installed") for name, number in found["packages"].items()]
    for device in found["devices"]:
        memory = f", {size(device['memory'])}" if device["memory"] else ""
        runs = f"{device['runs']}; dtype auto: {device['dtype']}"
        rows.append((device["name"], f"{device['what']}{memory}; {runs}"))
    rows.append(("kernels", ", ".join(name.replace("_", " ") for name in found["kernels"])))
    rows += [("models", f"{name} ({', '.join(of)})") for name, of in found["families"].items()]
    rows += [("missing", f"{name}: {what}") for name, what in found["missing"].items()]
    if cost := found.get("model"):
        rows += [("", ""), *model_rows(cost)]
    return table(rows)


def model_rows(cost: dict[str, Any]) -> list[tuple[str, str]]:
    """Format what a model costs, one line each."""
    fp16, layers, patch = cost["fp16"], cost["layers"], cost["frames_per_block"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in layers.items())
    together = "each frame by itself" if patch == 1 else f"{patch} frames together"
    weights = cost["weight_bytes"]
    tokens = f"{cost['tokens_per_frame']:g} tokens"
    if not cost["text_counted"]:
        tokens += " without the text around it (there is no tokenizer.json)"
    rows = [
        (cost["name"], f"{cost['family']}, {cost['dtype']}"),
        ("layers", f"{counted(sum(layers.values()), 'decoder layer')}: {kinds}"),
        ("frames", f"{together}; the model receives their times {TIME[cost['time']]}"),
        ("weights", f"{size(weights)} in the checkpoint" if weights else
         "not known from the configuration"),
        ("1080p frame", tokens),
        ("token", f"{size(fp16['bytes_per_token'])} of keys and values in fp16"),
        ("carried", carried(cost)),
        (f"at --fps {cost['fps']:g}", "earlier frames, in host memory or on disk:"),
    ]  # fmt: skip
    if cost["dtype"] not in ("float16", "bfloat16"):
        rows.append((f"  {cost['dtype']}", per(cost)))
    rows.append(("  fp16", per(fp16)))
    rows += [
        (
            f"  K{row['key_bits']:g}/V{row['value_bits']:g}",
            f"{row['gb_per_hour']:.3g} GB per hour, {row['bits_per_element']:.2f} bits per element",
        )
        for row in cost["packed"]
    ]
    if cost["max_ram"]:
        hours = cost["max_ram"] / 1e9 / cost["gb_per_hour"]
        held = f"{size(cost['max_ram'])} hold {took(3600 * hours)} in {cost['dtype']}"
        rows.append(("--max-ram", held))
    return rows


def per(cost: dict[str, Any]) -> str:
    """Format a rate."""
    return f"{cost['gb_per_hour']:.3g} GB per hour, {size(cost['bytes_per_frame'])} per frame"


def carried(cost: dict[str, Any]) -> str:
    """Format the state that does not grow."""
    state = cost["carried"]
    if state is None:
        return "not known for this kind of layer"
    if not state["total"]:
        return "nothing: every layer attends to all frames"
    parts = [f"{size(n)} {name}" for name, n in state.items() if n and name != "total"]
    return f"{size(state['total'])}, however long the video ({', '.join(parts)})"
