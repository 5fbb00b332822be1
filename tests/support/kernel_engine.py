"""The engine through Triton's kernels, in Triton's interpreter, against the engine in torch.

Run by `test_kernels_parity.py` in a process of its own: which of the two runs is decided when the
operations are imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkv.kernels import dispatch

triton_runs = False
launches: list[str] = []

dispatch.has_triton = lambda tensor: triton_runs
dispatch.on_device = lambda tensor: nullcontext()

from small_models import clip, small_vlm  # noqa: E402
from triton.runtime.interpreter import InterpretedFunction  # noqa: E402

import mmkv  # noqa: E402

FRAMES, TOKENS = 8, 2
SETTINGS: dict[str, dict[str, Any]] = {
    "retrieved, thinned and packed": {
        "keep_ratio": 0.5, "key_bits": 2, "value_bits": 1.58, "page_tokens": 16,
    },
    "kivi, whose values have scales per token": {"codec": "kivi", "page_tokens": 16},
    "thinned by what a text sees, merged, thinned again when asked": {
        "keep_ratio": 0.5, "eviction": "text-prior", "merging": "average",
        "answer_keep_ratio": 0.5, "page_tokens": 16,
    },
    "everything, packed but for the last frames": {
        "retrieve_frames": "all", "key_bits": 4, "value_bits": 1.58, "page_tokens": 30,
    },
}  # fmt: skip
EVERYWHERE = {"_window_attention", "_buffer_attention", "_join", "_rotate_write", "_score"}
# kernels that have to have run, by the first words of a case
PACKED = {"fit_levels", "round_words", "_bits", "_unpack_rotate"}
USED = {
    "retrieved": PACKED | {"_fives", "_summarize", "_farthest"},
    "kivi": PACKED | {"_pack_tokens", "_unpack_tokens"},
    "thinned": {"_lse", "_total", "_mass", "_nearest", "_gather"},
    "everything": {"_widen", "_fold", "_packed_attention"},
}


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    original: Callable[..., Any] = InterpretedFunction.run

    def run(self: Any, *args: Any, **options: Any) -> Any:
        launches.append(self.fn.__name__)
        return original(self, *args, **options)

    monkeypatch.setattr(InterpretedFunction, "run", run)


def logits(settings: dict[str, Any], vlm: mmkv.VideoLM | None = None, *, in_triton: bool) -> Tensor:
    """Logits `[TOKENS, V]` of an answer about the same clip."""
    global triton_runs
    triton_runs = in_triton
    launches.clear()
    config = {"window_frames": 2, "recent_frames": 1, "chunk_frames": 4, "retrieve_frames": 2}
    vlm = vlm or small_vlm("llava_onevision")
    with vlm.stream(mmkv.CacheConfig(**{**config, **settings})) as stream:
        stream.feed(clip(FRAMES), [float(i) for i in range(FRAMES)])
        with stream.ask_iter("What is it?", max_new_tokens=TOKENS) as reply:
            found = [reply._generation.logits.clone()]
            for token in range(5, 4 + TOKENS):
                with torch.inference_mode():
                    found.append(reply._generation.step(token).clone())
    return torch.stack(found)


@pytest.mark.parametrize("name", SETTINGS)
def test_answers_are_the_same(name: str) -> None:
    want = logits(SETTINGS[name], in_triton=False)
    assert not launches
    got = logits(SETTINGS[name], in_triton=True)
    assert set(launches) >= EVERYWHERE | USED[re.split(r"\W", name)[0]]
    assert float((got - want).norm() / want.norm()) < 2e-3


def test_answers_of_layers_with_windows_of_their_own_are_the_same() -> None:
    types = ["sliding_attention", "full_attention"] * 2
    vlm = small_vlm("gemma4", num_hidden_layers=4, layer_types=tuple(types), num_kv_shared_layers=2)
    want = logits({}, vlm, in_triton=False)
    got = logits({}, vlm, in_triton=True)
    assert set(launches) >= EVERYWHERE
    assert float((got - want).norm() / want.norm()) < 2e-3
