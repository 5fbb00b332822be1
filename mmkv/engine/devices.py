"""Which devices a model's layers are on."""

from __future__ import annotations

import torch

from mmkv.models.base import VideoModel


def layer_devices(adapter: VideoModel) -> list[torch.device]:
    """Return the device of each global layer's keys, also where accelerate offloads the weights."""
    return [layer_device(adapter, index) for index in adapter.global_layers]


def layer_device(adapter: VideoModel, index: int) -> torch.device:
    """Return the device of one layer, by its number in the decoder."""
    layer = adapter.language_model.layers[index]
    device = next(layer.parameters()).device
    hook = getattr(layer, "_hf_hook", None)  # none where a model has no weights at all
    if device.type == "meta" and hook is not None:
        device = torch.device(hook.execution_device)
    return torch.device(device)
