"""Rows of the packed past: what groups share is worked out once, and stays right as rows come and
go.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from codec_cases import CPU, states
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import clip, small_vlm
from torch import Tensor

import mmkv
from mmkv.answer import resident_past
from mmkv.answer.resident_segments import Side
from mmkv.kernels.pack import Form, Params
from mmkv.kernels.pack.form import tables
from mmkv.kernels.pack.naive import code_groups
from mmkv.kernels.packed_attention import Compact, compact, history, resident_keys
from mmkv.models.layers import Shape

FORMS = (Form(2, 16, "hadamard"), Form(3), Form(16, 16), Form(4))
HEADS, TOKENS, DIM = 2, 16, 32


def rows(form: Form, count: int, far: bool, seed: int) -> tuple[Tensor, Params]:
    """Resident codes and parameters of groups; some centres are exact ones where they are far."""
    states_ = states("gaussian", count, HEADS, TOKENS, DIM, seed=seed)
    if far:
        states_[:, 0, :, 3] += 4000.0
        states_[0, 1, :, 5] = 2.0  # constant
    fit, codes = code_groups(states_, form)
    params = fit.params
    assert bool(params.listed.numel()) is far
    return resident_keys(codes, form), params


def numbers(shared: Compact) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scales by slot, centres, order, and which channels are constant."""
    found = history.affine(shared)
    channels = torch.arange(DIM).expand_as(found.scale)
    order = channels if found.order is None else found.order.long()
    constant = torch.zeros(found.scale.shape, dtype=torch.bool)
    return found.scale, found.centre, order, constant if found.constant is None else found.constant


def decoded(params: Params) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same by the specification."""
    found = tables(params)
    constant = torch.zeros(found.scale.shape, dtype=torch.bool)
    return (
        found.scale, found.centre, found.order,
        constant if found.constant is None else found.constant,
    )  # fmt: skip


@given(
    form=st.sampled_from(FORMS),
    steps=st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.integers(0, 4)), max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_rows_are_what_was_appended_and_not_dropped(
    form: Form, steps: list[tuple[int, bool, int]]
) -> None:
    shape = Shape(1, HEADS, HEADS, DIM)
    side = Side.empty(form, resident_keys, shape, TOKENS, CPU)
    wanted: list[tuple[Tensor, ...]] = []  # of each row
    seen = []  # what answers were given, and what they have to go on reading
    for seed, (count, far, gone) in enumerate(steps):
        codes, params = rows(form, count, far, seed)
        side.append(len(wanted), codes, compact(params, form))
        wanted += zip(codes, *decoded(params), strict=True)
        for given_, held in [*seen, (side.rows(len(wanted)), list(wanted))]:
            found = zip(given_[0], *numbers(given_[1]), strict=True)
            for got, want in zip(found, held, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
        seen.append((side.rows(len(wanted)), list(wanted)))
        if 2 * gone > len(wanted):
            side.drop(min(gone, len(wanted)), len(wanted))
            del wanted[:gone]


def test_rows_of_a_failed_attempt_are_written_over() -> None:
    form = Form(4)
    side = Side.empty(form, resident_keys, Shape(1, HEADS, HEADS, DIM), TOKENS, CPU)
    first, failed, second = (rows(form, 3, far, i) for i, far in enumerate((False, True, False)))
    for at, (codes, params) in ((0, first), (3, failed), (3, second)):
        side.append(at, codes, compact(params, form))
    for got, one, two in zip(
        numbers(side.rows(6)[1]), decoded(first[1]), decoded(second[1]), strict=True
    ):
        assert torch.equal(got, torch.cat([one, two]))


@pytest.fixture
def stream() -> Iterator[mmkv.Stream]:
    config = mmkv.CacheConfig(
        window_frames=6, recent_frames=2, chunk_frames=4, retrieve_frames="all", page_tokens=40
    )
    with small_vlm("llava_onevision").stream(config) as stream:
        stream.feed(clip(24), [float(i) for i in range(24)])
        yield stream


def sides(stream: mmkv.Stream) -> list[Side]:
    assert stream._resident is not None
    return [s for segment in stream._resident._segments for pair in segment.layers for s in pair]


def test_what_groups_share_is_worked_out_once_over_questions_and_tokens(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(params: Params, form: Form) -> Compact:
        made.append(len(params.top))
        return compact(params, form)

    monkeypatch.setattr(resident_past, "compact", counted)
    for tokens in (6, 1, 4):
        stream.ask("What is it?", max_new_tokens=tokens)
    held = sum(len(s.rows) * 2 * len(s.layers) for s in stream._resident._segments)
    assert sum(made) == held > 0
    stream.feed(clip(24, seed=5), [24.0 + i for i in range(24)])
    stream.ask("What is it?", max_new_tokens=2)
    more = sum(len(s.rows) * 2 * len(s.layers) for s in stream._resident._segments)
    assert sum(made) == more > held


def test_scales_are_decoded_once_in_an_answer(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded_ = []
    monkeypatch.setattr(
        history, "affine", lambda shared, of=history.affine: decoded_.append(shared) or of(shared)
    )
    answer = stream.ask("What is it?", max_new_tokens=6)
    assert len(answer.token_ids) == 6
    assert len(decoded_) == len(sides(stream))


def test_what_an_answer_holds_of_the_past_counts_until_it_ends(stream: Any) -> None:
    stream.ask("What is it?", max_new_tokens=1)
    before = stream.stats().resident_bytes
    reply = stream.ask_iter("What is it?", max_new_tokens=4)  # the prompt is through
    layers = reply._generation.engine_pass._past.far.layers
    waiting = sum(layer.key.nbytes + layer.value.nbytes for layer in layers)
    waiting += layers[0].packed[0][1].nbytes  # which tokens are visible, for all layers
    rows_ = [
        (side, len(s.rows)) for s in stream._resident._segments for p in s.layers for side in p
    ]
    numbers_ = sum(8 * side.words[:count].numel() for side, count in rows_)
    assert stream.stats().resident_bytes == before + numbers_ + waiting > before
    del layers, reply
    gc.collect()
    assert stream.stats().resident_bytes == before


def test_rows_that_were_moved_count_while_an_answer_reads_them(stream: Any) -> None:
    reply = stream.ask_iter("What is it?", max_new_tokens=4)
    moved = sum(stores(sides(stream)).values())
    stream.feed(clip(60, seed=5), [24.0 + i for i in range(60)])  # no room for so many
    stream.ask("What is it?", max_new_tokens=1)
    layers = reply._generation.engine_pass._past.far.layers
    own = sum(layer.key.nbytes + layer.value.nbytes for layer in layers)
    own += layers[0].packed[0][1].nbytes  # which tokens are visible, for all layers
    own += sum(8 * p.words.numel() for layer in layers for history, _ in layer.packed
               for p in (history.key_params, history.value_params))  # fmt: skip
    held = stream.stats().resident_bytes
    del layers, reply
    gc.collect()
    assert held - stream.stats().resident_bytes == moved + own > own


def stores(held: list[Side]) -> dict[int, int]:
    """Bytes of the memory that tensors lie in, by address."""
    found = [getattr(side, name) for side in held for name in Side.__slots__]
    tensors = [t.untyped_storage() for t in found if isinstance(t, Tensor)]
    return {store.data_ptr(): store.nbytes() for store in tensors}


def test_resident_bytes_are_those_of_the_memory_that_is_held(stream: Any) -> None:
    stream.ask("What is it?", max_new_tokens=1)
    assert stream.stats().resident_bytes == sum(stores(sides(stream)).values()) > 0
