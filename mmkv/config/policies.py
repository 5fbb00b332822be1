"""Which policies a configuration names: scores, codecs, evictions and mergings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkv.archive.thinning import Thinning
from mmkv.codecs import Codec, make_codec
from mmkv.config.resolved import ResolvedConfig
from mmkv.config.rules import check_keep_ratio
from mmkv.eviction.none import Nothing
from mmkv.eviction.registry import DEFAULT, make_eviction
from mmkv.merging.none import NoMerge
from mmkv.merging.registry import make_merge
from mmkv.models.layers import Shape
from mmkv.retrieval.registry import EXTERNAL, SCORES, UNIFORM

# what selects and shapes a codec; named as in `make_codec`
CODEC_FIELDS = (
    "codec",
    "key_bits",
    "value_bits",
    "group_size",
    "transform",
    "remove_mean",
    "protected_layers",
    "protected_bits",
)

# how a stream is thinned where nothing else is named
UNNAMED: dict[str, Any] = {"keep_ratio": 1.0, "eviction": DEFAULT, "merging": NoMerge.name}


def check_thinning(keep_ratio: object, eviction: object, merging: object) -> None:
    """Raise ValueError for a wrong ratio, an unknown policy, or a contradiction; None is unset."""
    if keep_ratio is not None:
        check_keep_ratio("keep_ratio", keep_ratio)
    if merging is not None:
        make_merge(merging)
    if eviction is None:
        return
    if make_eviction(eviction).name == Nothing.name and keep_ratio not in (None, 1):
        raise ValueError(
            f"keep_ratio={keep_ratio!r} evicts tokens, but eviction='none' keeps all; leave "
            "keep_ratio out, or name a policy"
        )


def make_thinning(config: ResolvedConfig) -> Thinning | None:
    """Return how a configuration thins the archived copy; None: not at all."""
    if config.keep_ratio == 1:
        return None
    policy, merge = make_eviction(config.eviction), make_merge(config.merging)
    return Thinning(policy, merge, config.keep_ratio)


def check_score(name: str, encoder: object) -> None:
    """Raise ValueError if there is no such score, or it does not fit the encoder."""
    SCORES.check(name, EXTERNAL, UNIFORM)
    if name == EXTERNAL and encoder is None:
        raise ValueError(
            "score='external' needs encoder=, a text-image model: a Hub id, a local folder, or a "
            "mmkv.TextImage"
        )
    if name != EXTERNAL and encoder is not None:
        raise ValueError(f"encoder={encoder!r} is for score='external'; score is {name!r}")


def codec_of(
    config: Any, shape: Shape, dtype: torch.dtype, key_weights: Tensor | None = None
) -> Codec:
    """Make the codec of a configuration.

    Args:
        config: a `CacheConfig`, or a `ResolvedConfig`.
        shape: of the language model.
        dtype: of its keys and values.
        key_weights: by which its keys are had from its values; see `Fp16`.

    Raises:
        ValueError: a setting is not allowed.
    """
    named = {name: getattr(config, name) for name in CODEC_FIELDS}
    return make_codec(dtype=dtype, shape=shape, key_weights=key_weights, **named)
