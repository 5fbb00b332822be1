"""How the past is stored: codecs behind one interface, chosen by name or by bits.

A new codec in five steps: copy the file nearest to it; name the class and give it `name`; write
`encode_layers`, `decode`, `split` and `spec`; add its line in `registry.py`; run `tests/codecs`,
which tries every codec of the registry.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmkv.codecs.base import Codec, PackedLayer, Part, bits_per_element
    from mmkv.codecs.registry import CODECS, from_spec, make_codec

__all__ = ["CODECS", "Codec", "PackedLayer", "Part", "bits_per_element", "from_spec", "make_codec"]

_WHERE = {
    "CODECS": "registry",
    "Codec": "base",
    "PackedLayer": "base",
    "Part": "base",
    "bits_per_element": "base",
    "from_spec": "registry",
    "make_codec": "registry",
}


def __getattr__(name: str) -> Any:
    # codecs import torch, which takes seconds; what they take can be told without (`sizes.py`)
    if name in _WHERE:
        return getattr(import_module(f"mmkv.codecs.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'mmkv.codecs' has no attribute {name!r}")
