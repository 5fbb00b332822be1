"""Where the engine meets transformers: an attention function, and a rotary that can be disabled.

Inside an engine pass (known by a context variable, so for each thread separately) the rotary module
returns ones and zeros, queries and keys arrive before RoPE, and attention is the pass's own.
Outside, both do what they did before. Attached for the first use, removed after the last.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from mmkv.engine.carry import Carry
from mmkv.engine.passes import ByLayer, Pass, Shared
from mmkv.engine.rotary import inverse_frequencies
from mmkv.engine.transformers_compat import cache_argument
from mmkv.models.base import VideoModel

NAME = "mmkv"

_inside: ContextVar[bool] = ContextVar("mmkv_inside", default=False)
_lock = threading.Lock()
_attached: weakref.WeakKeyDictionary[nn.Module, _Attached] = weakref.WeakKeyDictionary()
_abandoned: deque[tuple[nn.Module, object]] = deque()
_stock: dict[int, str] = {}  # attention that an attached model's configuration named before


class _Attached:
    def __init__(self, implementation: str, forward: Callable[..., Any], own: bool) -> None:
        self.users: set[object] = set()
        self.implementation = implementation
        self.forward = forward
        self.own = own


class AttentionHook:
    """The hooks in place from here to `release`, or until this object is dropped.

    Wherever an interrupt strikes, a use that was begun is also ended: uses are counted by a token,
    which exists before it is counted.
    """

    def __init__(self, language_model: Any) -> None:
        self._token = object()
        self._language_model = language_model
        with _lock:
            _attach(language_model, self._token)
        _detach_abandoned()

    def release(self) -> None:
        """Restore the model, if this was the last use; a second call does nothing."""
        with _lock:
            _detach(self._language_model, self._token)
        _detach_abandoned()

    def __del__(self) -> None:
        # in a thread that may be inside `_attach`, so never wait
        if hasattr(self, "_language_model"):
            _abandoned.append((self._language_model, self._token))
            _detach_abandoned()


def run(
    adapter: VideoModel,
    engine_pass: Pass,
    embeds: Tensor,
    carry: Carry | None = None,
    local: Shared | None = None,
    **extras: Any,
) -> Tensor:
    """Run the language model over `embeds` `[n, D]` with this pass's attention.

    Args:
        adapter: the model.
        engine_pass: computes the attention of the global layers, whose ordinals it gets; it is a
            `Shared` where the model has layers that read a global layer's keys and values.
        embeds: input embeddings.
        carry: state of the other layers, which is brought up to the last token; None where the
            model has only global layers.
        local: computes the attention of the local layers, whose numbers it gets, over the carry's
            windows; None where the model has none.
        extras: what else the model needs of these tokens.

    Returns:
        last hidden states `[n, D]`.
    """
    if carry is not None and carry.cache is not None:
        extras[cache_argument(adapter.language_model)] = carry.cache
    before = _inside.get()
    try:
        _inside.set(True)  # in here, and not undone by a token: an interrupt may come at once
        # the pass has its own angles; these only keep stock code from inferring packed sequences
        order = torch.arange(embeds.shape[0], device=embeds.device)[None]
        output = adapter.language_model(
            inputs_embeds=embeds[None],
            position_ids=order,
            use_cache=False,
            mmkv=ByLayer(adapter, engine_pass, local),
            **extras,
        )
        return output.last_hidden_state[0]
    finally:
        _inside.set(before)


@contextmanager
def attached(language_model: Any) -> Iterator[None]:
    """Keep the hooks in place for the length of a `with` block."""
    hook = AttentionHook(language_model)
    try:
        yield
    finally:
        hook.release()


def _detach_abandoned() -> None:
    while _abandoned and _lock.acquire(blocking=False):  # else its holder does this
        try:
            while _abandoned:
                _detach(*_abandoned.popleft())
        finally:
            _lock.release()


def _attach(language_model: Any, user: object) -> None:
    known = _attached.get(language_model)
    if known is not None:
        known.users.add(user)
        return
    _register()
    rotary: Any = language_model.rotary_emb
    original = rotary.forward
    before = _Attached(
        language_model.config._attn_implementation,
        original,
        "forward" in vars(rotary),
    )
    before.users.add(user)
    _attached[language_model] = before  # first, so that an interrupt below is undone by `_detach`
    _stock[id(language_model.config)] = before.implementation
    language_model.set_attn_implementation(NAME)
    rotary.forward = _deferred(original, language_model)


def _detach(language_model: Any, user: object) -> None:
    known = _attached.get(language_model)
    if known is None or user not in known.users:
        return
    known.users.discard(user)
    if known.users:
        return
    del _attached[language_model]
    rotary: Any = language_model.rotary_emb
    if known.own:
        rotary.forward = known.forward
    else:
        vars(rotary).pop("forward", None)
    language_model.set_attn_implementation(known.implementation)
    _stock.pop(id(language_model.config), None)


def _deferred(original: Callable[..., Any], model: Any) -> Callable[..., Any]:
    def forward(
        x: Tensor, position_ids: Tensor, layer_type: str | None = None, **kwargs: Any
    ) -> Any:
        if not _inside.get():
            own = () if layer_type is None else (layer_type,)
            return original(x, position_ids, *own, **kwargs)
        shape = (1, 1, 2 * inverse_frequencies(model.rotary_emb, layer_type).numel())
        return x.new_ones(1).expand(shape), x.new_zeros(1).expand(shape)

    return forward


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        mmkv: Pass | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if mmkv is None:
            stock = _stock_attention(module)
            out: tuple[Tensor, Tensor | None] = stock(
                module, query, key, value, attention_mask, **kwargs
            )
            return out
        layer: Any = module.layer_idx
        return mmkv.attend(layer, query, key, value, kwargs["scaling"]), None

    def mask(*args: Any, **kwargs: Any) -> Any:
        if _inside.get():
            return None
        stock: Any = AttentionMaskInterface()[_stock.get(id(kwargs.get("config")), "sdpa")]
        return stock(*args, **kwargs)

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)


def _stock_attention(module: Any) -> Any:
    """Return the attention that a plain forward of this module had before."""
    from transformers import AttentionInterface

    name = _stock.get(id(module.config), "sdpa")
    if name == "eager":  # every modeling file has its own
        return sys.modules[type(module).__module__].eager_attention_forward
    return AttentionInterface()[name]
