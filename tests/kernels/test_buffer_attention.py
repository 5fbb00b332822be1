"""Attention over an answer's buffer, and writing into buffers and rings, against loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkv.kernels.buffer_attention import buffer_attention, buffer_attention_lse, naive
from mmkv.kernels.common.naive import rotate
from mmkv.kernels.rotate_write import rotate_write, tokens_of

CASES = given(
    group=st.sampled_from([1, 2, 7]),
    kv_heads=st.integers(1, 2),
    n=st.integers(1, 9),
    before=st.integers(0, 30),
    spare=st.integers(0, 9),
    rotary=st.sampled_from([0, 8, 16]),
    told=st.sampled_from(["a number", "a tensor", "a tensor that no one reads"]),
    seed=st.integers(0, 99),
)


def angles(n: int, rotary: int) -> tuple[Tensor, Tensor] | None:
    half = torch.rand(n, rotary // 2) * 6
    both = torch.cat([half, half], dim=-1)
    return (both.cos(), both.sin()) if rotary else None


def reference(query: Tensor, key: Tensor, value: Tensor, at: int) -> tuple[Tensor, Tensor]:
    """Token by token in float64; out `[H, n, D]`, log-sum-exp `[H, n]`."""
    heads, n, dim = query.shape[1:]
    group = heads // key.shape[1]
    out, lse = torch.zeros(heads, n, dim).double(), torch.zeros(heads, n).double()
    for head in range(heads):
        for i in range(n):
            k, v = (t[0, head // group, : at + i + 1].double() for t in (key, value))
            scores = 0.3 * k @ query[0, head, i].double()
            out[head, i], lse[head, i] = scores.softmax(0) @ v, scores.logsumexp(0)
    return out, lse


@CASES
@settings(max_examples=60, deadline=None)
def test_every_token_sees_what_stands_before_it_and_itself(
    group: int, kv_heads: int, n: int, before: int, spare: int, rotary: int, told: str, seed: int
) -> None:
    torch.manual_seed(seed)
    query = torch.randn(1, n, group * kv_heads, 16).transpose(1, 2)
    key, value = torch.randn(2, 1, kv_heads, before + n + spare, 16)
    turn = angles(n, rotary)
    at = before if told == "a number" else torch.tensor(before)
    with pytest.MonkeyPatch.context() as patch:
        if "no one" in told:
            patch.setattr(naive, "_host_knows", lambda at: False)
        out = buffer_attention(query, key, value, at, 0.3, turn)
        joined, lse = buffer_attention_lse(query, key, value, at, 0.3, turn)
    turned = query if turn is None else rotate(query, turn)
    want, want_lse = reference(turned, key, value, before)
    torch.testing.assert_close(out[0].transpose(0, 1).double(), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(joined[0].double(), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse[0].double(), want_lse, atol=1e-5, rtol=1e-5)


def test_without_a_place_every_query_sees_everything() -> None:
    query, key, value = torch.randn(1, 4, 3, 16), *torch.randn(2, 1, 2, 9, 16)
    want = torch.cat([reference(query[:, :, i : i + 1], key, value, 8)[0] for i in range(3)], dim=1)
    out, _ = buffer_attention_lse(query, key, value, None, 0.3)
    torch.testing.assert_close(out[0].double(), want, atol=1e-5, rtol=1e-5)
    out = buffer_attention(query, key, value, None, 0.3)
    torch.testing.assert_close(out[0].transpose(0, 1).double(), want, atol=1e-5, rtol=1e-5)


def test_what_was_seen_elsewhere_is_joined() -> None:
    query, key, value = torch.randn(1, 4, 3, 16), *torch.randn(2, 1, 2, 20, 16)
    parts = [buffer_attention_lse(query, key[:, :, p], value[:, :, p], None, 0.3)
             for p in (slice(0, 7), slice(7, 20))]  # fmt: skip
    got = buffer_attention_lse(query, key[:, :, 7:], value[:, :, 7:], None, 0.3, None, parts[0])
    whole = buffer_attention_lse(query, key, value, None, 0.3)
    for a, b in zip(got, whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_tokens_are_picked_per_head() -> None:
    key, value = torch.randn(2, 3, 20, 16)
    tokens = torch.stack([torch.randperm(20)[:6] for _ in range(3)])
    got = tokens_of(key, value, tokens)
    for head in range(3):
        assert torch.equal(got[0, head], key[head, tokens[head]])
        assert torch.equal(got[1, head], value[head, tokens[head]])


@given(
    n=st.integers(0, 9),
    slots=st.integers(9, 20),
    at=st.integers(0, 40),
    rotary=st.sampled_from([0, 8, 16]),
    told=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_tokens_are_written_in_order_and_go_on_at_the_first_slot(
    n: int, slots: int, at: int, rotary: int, told: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    at = at % (slots - n + 1) if told else at
    key, value = torch.randn(2, 1, n, 2, 16).transpose(2, 3)
    held = torch.randn(2, 1, 2, slots, 16)
    into = held.clone()
    turn = angles(n, rotary)
    rotate_write(key, value, turn, into[0], into[1], torch.tensor(at) if told else at)
    turned = key if turn is None else rotate(key, turn)
    for i in range(n):
        slot = (at + i) % slots
        assert torch.equal(into[0][:, :, slot], turned[:, :, i])
        assert torch.equal(into[1][:, :, slot], value[:, :, i])
    others = [s for s in range(slots) if s not in {(at + i) % slots for i in range(n)}]
    assert torch.equal(into[:, :, :, others], held[:, :, :, others])
