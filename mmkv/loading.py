"""Loading a model: the bundled one, a folder, a Hub id, or one already in memory."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmkv.engine.loading_bars import hidden_bars
from mmkv.models.checkpoint import CheckpointFiles
from mmkv.models.preprocess import Preprocess, read_preprocess
from mmkv.models.registry import adapter_for
from mmkv.video_lm import VideoLM

TINY = "mmkv-tiny"
_HUB = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")


def load(
    name: str | None = None,
    *,
    model: nn.Module | None = None,
    tokenizer: Any = None,
    preprocess: Preprocess | dict[str, Any] | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    max_pixels: int | None = None,
    progress: bool = False,
    **options: Any,
) -> VideoLM:
    """Load a video LLM.

    Args:
        name: "mmkv-tiny" (bundled), a Hub id, or a folder.
        model: instead of a name, a transformers model.
        tokenizer: that model's.
        preprocess: that model's preprocessor configuration; None: read it from its checkpoint.
        device: "auto" (a GPU if there is one), "cpu", "cuda:1", … ; for several devices pass
            `device_map`, which is passed to `from_pretrained`.
        dtype: "auto" is the checkpoint's on a GPU and float32 on a CPU.
        max_pixels: limits a frame's pixels, and so its tokens; None keeps a 1080p frame under
            about 200 tokens, where the checkpoint has not fixed the size.
        progress: show the bar of transformers while weights are loaded. Downloads show the Hub's
            bars either way (`HF_HUB_DISABLE_PROGRESS_BARS=1` hides them).
        options: passed to `from_pretrained`.

    Raises:
        ValueError: the architecture is not supported, or arguments contradict each other.
        OSError: there is no such checkpoint, or a folder has no config.json.
    """
    if options.pop("trust_remote_code", False):
        raise ValueError(
            "trust_remote_code is refused: mmkv only runs models through the classes that come "
            "with transformers"
        )
    if max_pixels is not None and (isinstance(max_pixels, bool) or int(max_pixels) <= 0):
        raise ValueError(f"max_pixels={max_pixels!r} is not allowed; use pixels, 1 or more")
    if (name is None) == (model is None):
        raise ValueError("pass either a name (load('mmkv-tiny')) or model= and tokenizer=")
    if model is not None:
        if tokenizer is None:
            raise ValueError("model= was given without tokenizer=; pass both")
        if device != "auto" or dtype != "auto" or options:
            given = [n for n, v in (("device", device), ("dtype", dtype)) if v != "auto"]
            raise ValueError(
                f"{', '.join([*given, *options])} cannot change a model that is already loaded; "
                "load it that way, or pass a name"
            )
        family, _ = adapter_for([type(model).__name__])
        where = getattr(model, "name_or_path", "") or type(model).__name__
        settings = preprocess if preprocess is not None else read_preprocess(where)
        if not isinstance(settings, Preprocess):
            settings = Preprocess.from_dict(settings)
        return VideoLM(family(model.eval(), tokenizer, settings, max_pixels), where)
    assert name is not None
    if tokenizer is not None or preprocess is not None:
        raise ValueError(f"tokenizer= and preprocess= go with model=; {name!r} brings its own")
    with nullcontext() if progress else hidden_bars():
        return _from_pretrained(name, device, dtype, max_pixels, options)


def _from_pretrained(
    name: str,
    device: str | torch.device,
    dtype: str | torch.dtype,
    max_pixels: int | None,
    options: dict[str, Any],
) -> VideoLM:
    import transformers

    path = str(files("mmkv").joinpath("models/tiny/checkpoint")) if name == TINY else name
    _check_folder(path, options.get("subfolder") or "")
    hub = {key: options[key] for key in _HUB if key in options}
    # the file itself: AutoConfig knows fewer architectures, and may offer to run foreign code
    config, _ = transformers.PretrainedConfig.get_config_dict(path, **hub)
    family, architecture = adapter_for(
        config.get("architectures") or [], own_code=bool(config.get("auto_map"))
    )
    target = _device(device)
    if "device_map" not in options:
        options["device_map"] = {"": target}
    if dtype == "auto" and target.type == "cpu" and options["device_map"] == {"": target}:
        dtype = torch.float32
    loaded = getattr(transformers, architecture).from_pretrained(path, dtype=dtype, **options)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False, **hub)
    if not tokenizer.chat_template:
        tokenizer.chat_template = _legacy_template(path, hub)
    settings = read_preprocess(path, **hub)
    return VideoLM(family(loaded.eval(), tokenizer, settings, max_pixels), name)


def _check_folder(path: str, subfolder: str) -> None:
    """Find out that what is there under a local name is a model's folder.

    Raises:
        ValueError: it is a file, or its configuration cannot be read.
        FileNotFoundError: the folder has no configuration.
    """
    if Path(path).is_file():
        raise ValueError(
            f"{path} is a file; give the folder of a checkpoint, or a Hugging Face id such as "
            "Qwen/Qwen3-VL-2B-Instruct"
        )
    if Path(path).is_dir():
        CheckpointFiles(str(Path(path, subfolder))).config()


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not known; use 'auto', 'cpu' or 'cuda'") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r} needs a CUDA GPU and a CUDA build of torch; none found"
        )
    return chosen


def _legacy_template(path: str, hub: dict[str, Any]) -> str | None:
    import json

    from transformers.utils import cached_file

    found = cached_file(
        path, "chat_template.json", _raise_exceptions_for_missing_entries=False, **hub
    )
    return (
        None
        if found is None
        else json.loads(Path(found).read_text(encoding="utf-8")).get("chat_template")
    )
