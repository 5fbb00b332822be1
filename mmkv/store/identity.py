"""What has to match for a store's keys and values to mean the same again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmkv.store.errors import StoreMismatchError

if TYPE_CHECKING:
    from mmkv.models.base import VideoModel

_SAMPLE = 256  # elements of each sampled weight
_LAYERS = 4
_NAMED = ("self_attn.k_proj.weight", "self_attn.v_proj.weight", "mlp.down_proj.weight")
_IGNORED = ("attn_implementation", "transformers_version", "architectures", "dtype", "torch_dtype")


def identity(adapter: VideoModel) -> dict[str, Any]:
    """The model in a few hundred bytes: architecture, configuration, a sample of its weights, RoPE,
    and how frames are prepared for it.
    """
    text = adapter.text_config
    prepared = adapter.preprocess
    return {
        "family": adapter.family,
        "architecture": type(adapter.model).__name__,
        "config": dict(_flat(adapter.config.to_dict())),
        "weights": fingerprint(adapter),
        "rope": dict(_flat(getattr(text, "rope_parameters", None) or {})),
        "preprocess": {
            "mean": list(prepared.mean),
            "std": list(prepared.std),
            "rescale": prepared.rescale,
            "resample": str(prepared.resample),
        },
    }


def fingerprint(adapter: VideoModel) -> str:
    """SHA-256 over samples of weights that every fine-tuning changes.

    It does not depend on their dtype where that is at least 16 bits wide, and does not cover all
    weights, which would take seconds.
    """
    layers = adapter.language_model.layers
    places = sorted({round(i * (len(layers) - 1) / (_LAYERS - 1)) for i in range(_LAYERS)})
    tensors = [adapter.language_model.embed_tokens.weight]
    for place in places:
        tensors += _weights(layers[place])
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(_sample(tensor))
    return digest.hexdigest()


def _weights(layer: Any) -> list[Tensor]:
    """Return weights of a layer that stand for all of them."""
    held = dict(layer.named_parameters())
    if all(name in held for name in _NAMED):
        return [held[name] for name in _NAMED]
    # layers of another kind, or with experts
    return [held[name] for name in sorted(held) if held[name].ndim > 1]


def refuse_other(stored: Mapping[str, Any], now: Mapping[str, Any], store: str) -> None:
    """Compare the model that made a store with the one that is to read it.

    Raises:
        StoreMismatchError: they differ; the message says how.
    """
    for part in ("family", "architecture", "config", "rope", "preprocess", "weights"):
        differing = _differences(part, stored.get(part), now[part])
        if differing:
            raise StoreMismatchError(
                f"the store {store} was made by another model: {'; '.join(differing[:4])}"
                f"{'; and more' if len(differing) > 4 else ''}; open it with the model that made "
                "it"
            )


def _differences(part: str, stored: Any, now: Any) -> list[str]:
    if part == "weights":
        if stored == now or "offloaded" in (stored, now):
            return []
        return ["same configuration, but its weights differ"]
    if not isinstance(now, Mapping):
        return [] if stored == now else [f"{part} is {stored!r} in the store, here {now!r}"]
    stored = stored if isinstance(stored, Mapping) else {}
    # what only one of them has is a setting that another version of transformers added or dropped
    return [
        f"{part} {name} is {stored.get(name)!r} in the store, here {now.get(name)!r}"
        for name in sorted({*stored} & {*now})
        if stored[name] != now[name]
    ]


def _flat(nested: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of `a.b` and value, without what does not affect keys and values."""
    for key, value in nested.items():
        name = str(key)
        if name in _IGNORED or name.startswith("_"):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{under}{name}.")
        else:
            yield f"{under}{name}", _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _sample(tensor: Tensor) -> bytes:
    flat = tensor.detach().flatten()
    if flat.device.type == "meta":
        return b"offloaded"
    step = max(1, flat.numel() // _SAMPLE)
    some = flat[::step][:_SAMPLE].cpu()
    if some.is_floating_point():
        some = some.float().bfloat16()
    return some.contiguous().view(torch.uint8).numpy().tobytes()
