"""The versions of transformers that are supported differ in names, which mmkv finds out."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any

import pytest
import torch
import transformers
from small_models import FAMILIES, small_vlm
from torch import nn

from mmkv.engine.transformers_compat import cache_argument


class Old(nn.Module):
    def forward(
        self, input_ids: Any = None, past_key_values: Any = None, **kwargs: Any
    ) -> None: ...


class New(nn.Module):
    def forward(self, input_ids: Any = None, cache: Any = None, **kwargs: Any) -> None: ...


class Neither(nn.Module):
    def forward(self, input_ids: Any = None, **kwargs: Any) -> None: ...


def with_the_old_name_too(forward: Any) -> Any:
    @functools.wraps(forward)
    def renamed(*args: Any, **kwargs: Any) -> Any:
        if "past_key_values" in kwargs:
            kwargs["cache"] = kwargs.pop("past_key_values")
        return forward(*args, **kwargs)

    return renamed


class Both(nn.Module):
    @with_the_old_name_too
    def forward(self, input_ids: Any = None, cache: Any = None, **kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    ("kind", "name"), [(Old, "past_key_values"), (New, "cache"), (Both, "cache")]
)
def test_the_cache_is_called_as_the_forward_calls_it(kind: type[nn.Module], name: str) -> None:
    assert cache_argument(kind()) == name


def test_a_forward_that_accelerate_has_replaced_does_not_matter() -> None:
    module = Old()
    module.forward = lambda *args, **kwargs: None  # type: ignore[method-assign]
    assert cache_argument(module) == "past_key_values"


def test_a_forward_without_a_cache_is_named() -> None:
    with pytest.raises(TypeError, match=r"Neither\.forward takes no key-value cache"):
        cache_argument(Neither())


def test_a_class_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fresh(Old):
        pass

    looked: list[Any] = []
    signature = inspect.signature

    def counted(function: Any) -> inspect.Signature:
        looked.append(function)
        return signature(function)

    monkeypatch.setattr(inspect, "signature", counted)
    assert {cache_argument(Fresh()) for _ in range(3)} == {"past_key_values"}
    assert looked == [Fresh.forward]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_installed_version_takes_a_cache_by_this_name(family: str) -> None:
    model = small_vlm(family).adapter.language_model
    cache = transformers.DynamicCache(config=model.config)
    embeds = torch.zeros(1, 5, model.config.hidden_size)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error")  # of a name that is about to go
        model(inputs_embeds=embeds, use_cache=True, **{cache_argument(model): cache})
    assert cache.get_seq_length() == 5
