"""What the layers of a decoder keep of the past, read from a configuration alone.

`global` layers attend to everything: their keys and values are archived and retrieved. The others
keep a state of constant size: `local` layers a window of their own, `carry` layers a recurrent or
convolution state, and `reuse` layers nothing, since they read another layer's keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["global", "local", "carry", "reuse"]

# transformers' names of layer types
_KINDS: dict[str, Kind] = {
    "full_attention": "global",
    "sliding_attention": "local",
    "linear_attention": "carry",
    "conv": "carry",
    "mamba": "carry",
}

# sizes of a layer of Gated DeltaNet
_DELTA = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim")


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer.

    Attributes:
        kind: what it keeps of the past.
        type: transformers' name of its type, which also chooses its rotary where types have their
            own.
        heads: query heads; 0 in a `carry` layer, as are the other sizes.
        kv_heads: key-value heads.
        head_dim: elements of one head.
        window: of a `local` layer: how many tokens a token sees, itself included.
        owner: of a `reuse` layer: the number of the layer whose keys and values it reads.
        keys_are_values: whether its keys before RoPE are its values times one weight per channel.
    """

    kind: Kind
    type: str = "full_attention"
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    window: int = 0
    owner: int = -1
    keys_are_values: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the layers that the archive is built from: the global ones.

    Attributes:
        layers: how many there are.
        heads: query heads.
        kv_heads: key-value heads.
        head_dim: elements of one head.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def elements(self) -> int:
        """Elements of one token's keys and values, all of these layers."""
        return self.layers * 2 * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Carried:
    """Bytes of the state that all layers but the global ones keep, however long the stream.

    Attributes:
        recurrent: states of recurrent layers, in float32.
        convolution: the last inputs of their convolutions.
        windows: keys and values of the windows of `local` layers.
    """

    recurrent: int
    convolution: int
    windows: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.recurrent + self.convolution + self.windows


def read_layers(text: Any) -> tuple[Layer, ...]:
    """Read a decoder's layers from its configuration.

    Args:
        text: the language model's part of a transformers configuration, or of a `ConfigFile`.

    Raises:
        ValueError: a layer is of a type that the engine does not know.
    """
    count = text.num_hidden_layers
    types = list(getattr(text, "layer_types", None) or ["full_attention"] * count)[:count]
    own = getattr(text, "per_layer_config", None)  # where sizes differ between layers
    modes = getattr(text, "kv_sharing_modes", None) or _sharing_modes(text, types)
    same = bool(getattr(text, "attention_k_eq_v", False))
    layers = []
    for index, name in enumerate(types):
        if name not in _KINDS:
            raise ValueError(
                f"the model has layers of the type {name!r}, which mmkv cannot stream; "
                f"supported are {', '.join(_KINDS)}"
            )
        kind = _KINDS[name]
        if kind == "carry":
            layers.append(Layer(kind, name))
            continue
        sizes = text if own is None else own[index]
        heads = sizes.num_attention_heads
        dim = getattr(sizes, "head_dim", None) or sizes.hidden_size // heads
        window, owner = int(text.sliding_window) if kind == "local" else 0, -1
        if modes[index] == "reuse":
            kind, owner = "reuse", _owner(index, types, modes)
        layers.append(
            Layer(
                kind,
                name,
                heads,
                sizes.num_key_value_heads,
                dim,
                window,
                owner,
                keys_are_values=same and kind == "global",
            )
        )
    return tuple(layers)


def _sharing_modes(text: Any, types: Sequence[str]) -> list[str | None]:
    """Work out which layers share keys and values, as older transformers do in the layers."""
    own = len(types) - (getattr(text, "num_kv_shared_layers", None) or 0)
    last = {name: index for index, name in enumerate(types[:own])}
    kept = ["store" if index in last.values() else None for index in range(own)]
    return [*kept, *["reuse"] * (len(types) - own)]


def _owner(index: int, types: Sequence[str], modes: Sequence[str | None]) -> int:
    """Return the number of the layer whose keys and values a layer reads."""
    for other in range(index - 1, -1, -1):
        if types[other] == types[index] and modes[other] == "store":
            return other
    raise ValueError(
        f"layer {index} reads the keys and values of another {types[index]!r} layer, but no layer "
        "before it keeps any; mmkv cannot stream this model"
    )


def global_layers(layers: Sequence[Layer]) -> list[int]:
    """Return the numbers of the global layers; a layer's place in this list is its ordinal."""
    return [index for index, layer in enumerate(layers) if layer.kind == "global"]


def shape_of(layers: Sequence[Layer]) -> Shape:
    """Return the sizes of the global layers.

    Raises:
        ValueError: there is none, or they differ.
    """
    sizes = {
        (layer.heads, layer.kv_heads, layer.head_dim) for layer in layers if layer.kind == "global"
    }
    if len(sizes) != 1:
        found = ", ".join(f"{h} heads, {k} for keys, {d} elements" for h, k, d in sorted(sizes))
        raise ValueError(
            "all layers that attend to everything must have heads of the same number and size; "
            f"this model has {found or 'no such layer'}"
        )
    return Shape(sum(layer.kind == "global" for layer in layers), *sizes.pop())


def carried(text: Any, layers: Sequence[Layer], element: int) -> Carried | None:
    """Work out the size of the state that does not grow.

    Args:
        text: the configuration that `layers` were read from.
        layers: of `read_layers`.
        element: bytes of an element of keys, values and convolutions.

    Returns:
        its bytes; None where layers carry a state other than that of Gated DeltaNet.
    """
    local = [layer for layer in layers if layer.kind == "local"]
    windows = sum(layer.window * 2 * layer.kv_heads * layer.head_dim for layer in local) * element
    types = [layer.type for layer in layers if layer.kind == "carry"]
    if not types:
        return Carried(0, 0, windows)
    sizes: list[Any] = [getattr(text, f"linear_{name}", None) for name in _DELTA]
    if set(types) != {"linear_attention"} or None in sizes:
        return None
    keys, values, key_dim, value_dim, kernel = sizes
    recurrent = values * key_dim * value_dim * 4  # [Hv, Dk, Dv]
    convolution = (2 * keys * key_dim + values * value_dim) * kernel * element  # q, k and v
    return Carried(len(types) * recurrent, len(types) * convolution, windows)
