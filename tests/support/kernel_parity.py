"""Triton's kernels against their torch versions, in Triton's interpreter.

Run by `test_kernels_parity.py` in a process of its own: TRITON_INTERPRET has to be set before
Triton is imported, and holds for good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkv.kernels.attention_mass import naive as mass_naive
from mmkv.kernels.attention_mass import triton as mass_triton
from mmkv.kernels.buffer_attention import naive as buffer_naive
from mmkv.kernels.buffer_attention import triton as buffer_triton
from mmkv.kernels.common.naive import rotate
from mmkv.kernels.farthest import naive as farthest_naive
from mmkv.kernels.farthest import triton as farthest_triton
from mmkv.kernels.merge import naive as merge_naive
from mmkv.kernels.merge import triton as merge_triton
from mmkv.kernels.pack import naive as pack_naive
from mmkv.kernels.pack import triton as pack_triton
from mmkv.kernels.pack.fit import Slots
from mmkv.kernels.pack.form import Fit, Form, slot_order, tables
from mmkv.kernels.pack.naive import code_groups
from mmkv.kernels.packed_attention import PackedHistory, compact
from mmkv.kernels.packed_attention import naive as packed_naive
from mmkv.kernels.packed_attention import triton as packed_triton
from mmkv.kernels.rotate_write import naive as write_naive
from mmkv.kernels.rotate_write import triton as write_triton
from mmkv.kernels.score import naive as score_naive
from mmkv.kernels.score import triton as score_triton
from mmkv.kernels.summarize import naive as summarize_naive
from mmkv.kernels.summarize import triton as summarize_triton
from mmkv.kernels.token_pack import naive as token_naive
from mmkv.kernels.token_pack import triton as token_triton
from mmkv.kernels.unpack_rotate import naive as unpack_naive
from mmkv.kernels.unpack_rotate import triton as unpack_triton
from mmkv.kernels.widen import naive as widen_naive
from mmkv.kernels.widen import triton as widen_triton
from mmkv.kernels.window_attention import naive as window_naive
from mmkv.kernels.window_attention import triton as window_triton

quick = settings(max_examples=6, deadline=None, derandomize=True, database=None)
FORMS: dict[str, Callable[[int], Form]] = {
    "1.5": lambda d: Form(2, d // 2, "hadamard"),
    "1.5 fft formula": lambda d: Form(2, d // 2, "fft", fitted=False, centred=False),
    "1.58": lambda d: Form(3),
    "2": lambda d: Form(4),
    "4": lambda d: Form(16),
}


@pytest.fixture(autouse=True)
def _nothing_is_zero_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel is to fill holds NaN, or ones, until it does."""

    def poisoned(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def make(*sizes: object, **options: object) -> Tensor:
            out = original(*sizes, **options)
            return out.fill_(float("nan") if out.is_floating_point() else 1)

        return make

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))


def rmse_ratio(found: Tensor, wanted: Tensor) -> float:
    wanted = wanted.double()
    return float((found.double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def angles(n: int, rotary: int) -> tuple[Tensor, Tensor]:
    half = torch.rand(n, rotary // 2) * 6
    return torch.cat([half, half], -1).cos(), torch.cat([half, half], -1).sin()


def others(query: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Attention of the same queries over other tokens, of little and of much weight."""
    lse = 4 * torch.randn(query.shape[:3])
    lse[..., seed % query.shape[2]] = float("-inf")  # or over none
    out = torch.randn(query.shape)
    return out.masked_fill_(lse[..., None] == float("-inf"), 0.0), lse


@given(
    group=st.sampled_from([1, 7, 8]),
    kv_heads=st.integers(1, 2),
    n=st.integers(1, 70),
    start=st.integers(0, 150),
    local=st.integers(1, 120),
    sinks=st.integers(0, 5),
    ahead=st.sampled_from([0, 3, 50]),
    dims=st.sampled_from([(16, 16), (48, 48), (64, 32)]),
    dtype=st.sampled_from([torch.float16, torch.float32]),
    seed=st.integers(0, 99),
)
@settings(quick, max_examples=9)
def test_window_attention(
    group: int, kv_heads: int, n: int, start: int, local: int, sinks: int, ahead: int,
    dims: tuple[int, int], dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    dim, rotary = dims
    capacity = local + n + seed % 7
    query = torch.randn(1, n, group * kv_heads, dim).transpose(1, 2).to(dtype)
    key, value = (torch.randn(1, kv_heads, capacity, dim).to(dtype) for _ in range(2))
    held = min(start + n, capacity)
    key[:, :, held:], value[:, :, held:] = float("nan"), float("nan")  # not written yet
    pair = tuple(torch.randn(1, kv_heads, sinks, dim).to(dtype) for _ in range(2))
    lost = sinks > 0 and start + n - 1 >= local
    near, far = angles(n, rotary), angles(n, rotary) if lost else None
    last = None
    if ahead:  # the last token of a run of so many
        runs = (torch.arange(n) // ahead + 1) * ahead - 1
        last = start + runs.clamp(max=n - 1)
    chunk = window_naive.Chunk(start, n, local, capacity, near, far, sinks, last)
    got = window_triton.window_attention(query, key, value, chunk, pair, 0.2)
    exact = window_naive.Chunk(
        start, n, local, capacity, tuple(t.double() for t in near),
        tuple(t.double() for t in far) if far else None, sinks, last,
    )  # fmt: skip
    doubles = [t.double() for t in (query, key, value)]
    want = window_naive.window_attention(*doubles, exact, tuple(t.double() for t in pair), 0.2)
    assert rmse_ratio(got, want) <= (2e-3 if dtype == torch.float16 else 1e-5)


@given(
    group=st.sampled_from([1, 7, 8]),
    kv_heads=st.integers(1, 2),
    n=st.integers(1, 40),
    before=st.integers(0, 150),
    spare=st.integers(0, 40),
    sees=st.sampled_from(["a number", "a tensor", "everything"]),
    dims=st.sampled_from([(16, 16), (48, 48), (64, 32), (32, 0)]),
    dtype=st.sampled_from([torch.float16, torch.float32]),
    asked=st.sampled_from(["output", "sums too", "joined to another"]),
    seed=st.integers(0, 99),
)
@settings(quick, max_examples=15)
def test_buffer_attention(
    group: int, kv_heads: int, n: int, before: int, spare: int, sees: str,
    dims: tuple[int, int], dtype: torch.dtype, asked: str, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    dim, rotary = dims
    end, whole = before + n, sees == "everything"
    query = torch.randn(1, n, group * kv_heads, dim).transpose(1, 2).to(dtype)
    slots = end if whole else end + spare
    key, value = (torch.randn(1, kv_heads, slots, dim).to(dtype) for _ in range(2))
    key[:, :, end:], value[:, :, end:] = float("nan"), float("nan")  # not written yet
    turn = angles(n, rotary) if rotary else None
    at = None if whole else before
    exact = tuple(t.double() for t in turn) if turn else None
    doubles = [t.double() for t in (query, key, value)]
    told = torch.tensor(before) if sees == "a tensor" else at
    bar = 2e-3 if dtype == torch.float16 else 1e-5
    if asked == "output":
        want = buffer_naive.buffer_attention(*doubles, at, 0.2, exact)
        out = buffer_triton.buffer_attention(query, key, value, told, 0.2, turn)
    else:
        beside = others(query, seed) if asked == "joined to another" else None
        want, want_lse = buffer_naive.buffer_attention_lse(*doubles, at, 0.2, exact, beside)
        out, lse = buffer_triton.buffer_attention_lse(query, key, value, told, 0.2, turn, beside)
        assert (lse - want_lse).abs().max() <= 5e-3
    assert rmse_ratio(out, want) <= bar


@given(
    heads=st.integers(1, 3),
    n=st.integers(0, 40),
    spare=st.integers(0, 30),
    at=st.integers(0, 200),
    dims=st.sampled_from([(16, 16), (48, 48), (64, 32), (32, 0)]),
    told=st.booleans(),
    each=st.booleans(),
    picked=st.booleans(),
    dtype=st.sampled_from([torch.float16, torch.float32]),
    seed=st.integers(0, 99),
)
@settings(quick, max_examples=12)
def test_rotate_write(
    heads: int, n: int, spare: int, at: int, dims: tuple[int, int], told: bool, each: bool,
    picked: bool, dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    dim, rotary = dims
    slots = n + spare + 1
    at = at % (slots - n) if told else at  # a tensor's tokens do not begin again at the first slot
    key, value = (torch.randn(1, n, heads, dim).transpose(1, 2).to(dtype) for _ in range(2))
    turn = angles(n, rotary) if rotary else None
    if turn and each:  # heads whose tokens stand elsewhere
        both = [angles(n, rotary) for _ in range(heads)]
        turn = torch.stack([c for c, _ in both]), torch.stack([s for _, s in both])
    rings = [[torch.randn(1, heads, slots, dim).to(dtype) for _ in range(2)] for _ in range(2)]
    rings[1] = [ring.clone() for ring in rings[0]]
    where, tokens = torch.tensor(at) if told else at, None
    if picked:  # some of more, others in each head
        tokens = torch.stack([torch.randperm(n + 9)[:n] for _ in range(heads)])
        more = torch.randn(2, 1, n + 9, heads, dim).transpose(2, 3).to(dtype)
        key, value = more[0], more[1]
    write_triton.rotate_write(key, value, turn, *rings[0], where, tokens)
    write_naive.rotate_write(key, value, turn, *rings[1], where, tokens)
    assert torch.equal(rings[0][1], rings[1][1])
    assert torch.allclose(rings[0][0], rings[1][0], atol=2e-3 if dtype == torch.float16 else 1e-6)


@given(
    key_form=st.sampled_from(sorted(FORMS)),
    value_form=st.sampled_from(["1.58", "2", "4"]),
    group=st.sampled_from([1, 7, 8]),
    n=st.integers(1, 3),
    groups=st.integers(0, 3),
    tokens=st.sampled_from([16, 48, 96]),
    rotary=st.sampled_from([None, 16, 32]),
    more=st.booleans(),
    dtype=st.sampled_from([torch.float16, torch.float32]),
    seed=st.integers(0, 99),
)
@settings(quick, max_examples=12)
def test_packed_attention(
    key_form: str, value_form: str, group: int, n: int, groups: int, tokens: int,
    rotary: int | None, more: bool, dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    dim, heads = 32, 2
    visible_groups, groups = groups, max(groups, 1)
    forms = FORMS[key_form](dim), FORMS[value_form](dim)
    key = torch.randn(groups, heads, tokens, dim) + 5 * torch.randn(1, heads, 1, dim)
    value = torch.randn(groups, heads, tokens, dim)
    key[..., 3], value[0, 0, :, 5] = 1.25, 7.0  # constant channels
    (key_fit, keys), (value_fit, values) = (
        code_groups(x, form) for x, form in zip((key, value), forms, strict=True)
    )
    history = PackedHistory(
        packed_naive.resident_keys(keys, forms[0]), packed_naive.resident_values(values, forms[1]),
        compact(key_fit.params, forms[0]), compact(value_fit.params, forms[1]), *forms,
    )  # fmt: skip
    query = torch.randn(1, n, heads * group, dim).transpose(1, 2).to(dtype)
    turn, beside = None if rotary is None else angles(n, rotary), None
    if more:
        beside = others(query, seed)
    end = torch.randint(0, tokens + 1, (groups,))
    begin = torch.minimum(torch.randint(0, 4, (groups,)), end)
    visible = torch.stack([begin, end], dim=1).int()
    assert packed_triton.supports(history)
    if not visible_groups:  # as where a stream has forgotten all of them
        visible = visible[:0]
        history = replace(
            history, keys=history.keys[:0], values=history.values[:0],
            key_params=history.key_params[:0], value_params=history.value_params[:0],
        )  # fmt: skip
    given_ = (query, history, visible, dim**-0.5, turn, beside)
    with pytest.MonkeyPatch.context() as patch:
        if seed % 2:  # so many groups that 16 rows are folded at a time
            patch.setattr(packed_triton, "_FOLDED", 1)
        out, lse = packed_triton.packed_attention(*given_, asm=False)
    want, want_lse = packed_naive.packed_attention(*given_)
    if not want_lse.isfinite().any():  # nothing is visible
        assert not out.any()
        assert torch.equal(lse, want_lse)
        return
    assert rmse_ratio(out, want) <= 2e-3
    seen = want_lse.isfinite()
    assert torch.equal(lse.isfinite(), seen)
    assert (lse - want_lse)[seen].abs().max() <= 5e-3


PAGES = {
    "one group": ([20, 0, 17, 33], [70]),
    "groups": ([20, 0, 17, 33, 20], [16, 16, 16, 42]),
    "a token": ([1], [1]),
    "more than a sample": ([150, 180], [330]),
}


@pytest.mark.parametrize("name", sorted(FORMS))
@pytest.mark.parametrize("page", sorted(PAGES))
def test_pack(name: str, page: str) -> None:
    torch.manual_seed(1)
    lengths, groups = PAGES[page]
    form, layers, heads = FORMS[name](32), 2, 3
    states = torch.randn(layers, sum(lengths), heads, 32) * 2
    states += 3 * torch.randn(layers, 1, heads, 32)
    states = states.transpose(1, 2)
    states[..., 5] = 2.5
    fit, _ = pack_triton.pack(states, lengths, groups, form)
    want, want_bytes = pack_naive.pack(states, lengths, groups, form)
    assert torch.equal(fit.wide, want.wide)
    assert (fit.words != want.words).float().mean() <= 2e-3  # sums in another order
    assert torch.allclose(fit.top, want.top, rtol=1e-5)
    apart = (fit.exact - want.exact).abs()  # a token between two levels goes either way
    assert (apart > 1e-4).float().mean() <= 1e-2
    assert apart.max() <= 2e-2
    slots = slots_of(want, form)
    got = pack_triton.quantize(states, slots, lengths, groups, form)
    wrong = (got != want_bytes).float().mean()
    assert wrong == 0 if form.transform == "none" else wrong <= 4e-3


def slots_of(fit: Fit, form: Form) -> Slots:
    """A fit decoded in torch, as the kernel that quantizes takes it."""
    table = tables(fit.params)
    inverse = torch.where(table.scale > 0, 1 / table.scale, 0.0)
    order = table.order.to(torch.int16) if form.wide else None
    return Slots(order, table.centre.gather(2, table.order), inverse)


@given(
    name=st.sampled_from(sorted(FORMS)),
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any),
    layers=st.integers(1, 2),
    heads=st.integers(1, 3),
    dim=st.sampled_from([16, 32, 80]),
    size=st.sampled_from([None, 8, 16]),
    power=st.integers(-12, 12),
)
@settings(quick, max_examples=15)
def test_packed_and_quantized_by_the_same_words(
    name: str, lengths: list[int], layers: int, heads: int, dim: int, size: int | None, power: int
) -> None:
    form, tokens = FORMS[name](dim), sum(lengths)
    if not pack_triton.supports(form, dim):
        return
    count = max(1, tokens // size) if size else 1
    groups = [size or tokens] * (count - 1)
    groups.append(tokens - sum(groups))
    states = (torch.randn(layers, heads, tokens, dim) + 1) * 10.0**power
    fit, got = pack_triton.pack(states, lengths, groups, form)
    codes = []
    for i, part in enumerate(states.split(groups, dim=2)):
        rows = (held.unflatten(0, (layers, -1))[:, i] for held in astuple(fit))
        own = Fit(*rows)
        order = slot_order(own.wide)[:, :, None].expand_as(part)
        codes.append(pack_naive.quantize(part.gather(3, order), own.params, form))
    want = pack_naive.blocks(torch.cat(codes, dim=2), lengths, form)
    wrong = (got != want).float().mean()
    assert wrong == 0 if form.transform == "none" else wrong <= 4e-3


@pytest.mark.parametrize("name", sorted(FORMS))
@pytest.mark.parametrize("rotary", [None, 16, 32])
def test_unpack_rotate(name: str, rotary: int | None) -> None:
    torch.manual_seed(2)
    form, heads, lengths = FORMS[name](32), 2, [20, 0, 7, 20, 33]
    states = torch.randn(2, heads, 64, 32) * 2 + 3 * torch.randn(2, heads, 1, 32)
    states[..., 5] = 2.5
    fit, codes = code_groups(states, form)
    params = fit.params
    blocks = [pack_naive.pack_bits(codes[:1, :, :n], form)[0] for n in lengths if n]
    sizes = torch.tensor([sum(form.plane_bytes(heads, n, 32)) for n in lengths])
    total = sum(lengths)
    rows = torch.randint(0, 2, (total,))
    rotation = None if rotary is None else angles(total, rotary)
    given_ = (torch.cat(blocks), sizes.cumsum(0) - sizes, lengths, rows, params, form, rotation)
    got = unpack_triton.unpack_rotate(*given_, torch.full((heads, total, 32), float("nan")))
    want = unpack_naive.unpack_rotate(*given_, torch.empty(heads, total, 32))
    assert torch.allclose(got, want, atol=1e-5, rtol=1e-5)


@given(
    heads=st.integers(1, 3), blocks=st.integers(1, 3), count=st.integers(1, 40),
    landmarks=st.integers(0, 4), dim=st.sampled_from([16, 48]), seed=st.integers(0, 99),
)  # fmt: skip
@quick
def test_summarize(
    heads: int, blocks: int, count: int, landmarks: int, dim: int, seed: int
) -> None:
    torch.manual_seed(seed)
    key = torch.randn(heads, blocks * (count + 3), dim)
    tokens = torch.arange(blocks)[:, None] * (count + 3) + 2 + torch.arange(count)
    got = summarize_triton.summarize(key, tokens, landmarks)
    assert torch.allclose(got, summarize_naive.summarize(key, tokens, landmarks), atol=1e-5)


@given(
    group=st.sampled_from([1, 7, 8]), words=st.integers(1, 6), blocks=st.integers(1, 70),
    several=st.integers(1, 4), dim=st.sampled_from([16, 48]),
    dtype=st.sampled_from([torch.float16, torch.float32]), seed=st.integers(0, 99),
)  # fmt: skip
@quick
def test_score(
    group: int, words: int, blocks: int, several: int, dim: int, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    asked = torch.randn(words, 2 * group, dim)
    summaries = torch.randn(blocks, several, 2, dim).to(dtype)
    got = score_triton.score(asked, summaries.split(33))
    want = score_naive.score(asked.double(), [summaries.double()])
    assert torch.allclose(got.double(), want, atol=1e-4)


@given(
    group=st.sampled_from([1, 7, 8]), n=st.integers(1, 20), m=st.integers(1, 200),
    causal=st.booleans(), rotary=st.sampled_from([None, 16, 32]),
    dtype=st.sampled_from([torch.float16, torch.float32]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(quick, max_examples=10)
def test_attention_mass(
    group: int, n: int, m: int, causal: bool, rotary: int | None, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    query = torch.randn(n, 2 * group, 32).transpose(0, 1).to(dtype)
    turn = None if rotary is None else angles(n, rotary)
    key = torch.randn(2, m, 32).to(dtype)
    before = seed % m if causal else None
    got = mass_triton.attention_mass(query, key, 0.3, before, turn)
    rotated = query.double() if turn is None else rotate(query.double(), turn)
    scores = rotated.reshape(2, group, n, 32) @ key.double()[:, None].transpose(2, 3) * 0.3
    if before is not None:
        ahead = torch.arange(m) > before + torch.arange(n)[:, None]
        scores = scores.masked_fill(ahead, float("-inf"))
    want = scores.softmax(-1).sum((1, 2))
    assert rmse_ratio(got, want) <= 1e-3
    assert torch.allclose(got, mass_naive.attention_mass(query, key, 0.3, before, turn), rtol=2e-2)


@given(
    name=st.sampled_from(sorted(FORMS)),
    pages=st.integers(1, 2),
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any),
    skip=st.sampled_from([0, 2]),
    grouped=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(quick, max_examples=10)
def test_widen_bit_for_bit(
    name: str, pages: int, lengths: list[int], skip: int, grouped: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    form, heads, dim, total = FORMS[name](32), 2, 32, sum(lengths)
    sizes = [skip + sum(form.plane_bytes(heads, n, dim)) for n in lengths]
    data = torch.randint(0, 243 if form.levels == 3 else 256, (pages * sum(sizes),)).to(torch.uint8)
    at = torch.arange(pages) * sum(sizes)
    starts = [sum(sizes[:i]) + skip for i in range(len(sizes))]
    groups = [total // 2, total - total // 2] if grouped and total > 1 else [total]
    size = (heads, -(-max(groups) // 16) * 16 + 16, dim)
    for values in (False, True):
        given_ = (data, at, starts, lengths, groups, form, size)
        got = widen_triton.widen(*given_, values=values)
        assert torch.equal(got, widen_naive.widen(*given_, values=values))


def token_states(kind: str, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Values `[L, H, T, D]` as a model makes them: heads lie within tokens."""
    layers, heads, tokens, dim = size
    states = torch.randn(layers, tokens, heads, dim)
    if kind == "halves":  # between codes, where a group reaches from 0 to 3
        states = torch.randint(0, 7, states.shape) / 2
        states[..., ::16], states[..., 1::16] = 0.0, 3.0
    elif kind == "far from zero":  # the least value is rounded by more than a scale
        states = 1000 + 0.1 * states
    elif kind == "constant":
        states = torch.randn(layers, tokens, heads, 1).expand(states.shape).clone()
        states[:, ::2] = -0.0
    return states.transpose(1, 2).to(dtype)


TOKEN_FORMS = [(dim, levels) for dim in (16, 32, 48, 64, 96, 128) for levels in (4, 16)]


@pytest.mark.parametrize(("dim", "levels"), TOKEN_FORMS)
@pytest.mark.parametrize("kind", ["normal", "halves", "far from zero", "constant"])
@given(
    layers=st.integers(1, 2),
    heads=st.integers(1, 3),
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    seed=st.integers(0, 99),
)
@settings(quick, max_examples=4)
def test_pack_tokens_bit_for_bit(
    dim: int, levels: int, kind: str, layers: int, heads: int, lengths: list[int],
    dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    states = token_states(kind, (layers, heads, sum(lengths), dim), dtype)
    got = token_triton.pack_tokens(states, lengths, Form(levels))
    assert torch.equal(got, token_naive.pack_tokens(states, lengths, Form(levels)))


@pytest.mark.parametrize(("dim", "levels"), TOKEN_FORMS)
@given(
    heads=st.integers(1, 3),
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    skip=st.integers(0, 3),
    dtype=st.sampled_from([torch.float16, torch.float32]),
    seed=st.integers(0, 99),
)
@quick
def test_unpack_tokens_bit_for_bit(
    dim: int, levels: int, heads: int, lengths: list[int], skip: int, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    form, total = Form(levels), sum(lengths)
    states = token_states("normal", (1, heads, total, dim), torch.float32)
    packed = token_naive.pack_tokens(states, lengths, form)[0]
    sizes = [sum(token_naive.block_bytes(form, heads, n, dim)) for n in lengths]
    # blocks lie in another order than they are wanted in, and begin anywhere
    gap, pieces, at, end = torch.full((skip,), 255).to(torch.uint8), [], [0] * len(sizes), 0
    for i, block in reversed(list(enumerate(packed.split(sizes)))):
        pieces += [gap, block]
        at[i], end = end + skip, end + skip + len(block)
    data = torch.cat(pieces)
    into = [torch.full((heads, total + 3, dim), float("nan"), dtype=dtype) for _ in range(2)]
    for out, unpack in zip(into, (token_naive, token_triton), strict=True):
        unpack.unpack_tokens(data, torch.tensor(at), lengths, form, out[:, 1 : total + 1])
        assert out[:, [0, -2, -1]].isnan().all()
    assert not into[0][:, 1 : total + 1].isnan().any()
    assert torch.equal(into[0][:, 1 : total + 1], into[1][:, 1 : total + 1])


@given(
    sets=st.integers(1, 4), count=st.integers(1, 40), width=st.integers(1, 20),
    seed=st.integers(0, 99),
)  # fmt: skip
@quick
def test_farthest(sets: int, count: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    points = torch.randn(sets, count, width)
    got, want = farthest_triton.farthest(points), farthest_naive.farthest(points)
    assert torch.allclose(got, want, atol=1e-4, rtol=1e-4)


def test_farthest_of_what_is_no_number_is_none() -> None:
    points = torch.randn(3, 5, 4)
    points[1] = float("nan")
    got, want = farthest_triton.farthest(points), farthest_naive.farthest(points)
    assert torch.isnan(want[1]).all()
    assert torch.allclose(got, want, atol=1e-4, rtol=1e-4, equal_nan=True)


@pytest.mark.parametrize("mode", ["average", "pivot", "weighted"])
@pytest.mark.parametrize(("kept", "evicted"), [(1, 40), (37, 53), (20, 0)])
def test_merge(kept: int, evicted: int, mode: merge_naive.Mode) -> None:
    torch.manual_seed(kept)
    key, value = torch.randn(2, 2, kept + evicted, 48)
    order = torch.stack([torch.randperm(kept + evicted) for _ in range(2)])
    given_ = (key, value, order[:, :kept], order[:, kept:], mode)
    for got, want in zip(merge_triton.merge(*given_), merge_naive.merge(*given_), strict=True):
        assert torch.allclose(got, want, atol=1e-5)
