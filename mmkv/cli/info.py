"""`mmkv info`: versions, devices and what runs where; with a model, what it costs per frame."""

from __future__ import annotations

import json as jsonlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkv.cli import errors, groups, options, session
from mmkv.cli.messages import table
from mmkv.cli.store import describe, lines
from mmkv.config.units import size, took
from mmkv.models.tiny import CHECKPOINT

if TYPE_CHECKING:
    from mmkv.video_lm import VideoLM

PACKAGES = ("mmkv-video", "torch", "transformers", "accelerate", "triton", "av")
PACKED = ((4, 4), (2, 2), (1.5, 2), (1.5, 1.58))  # key and value bits that are shown
OPTIONAL = {  # package: the module it brings, and what is missing without it
    "decord": ("decord", "reading files with decord (pip install 'mmkv-video[decord]')"),
    "gradio": ("gradio", "the browser demo (pip install 'mmkv-video[demo]')"),
    "opencv-python-headless": ("cv2", "webcams (pip install opencv-python-headless)"),
    "scenedetect-headless": (
        "scenedetect",
        "`mmkv caption --scenes` (pip install 'mmkv-video[scenes]')",
    ),
    "ray": ("ray", "`mmkv caption --ray`: several machines (pip install 'mmkv-video[ray]')"),
    "pyarrow": ("pyarrow", "`mmkv caption --format parquet` (pip install pyarrow)"),
}
NO_GPU = {
    True: "torch sees none, so everything runs on the CPU; if this machine has one, its driver "
    "is missing or too old",
    False: "this build of torch is for CPUs only; if this machine has an NVIDIA GPU, install a "
    "CUDA build (https://pytorch.org/get-started/locally)",
}
NO_TRITON = "the cache kernels run in torch on every device (pip install triton)"


def info(
    folder: Annotated[
        str | None, typer.Argument(metavar="DIR", help="A store; show what it holds.")
    ] = None,
    *,
    model: options.Model = None,
    fps: options.Fps = 1.0,
    loading: groups.Loading,
    check: Annotated[
        bool, typer.Option("--check", help="With DIR: read every byte of it.")
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show versions, devices and supported models; with --model, what it costs.

    \b
    Example:
      mmkv info --model Qwen/Qwen3-VL-2B-Instruct --fps 2
      mmkv info my.kv
    """
    if folder is not None:
        held = describe(folder, check=check)
        typer.echo(jsonlib.dumps(held, ensure_ascii=False) if json else lines(held))
        if held["damaged"]:
            raise typer.Exit(errors.EXIT_FAILED)
        return
    if check:
        raise typer.BadParameter("--check is for a store: mmkv info DIR --check")
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in PACKAGES},
        "missing": missing(),
        "devices": devices(),
        "kernels": operations(),
        "families": families(),
    }
    if model is not None:
        found["model"] = cost_of(model, fps, loading)
    typer.echo(jsonlib.dumps(found, ensure_ascii=False) if json else report(found))


def installed(name: str) -> str | None:
    """Return a package's version; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing() -> dict[str, str]:
    """Say what this machine lacks, and what to do where that matters."""
    import torch

    found = {}
    if not torch.cuda.is_available():
        found["GPU"] = NO_GPU[torch.version.cuda is not None or torch.version.hip is not None]
    if platform.system() == "Linux" and find_spec("triton") is None:
        found["triton"] = NO_TRITON
    for name, (module, what) in OPTIONAL.items():
        if find_spec(module) is None:
            found[name] = what
    return found


def operations() -> list[str]:
    """List the operations on the cache that have a Triton kernel beside the one in torch."""
    from mmkv.kernels import dispatch

    folder = Path(str(dispatch.__file__)).parent
    return sorted(part.parent.name for part in folder.glob("*/triton.py"))


def devices() -> list[dict[str, Any]]:
    """List every device torch can use, and what the engine does on it."""
    import torch

    found: list[dict[str, Any]] = [
        {"name": "cpu", "what": f"{os.cpu_count()} cores", "memory": None,
         "dtype": "float32", "runs": kernels("cpu")}
    ]  # fmt: skip
    for index in range(torch.cuda.device_count()):
        props = torch.cuda.get_device_properties(index)
        found.append({"name": f"cuda:{index}", "what": props.name, "memory": props.total_memory,
                      "dtype": "the checkpoint's", "runs": kernels(f"cuda:{index}")})  # fmt: skip
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "what": "Apple GPU (only with --device mps)", "memory": None,
                      "dtype": "the checkpoint's", "runs": kernels("mps")})  # fmt: skip
    return found


def kernels(device: str) -> str:
    """Say what the operations on the cache run in on a device, and why not in Triton."""
    import torch

    from mmkv.kernels.dispatch import why_not

    reason = why_not(torch.device(device))
    if reason is None:
        return "cache kernels in Triton (torch for float64 and unusual head sizes)"
    return (
        f"cache kernels in torch ({reason})"
        if device.startswith("cuda")
        else ("cache kernels in torch")
    )


def families() -> dict[str, list[str]]:
    """List the supported families, each with the architectures that a checkpoint may name."""
    from mmkv.models.registry import FAMILIES

    return {family.family: list(family.architectures) for family in FAMILIES}


def cost_of(name: str, fps: float, loading: groups.Loading) -> dict[str, Any]:
    """Work out what a 1080p video costs with a model, from its configuration alone.

    Args:
        name: a Hub id, a folder, or the bundled model.
        fps: frames per second of video.
        loading: how the model would be loaded; no weights are.

    Returns:
        sizes in bytes, and rates in GB per hour of video.
    """
    import torch
    import transformers
    from accelerate import init_empty_weights

    import mmkv
    from mmkv.models.preprocess import read_preprocess
    from mmkv.models.registry import adapter_for

    session.plain_transformers(bars=False)
    hub = options.given(revision=loading.revision)
    path = str(CHECKPOINT) if name == session.BUNDLED else name
    config = transformers.AutoConfig.from_pretrained(path, **hub)
    _, architecture = adapter_for(config.architectures or [])
    device, dtype = loading.device, loading.dtype
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if dtype != "auto":
        config.dtype = dtype
    elif not on_gpu:
        config.dtype = "float32"
    with init_empty_weights():
        model = getattr(transformers, architecture)._from_config(config, dtype=config.dtype)
    vlm = mmkv.load(
        model=model,
        tokenizer=transformers.AutoTokenizer.from_pretrained(path, **hub),
        preprocess=read_preprocess(path, **hub),
        max_pixels=loading.max_pixels,
    )
    return {
        "name": name,
        "family": vlm.family,
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "weight_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "fps": fps,
        "tokens_per_frame": vlm.tokens_per_frame(),
        "bytes_per_frame": vlm.tokens_per_frame() * vlm.bytes_per_token,
        "gb_per_hour": vlm.gb_per_hour(fps),
        "max_ram": mmkv.CacheConfig().max_ram,
        "packed": packed(vlm, fps),
    }


def packed(vlm: VideoLM, fps: float) -> list[dict[str, Any]]:
    """Measure packed keys and values on a page of noise.

    Args:
        vlm: the model.
        fps: frames per second of video.

    Returns:
        for each setting, its bits per element, and GB per hour of 1080p video.
    """
    import torch

    from mmkv.codecs import bits_per_element, make_codec

    shape = vlm.adapter.shape
    if shape.head_dim % 16:
        return []
    per_frame = round(vlm.tokens_per_frame())
    lengths = [per_frame] * -(-(512 if per_frame >= 128 else 64) // per_frame)
    noise = torch.randn(2, shape.kv_heads, sum(lengths), shape.head_dim)
    elements = vlm.bytes_per_token // torch.empty((), dtype=vlm.dtype).element_size()
    found = []
    for key_bits, value_bits in PACKED:
        codec = make_codec(None, shape, key_bits=key_bits, value_bits=value_bits)
        page = codec.encode(noise[0], noise[1], lengths, 0)
        bits = bits_per_element([(page, noise.numel())])
        hour = vlm.tokens_per_frame() * elements * bits / 8 * fps * 3600 / 1e9
        found.append(
            {
                "key_bits": key_bits,
                "value_bits": value_bits,
                "bits_per_element": bits,
                "gb_per_hour": hour,
            }
        )
    return found


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
        kv = f"{cost['tokens_per_frame']:g} tokens, {size(cost['bytes_per_frame'])}"
        rows += [
            ("", ""),
            (cost["name"], f"{cost['family']}, {cost['dtype']}"),
            ("weights", size(cost["weight_bytes"])),
            ("1080p frame", f"{kv} of keys and values"),
            ("archive", f"{cost['gb_per_hour']:.3g} GB per hour at --fps {cost['fps']:g}"),
        ]
        rows += [
            (
                f"K{row['key_bits']:g}/V{row['value_bits']:g}",
                f"{row['bits_per_element']:.2f} bits per element, "
                f"{row['gb_per_hour']:.3g} GB per hour",
            )
            for row in cost["packed"]
        ]
        if cost["max_ram"]:
            hours = cost["max_ram"] / 1e9 / cost["gb_per_hour"]
            rows.append(("--max-ram", f"{size(cost['max_ram'])} hold {took(3600 * hours)} of it"))
    return table(rows)
