"""Attention over packed history is that over the same decoded keys and values, in float64."""

from __future__ import annotations

import pytest
import torch
from codec_cases import CPU, states
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkv.kernels.common.naive import join, rotate
from mmkv.kernels.pack import Form
from mmkv.kernels.pack.naive import code_groups, pack_bits
from mmkv.kernels.packed_attention import (
    PackedHistory,
    compact,
    naive,
    packed_attention,
    resident_keys,
    resident_values,
)
from mmkv.kernels.unpack_rotate import unpack_rotate

FORMS = {
    "1.5": lambda d: Form(2, d // 2, "hadamard"),
    "1.5 fft": lambda d: Form(2, d // 2, "fft"),
    "1.58": lambda d: Form(3),
    "2": lambda d: Form(4),
    "4": lambda d: Form(16),
    "vidkv 1.5": lambda d: Form(2, d // 2, "fft", fitted=False, centred=False),
}


def history_of(key: Tensor, value: Tensor, key_form: Form, value_form: Form) -> PackedHistory:
    """Keys and values `[P, H_kv, T, D]` packed; T a multiple of 16."""
    key_fit, keys = code_groups(key, key_form)
    value_fit, values = code_groups(value, value_form)
    return PackedHistory(
        resident_keys(keys, key_form),
        resident_values(values, value_form),
        compact(key_fit.params, key_form),
        compact(value_fit.params, value_form),
        key_form,
        value_form,
    )


def decoded(x: Tensor, form: Form) -> Tensor:
    """What `[P, H, T, D]` is after packing, float64."""
    groups, heads, tokens, head_dim = x.shape
    fit, codes = code_groups(x, form)
    params = fit.params
    packed = pack_bits(codes, form)
    out = torch.empty(heads, groups * tokens, head_dim)
    rows = torch.arange(groups).repeat_interleave(tokens)
    at = torch.arange(groups) * packed.shape[1]
    unpack_rotate(packed.flatten(), at, [tokens] * groups, rows, params, form, None, out)
    return out.unflatten(1, (groups, tokens)).transpose(0, 1).double()


def reference(
    query: Tensor, key: Tensor, value: Tensor, begin: list[int], end: list[int], scaling: float
) -> tuple[Tensor, Tensor]:
    """Attention over the visible tokens of `[P, H_kv, T, D]`, in float64."""
    keep = [slice(b, max(b, e)) for b, e in zip(begin, end, strict=True)]
    keys = torch.cat([k[:, part] for k, part in zip(key, keep, strict=True)], dim=1)
    values = torch.cat([v[:, part] for v, part in zip(value, keep, strict=True)], dim=1)
    group = query.shape[1] // keys.shape[0]
    keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
    scores = scaling * query[0].double() @ keys.transpose(1, 2)
    return (scores.softmax(-1) @ values)[None], scores.logsumexp(-1)[None]


def ranges(begin: Tensor, end: Tensor) -> Tensor:
    """Which tokens are visible, as the kernel takes it."""
    return torch.stack([begin, end], dim=1).int()


def rmse_ratio(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


@given(
    forms=st.tuples(st.sampled_from(sorted(FORMS)), st.sampled_from(sorted(FORMS))),
    groups=st.integers(1, 4),
    kv_heads=st.integers(1, 2),
    group=st.sampled_from([1, 2, 7]),
    n=st.integers(1, 5),
    tokens=st.sampled_from([16, 48]),
    head_dim=st.sampled_from([16, 32]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_as_over_decoded_keys_and_values(
    forms: tuple[str, str], groups: int, kv_heads: int, group: int, n: int, tokens: int,
    head_dim: int, seed: int,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    key_form, value_form = (FORMS[name](head_dim) for name in forms)
    key = states("biased", groups, kv_heads, tokens, head_dim, seed=seed)
    value = states("gaussian", groups, kv_heads, tokens, head_dim, seed=seed + 1)
    begin = torch.randint(0, tokens // 2, (groups,), generator=generator)
    end = torch.randint(tokens // 2, tokens + 1, (groups,), generator=generator)
    query = torch.randn(1, kv_heads * group, n, head_dim, generator=generator)
    out, lse = packed_attention(
        query, history_of(key, value, key_form, value_form), ranges(begin, end), head_dim**-0.5
    )
    wanted, wanted_lse = reference(
        query, decoded(key, key_form), decoded(value, value_form),
        begin.tolist(), end.tolist(), head_dim**-0.5,
    )  # fmt: skip
    assert rmse_ratio(out, wanted) < 2e-5
    torch.testing.assert_close(lse.double(), wanted_lse, atol=1e-4, rtol=1e-5)


def test_history_in_many_tiles_is_history_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    form = FORMS["1.5"](32)
    history = history_of(*states("biased", 2, 9, 2, 16, 32).unbind(), form, Form(4))
    visible = torch.tensor([[0, 16]] * 9, dtype=torch.int32)
    visible[3:5, 1] = 0  # a whole tile that cannot be seen
    query = states("gaussian", 1, 4, 3, 32)
    whole = packed_attention(query, history, visible, 0.2)
    monkeypatch.setattr(naive, "_MAX_NUMBERS", 2 * 2 * 16 * 32)
    for found, wanted in zip(packed_attention(query, history, visible, 0.2), whole, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_constant_and_far_off_channels_are_exact_in_scores() -> None:
    form = FORMS["1.5"](32)
    key = states("gaussian", 2, 2, 32, 32)
    key[:, :, :, 4] = 2.5
    key[0, :, :, 9] += 4000.0
    value = states("gaussian", 2, 2, 32, 32, seed=3)
    value[:, :, :, 1] = -1.0
    history = history_of(key, value, form, Form(3))
    assert history.key_params.exact is not None
    query = states("gaussian", 1, 4, 2, 32)
    visible = torch.tensor([[0, 32]] * 2, dtype=torch.int32)
    out, _ = packed_attention(query, history, visible, 1.0)
    wanted, _ = reference(query, decoded(key, form), decoded(value, Form(3)), [0, 0], [32, 32], 1.0)
    assert rmse_ratio(out, wanted) < 1e-4
    torch.testing.assert_close(out[..., 1], torch.full_like(out[..., 1], -1.0), atol=1e-4, rtol=0)


def test_nothing_visible_weighs_nothing_when_joined() -> None:
    form = Form(4)
    history = history_of(*states("gaussian", 2, 3, 2, 16, 16).unbind(), form, form)
    none = torch.zeros(3, 2, dtype=torch.int32)
    query = states("gaussian", 1, 2, 2, 16)
    far, far_lse = packed_attention(query, history, none, 1.0)
    assert not far.any()
    assert (far_lse == float("-inf")).all()
    near = states("gaussian", 1, 2, 2, 16, seed=5)
    out, _ = join(near, torch.zeros(1, 2, 2), far, far_lse)
    assert torch.equal(out, near)
    out, lse = packed_attention(query, history, none, 1.0, None, (far, far_lse))
    assert torch.equal(out, far)
    assert torch.equal(lse, far_lse)


@pytest.mark.parametrize("rotary", [8, 16])
def test_queries_are_rotated_and_joined_with_what_they_saw_elsewhere(rotary: int) -> None:
    form = Form(4)
    history = history_of(*states("gaussian", 2, 3, 2, 16, 16).unbind(), form, form)
    visible = torch.tensor([[0, 16]] * 3, dtype=torch.int32)
    query = states("gaussian", 1, 4, 5, 16)
    half = torch.rand(5, rotary // 2) * 6
    turn = torch.cat([half, half], 1).cos(), torch.cat([half, half], 1).sin()
    beside = states("gaussian", 1, 4, 5, 16, seed=3), states("gaussian", 1, 4, 5, seed=4)
    alone = packed_attention(rotate(query, turn), history, visible, 0.3)
    found = packed_attention(query, history, visible, 0.3, turn, beside)
    for got, want in zip(found, join(*beside, *alone), strict=True):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


def test_joined_attention_is_attention_over_both() -> None:
    query = states("gaussian", 1, 2, 3, 16).double()
    key, value = states("gaussian", 2, 1, 2, 40, 16).double().unbind()
    whole, whole_lse = reference(query, key, value, [0], [40], 0.3)
    first = reference(query, key, value, [0], [25], 0.3)
    second = reference(query, key, value, [25], [40], 0.3)
    out, lse = join(*(x.float() for x in (*first, *second)))
    torch.testing.assert_close(out.double(), whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(lse.double(), whole_lse, atol=1e-6, rtol=1e-5)


def test_resident_codes_take_2_bits_or_4() -> None:
    for form, bits in ((Form(2, 16), 2), (Form(3), 2), (Form(16), 4)):
        codes = torch.zeros(5, 2, 48, 32, dtype=torch.uint8)
        for packed in (resident_keys(codes, form), resident_values(codes, form)):
            assert packed.numel() * 8 == codes.numel() * bits


def test_params_of_history_are_on_its_device() -> None:
    history = history_of(*states("gaussian", 2, 2, 2, 16, 16).unbind(), Form(4), Form(3))
    assert len(history.tensors) == 2 + 2 * 2
    assert all(tensor.device == CPU for tensor in history.tensors)
