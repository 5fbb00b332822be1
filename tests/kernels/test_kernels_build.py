"""Every kernel compiles for every supported GPU, within its limits; no GPU is needed for that."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from kernel_builds import ARCHITECTURES, SHARED, Launch, launches, loops
from waiting import PATIENCE

from mmkv.kernels.attention_mass import triton as mass
from mmkv.kernels.buffer_attention import triton as buffer
from mmkv.kernels.farthest import triton as farthest
from mmkv.kernels.merge import triton as merge
from mmkv.kernels.pack import form as packing
from mmkv.kernels.pack import naive as pack_naive
from mmkv.kernels.pack import triton as pack
from mmkv.kernels.pack.form import Form
from mmkv.kernels.packed_attention import Compact, PackedHistory, compact
from mmkv.kernels.packed_attention import naive as packed
from mmkv.kernels.packed_attention import triton as packed_attention
from mmkv.kernels.rotate_write import triton as rotate_write
from mmkv.kernels.score import triton as score
from mmkv.kernels.summarize import triton as summarize
from mmkv.kernels.token_pack import triton as token_pack
from mmkv.kernels.unpack_rotate import triton as unpack
from mmkv.kernels.widen import triton as widen
from mmkv.kernels.window_attention import naive as window_naive
from mmkv.kernels.window_attention import triton as window

# the language model of a 7B Qwen2.5-VL: 28 query heads, 4 key heads, head size 128
HEADS, KV, DIM = 28, 4, 128
K15 = Form(2, DIM // 2, "hadamard")
HALF, FLOAT = torch.bfloat16, torch.float32
zeros = torch.zeros


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """What these tests compile, from a process for each processor."""
    folder = tmp_path_factory.mktemp("triton")
    wanted = [
        (item.callspec.params["name"], item.callspec.params["arch"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_compiles_within_its_limits
    ]
    count = min(os.cpu_count() or 1, len(wanted))
    env = os.environ | {"TRITON_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([sys.executable, __file__], env=env, stdin=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    with ThreadPoolExecutor(max(1, count)) as pool:
        for i, worker in enumerate(workers):
            pool.submit(worker.communicate, json.dumps(wanted[i::count]))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))


def history(tokens: int, key_form: Form, value_form: Form, dim: int = DIM) -> PackedHistory:
    def params(form: Form) -> Compact:
        wide = zeros(2, KV, dim, dtype=torch.bool)
        words = zeros(2, KV, dim, dtype=torch.int32)
        return compact(packing.Params(words, zeros(2, KV), wide, zeros(0)), form)

    key_bytes, value_bytes = (packed.slot_bits(f) for f in (key_form, value_form))
    return PackedHistory(
        zeros(2, KV, tokens, dim * key_bytes // 8, dtype=torch.uint8),
        zeros(2, KV, dim, tokens * value_bytes // 8, dtype=torch.uint8),
        params(key_form), params(value_form), key_form, value_form,
    )  # fmt: skip


def run_window(
    n: int = 1568, dtype: torch.dtype = HALF, dim: int = DIM, ahead: bool = False
) -> None:
    ring = zeros(1, KV, 16000, dim, dtype=dtype)
    table = (zeros(n, dim), zeros(n, dim))
    chunk = window_naive.Chunk(50000, n, 14000, 16000, table, table, 14)
    if ahead:  # a layer with a window of its own has no sinks
        last = zeros(n, dtype=torch.long)
        chunk = window_naive.Chunk(1023, n, 1024, 1023 + n, table, last=last)
    query = zeros(1, n, HEADS, dim, dtype=dtype).transpose(1, 2)
    sinks = (ring[:, :, :14], ring[:, :, :14])
    window.window_attention(query, ring, ring, chunk, sinks, 0.1)


def run_buffer(n: int = 1, dtype: torch.dtype = HALF, lse: bool = False, dim: int = DIM) -> None:
    held = zeros(1, KV, 8192, dim, dtype=dtype)
    query = zeros(1, n, HEADS, dim, dtype=dtype).transpose(1, 2)
    at, turn = torch.tensor(8000) if n == 1 else 7000, (zeros(n, dim), zeros(n, dim))
    if lse:
        beside = (zeros(1, HEADS, n, dim), zeros(1, HEADS, n))
        buffer.buffer_attention_lse(query, held, held, at, 0.1, turn, beside)
    else:
        buffer.buffer_attention(query, held, held, at, 0.1, turn)


def run_write() -> None:
    ring, table = zeros(1, KV, 16000, DIM, dtype=HALF), (zeros(1568, DIM), zeros(1568, DIM))
    states = zeros(1, 1568, KV, DIM, dtype=HALF).transpose(1, 2)
    rotate_write.rotate_write(states, states, table, ring, ring, 15000)
    tokens = zeros(KV, 1000, dtype=torch.long)
    rotate_write.rotate_write(ring, ring, None, states, states, 0, tokens)


def run_packed(key_form: Form, value_form: Form, tokens: int = 512) -> None:
    query, visible = zeros(1, HEADS, 1, DIM, dtype=HALF), zeros(2, 2, dtype=torch.int32)
    held = history(tokens, key_form, value_form)
    turn, beside = (zeros(1, DIM), zeros(1, DIM)), (zeros(1, HEADS, 1, DIM), zeros(1, HEADS, 1))
    packed_attention.packed_attention(query, held, visible, 0.1, turn, beside, asm=True)


def run_pack(form: Form, dim: int = DIM) -> None:
    pack.pack(zeros(2, KV, 588, dim, dtype=HALF), [196] * 3, [588], form)


def run_unpack(form: Form) -> None:
    wide = zeros(2, KV, DIM, dtype=torch.bool)
    params = packing.Params(zeros(2, KV, DIM, dtype=torch.int32), zeros(2, KV), wide, zeros(0))
    rows, out = zeros(392, dtype=torch.long), zeros(KV, 392, DIM, dtype=HALF)
    codes, at = zeros(1 << 20, dtype=torch.uint8), torch.tensor([0, 60000])
    rotation = (zeros(392, DIM), zeros(392, DIM))
    unpack.unpack_rotate(codes, at, [196, 196], rows, params, form, rotation, out)


def run_tokens(levels: int = 4, dim: int = DIM) -> None:
    form, lengths = Form(levels), [196, 196, 100]
    states = zeros(2, 492, KV, dim, dtype=HALF).transpose(1, 2)
    data = token_pack.pack_tokens(states, lengths, form)[0]
    out = zeros(KV, 492, dim, dtype=HALF)
    token_pack.unpack_tokens(data, torch.tensor([0, 40000, 80000]), lengths, form, out)


def run_mass(dtype: torch.dtype = HALF, dim: int = DIM) -> None:
    query, key = zeros(HEADS, 64, dim, dtype=dtype), zeros(KV, 16384, dim, dtype=dtype)
    mass.attention_mass(query, key, 0.1, 16320, (zeros(64, dim), zeros(64, dim)))


def run_merge(dtype: torch.dtype = HALF, dim: int = DIM) -> None:
    states = zeros(KV, 196, dim, dtype=dtype)
    kept, gone = zeros(KV, 40, dtype=torch.long), zeros(KV, 156, dtype=torch.long)
    merge.merge(states, states, kept, gone)


def run_widen() -> None:
    data, pages = zeros(1 << 20, dtype=torch.uint8), torch.tensor([0, 60000])
    for form, values in ((K15, False), (Form(3), True), (Form(16), True)):
        given = (data, pages, [0, 9000], [196, 196], [392], form, (KV, 448, DIM))
        widen.widen(*given, values=values)


CALLS: dict[str, Callable[[], object]] = {
    "window_attention": run_window,
    "buffer_attention of a token": run_buffer,
    "buffer_attention of a prompt": lambda: run_buffer(60),
    "buffer_attention of a prompt, lse": lambda: run_buffer(60, lse=True),
    "buffer_attention of a prompt, float32": lambda: run_buffer(60, FLOAT),
    "rotate_write": run_write,
    "packed_attention": lambda: run_packed(Form(4), Form(4)),
    "packed_attention 1.5": lambda: run_packed(K15, Form(3)),
    "pack 1.5": lambda: run_pack(K15),
    "pack 1.58": lambda: run_pack(Form(3)),
    "pack 1.5 of 256 channels": lambda: run_pack(Form(2, 128, "hadamard"), 256),
    "pack 2": lambda: run_pack(Form(4)),
    "pack by formula": lambda: run_pack(Form(2, DIM // 2, "fft", fitted=False, centred=False)),
    "unpack_rotate 1.5": lambda: run_unpack(K15),
    "unpack_rotate 1.58": lambda: run_unpack(Form(3)),
    "token_pack": run_tokens,
    "token_pack of three groups, 4 bits": lambda: run_tokens(16, 96),
    "summarize": lambda: summarize.summarize(
        zeros(KV, 1568, DIM, dtype=HALF), zeros(8, 196, dtype=torch.long), 8
    ),
    "score": lambda: score.score(zeros(9, HEADS, DIM), [zeros(1000, 9, KV, DIM, dtype=HALF)]),
    "attention_mass": run_mass,
    "merge": run_merge,
    "widen": run_widen,
    "farthest": lambda: farthest.farthest(zeros(KV, 196, 2 * DIM)),
    "window_attention of frames that see ahead": lambda: run_window(dim=256, ahead=True),
    "window_attention, float32": lambda: run_window(dtype=FLOAT),
    "window_attention, 256 channels": lambda: run_window(dim=256),
    "window_attention, 256 channels, float32": lambda: run_window(dtype=FLOAT, dim=256),
    "window_attention, 512 channels": lambda: run_window(dim=512),
    "buffer_attention of a token, 512 channels": lambda: run_buffer(dim=512),
    "buffer_attention of a prompt, 512 channels": lambda: run_buffer(60, dim=512),
    "attention_mass, 512 channels": lambda: run_mass(dim=512),
    "buffer_attention, 256 channels, float32": lambda: run_buffer(60, FLOAT, dim=256),
    "attention_mass, float32": lambda: run_mass(FLOAT),
    "attention_mass, 256 channels, float32": lambda: run_mass(FLOAT, 256),
    "merge, float32": lambda: run_merge(FLOAT),
    "merge, 256 channels": lambda: run_merge(dim=256),
}
# bytes of registers that may go to memory, outside of the loops over tokens
SPILLS = {"_window_attention": 768}
MATRIX = {
    "_window_attention",
    "_buffer_attention",
    "_packed_attention",
    "_lse",
    "_mass",
    "_score",
    "_nearest",
    "_gather",
}


# variants that differ little are compiled for one generation only; those that take much shared
# memory for one that has the least
ONE = {
    "packed_attention 1.5": 90,
    "unpack_rotate 1.58": 90,
    "pack 1.58": 90,
    "pack 2": 90,
    "pack by formula": 90,
    "token_pack of three groups, 4 bits": 90,
    "buffer_attention of a prompt, lse": 90,
    "buffer_attention of a prompt, float32": 90,
    "window_attention of frames that see ahead": 89,
    **{n: 89 for n in CALLS if re.search("(256|512) channels|(window|mass|merge).*float", n)},
}
EVERY = [
    (name, arch) for name in CALLS for arch in ((ONE[name],) if name in ONE else ARCHITECTURES)
]


@pytest.mark.parametrize(("name", "arch"), EVERY)
def test_compiles_within_its_limits(name: str, arch: int) -> None:
    done = launches(arch, CALLS[name])
    assert done
    for launch in done:
        assert launch.shared <= SHARED[arch] * 1024, launch.name
        assert launch.usage["REG"] <= 255
        assert launch.usage["STACK"] <= SPILLS.get(launch.name, 0), launch.name
        double = [line for line in launch.sass if re.search(r"\bD(ADD|MUL|FMA|SETP|MNMX)\b", line)]
        assert not double, launch.name  # by a constant that float32 does not have
        if launch.name in MATRIX and "float32" not in name:
            assert any("MMA" in line for line in launch.sass), launch.name


def main_loop(done: list[Launch], name: str) -> tuple[Launch, list[str]]:
    launch = next(x for x in done if x.name == name)
    return launch, max(loops(launch.sass), key=len)


@pytest.mark.parametrize(
    ("arch", "key_form", "value_form"),
    [*((arch, Form(4), Form(4)) for arch in ARCHITECTURES), (90, K15, Form(3))],
)
def test_packed_attention_spends_two_instructions_on_an_element(
    arch: int, key_form: Form, value_form: Form
) -> None:
    done = launches(arch, lambda: run_packed(key_form, value_form))
    launch, loop = main_loop(done, "_packed_attention")
    tokens = launch.arguments["WORDS"] * 8
    elements = 2 * tokens * DIM  # of keys and values, in one turn of the loop
    assert len(loop) * 32 * launch.arguments["num_warps"] / elements <= 2.0


@pytest.mark.parametrize("levels", [4, 16])
def test_packing_tokens_spends_few_instructions_on_an_element(levels: int) -> None:
    done = launches(90, lambda: run_tokens(levels))
    assert [launch.name for launch in done] == ["_pack_tokens", "_unpack_tokens"]
    for launch, bar in zip(done, (30.0, 18.0), strict=True):
        count = sum("/*" in line for line in launch.sass)
        elements = launch.arguments["TILE"] * DIM
        assert count * 32 * launch.arguments["num_warps"] / elements <= bar, launch.name


@pytest.mark.parametrize(("form", "most"), [(Form(4), 45), (Form(3), 52), (K15, 128)])
def test_packing_reads_its_tokens_few_times(form: Form, most: float) -> None:
    """Instructions per element of a long page, loops counted as often as they run: 40, 49 and 96
    (Triton 3.6: 125).

    A fit that goes through all tokens at each of its steps takes 238, 223 and 439.
    """
    states = zeros(2, KV, 512, DIM, dtype=HALF)
    spent = 0.0
    for launch in launches(90, lambda: pack.pack(states, [196, 196, 120], [512], form)):
        count = sum("/*" in line for line in launch.sass)
        for loop in loops(launch.sass)[:-1]:  # the last is the padding behind the end
            count += len(loop) * (rounds(launch, loop) - 1)
        programs = math.prod(launch.grid)
        spent += count * programs * 32 * launch.arguments["num_warps"] / states.numel()
    assert spent <= most


def rounds(launch: Launch, loop: list[str]) -> int:
    """How often one of packing's loops runs for 512 tokens."""
    given = launch.arguments
    if any("MMA" in line for line in loop):  # over channels
        return DIM // 2 // 16
    if any("SHFL" in line for line in loop):  # Lloyd's steps
        return pack_naive.SAMPLE_STEPS
    if launch.name == "fit_levels" and given["LEVELS"] < 4 and not given["TRANSFORM"]:
        return 0  # nobody asks for the ends
    return 512 // given["TILE"]


def test_window_attention_does_not_spill_where_nothing_is_masked() -> None:
    launch = launches(90, run_window)[0]
    shortest = min((x for x in loops(launch.sass) if any("MMA" in y for y in x)), key=len)
    assert not any("LDL" in line or "STL" in line for line in shortest)


def test_transforms_that_do_not_fit_into_shared_memory_are_left_to_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = history(16, Form(2, 128, "hadamard"), Form(4), dim=256)
    for arch in ARCHITECTURES:
        monkeypatch.setattr("mmkv.kernels.configs.capability", lambda device, arch=arch: arch)
        assert packed_attention.supports(held) is (SHARED[arch] > 99)


def test_nothing_is_compiled_at_import(tmp_path: Path) -> None:
    code = "import mmkv.encode.window, mmkv.kernels.pack, sys; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


if __name__ == "__main__":  # one of the processes that compile
    for name, arch in json.load(sys.stdin):
        with suppress(Exception):  # its test will say so
            launches(arch, CALLS[name])
