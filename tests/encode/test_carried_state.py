"""The state that recurrent layers carry: whose it is, and how an earlier one is had again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import clip, small_vlm
from stock import QUESTION, tolerance

import mmkv
from mmkv.cli.store import describe, lines
from mmkv.config.units import size
from mmkv.encode import replay, state_log
from mmkv.encode.replay import NoStateError
from mmkv.encode.window import EncodePass, Window
from mmkv.engine import hooks
from mmkv.engine.carry import Carry, new_carry
from mmkv.engine.devices import layer_devices
from mmkv.store import StoreError, StoreMismatchError

FAMILY = "qwen3_5"
SMALL: dict[str, Any] = {
    "window_frames": 6,
    "recent_frames": 2,
    "retrieve_frames": 4,
    "chunk_frames": 4,
}


def times(n: int, start: float = 0.0) -> np.ndarray:
    return np.arange(n) + start


def config(**more: Any) -> mmkv.CacheConfig:
    return mmkv.CacheConfig(**{**SMALL, **more})


def state(stream: mmkv.Stream) -> list[torch.Tensor]:
    """The state after everything seen, copied."""
    window = stream._state.window
    assert window is not None
    assert window.carry is not None
    return [tensor.clone() for tensor in window.carry.tensors()]


def logits(stream: mmkv.Stream, **options: Any) -> torch.Tensor:
    """Logits of the first three tokens of an answer."""
    with stream.ask_iter(QUESTION, max_new_tokens=3, **options) as reply:
        rows = [reply._generation.logits.clone()]
        rows += [reply._generation.logits.clone() for _ in iter(reply._advance, False)]
    return torch.stack(rows)


def near(one: torch.Tensor, other: torch.Tensor) -> None:
    """As near as the stock model is to itself when its chunks are others."""
    assert (one - other).abs().max() <= 5 * tolerance(FAMILY) * max(1, one.abs().max().item())


def test_an_answer_depends_on_the_state() -> None:
    vlm = small_vlm(FAMILY)
    with vlm.stream(config()) as stream:
        stream.feed(clip(12), times(12))
        want = logits(stream)
        window = stream._state.window
        assert window is not None
        window.carry = Carry(vlm.adapter)
        assert (logits(stream) - want).abs().max() > 0.05


def test_a_state_has_the_size_of_its_formula_however_long_the_stream_is() -> None:
    vlm = small_vlm(FAMILY)
    text = vlm.adapter.text_config
    keys, values = text.linear_num_key_heads, text.linear_num_value_heads
    wide, high = text.linear_key_head_dim, text.linear_value_head_dim
    kernel = text.linear_conv_kernel_dim
    layer = 4 * values * wide * high + 4 * (2 * keys * wide + values * high) * kernel
    with vlm.stream(config()) as stream:
        for at in (0, 40):
            stream.feed(clip(8), times(8, at))
            assert sum(t.nbytes for t in state(stream)) == 2 * layer
            assert stream.stats().state_bytes == 2 * 2 * layer  # now, and before the last chunk


@pytest.mark.parametrize("sizes", [[29, 17, 30, 14], [1] * 20 + [30, 40], [90]])
@torch.inference_mode()
def test_a_window_beside_the_state_is_the_stock_forward_with_a_banded_mask(
    sizes: list[int],
) -> None:
    vlm = small_vlm(FAMILY)
    adapter, tokens, local = vlm.adapter, sum(sizes), 23
    embeds = torch.randn(tokens, 64, generator=torch.Generator().manual_seed(1)) / 4
    where = np.broadcast_to(np.arange(tokens), (3, tokens))
    window = Window(
        adapter.shape, vlm.rotary, layer_devices(adapter), vlm.dtype, local, max(sizes),
        adapter.advances, new_carry(adapter),
    )  # fmt: skip
    hidden = []
    with hooks.attached(adapter.language_model):
        for at, n in zip(np.cumsum([0, *sizes]), sizes, strict=False):
            encode = EncodePass(window, where[:, at : at + n])
            hidden.append(hooks.run(adapter, encode, embeds[at : at + n], encode.carry))
            encode.commit()
    back = torch.arange(tokens)[:, None] - torch.arange(tokens)
    seen = ((back >= 0) & (back < local))[None, None]
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    stock = adapter.language_model(
        inputs_embeds=embeds[None],
        position_ids=torch.arange(tokens)[None],
        attention_mask={"full_attention": mask, "linear_attention": None},
        use_cache=False,
    ).last_hidden_state[0]
    near(stock, torch.cat(hidden))


@pytest.mark.parametrize("family", ["qwen3_5", "gemma4", "gemma4_moe"])
def test_an_hour_takes_what_was_foretold(family: str) -> None:
    vlm = small_vlm(family)
    foretold = vlm.gb_per_hour(1, 48, 64)
    with vlm.stream(config()) as stream:
        stream.feed(clip(64), times(64))
        stream.flush()
        stats, blocks = stream.stats(), stream._state.archive.snapshot().blocks
        tokens = sum(block.tokens for block in blocks)
        assert stats.archive_bytes == tokens * vlm.bytes_per_token
        assert stats.archive_bytes / 64 * 3600 / 1e9 == pytest.approx(foretold, rel=0.05)
        assert stats.gb_per_hour == pytest.approx(foretold, rel=0.05)  # by the newest block


def test_a_fork_shares_nothing() -> None:
    with small_vlm(FAMILY).stream(config()) as stream:
        stream.feed(clip(8), times(8))
        window = stream._state.window
        assert window is not None
        assert window.carry is not None
        before, fork = state(stream), window.carry.fork()
        for tensor in fork.tensors():
            tensor.fill_(torch.nan)
        assert all(map(torch.equal, before, window.carry.tensors()))
        assert not fork.load(Carry(stream._runtime.adapter))  # of before the first token
        assert window.carry.with_tensors(before).load(fork)


def test_a_state_of_other_shapes_is_refused() -> None:
    with small_vlm(FAMILY).stream(config()) as stream:
        stream.feed(clip(8), times(8))
        window = stream._state.window
        assert window is not None
        assert window.carry is not None
        with pytest.raises(
            ValueError, match="3 tensors does not fit this model, whose state has 4"
        ):
            window.carry.with_tensors(state(stream)[:3])


@pytest.mark.parametrize("store", [False, True])
def test_snapshots_are_exact_and_what_is_between_them_is_replayed(
    store: bool, tmp_path: Path
) -> None:
    vlm, frames = small_vlm(FAMILY), clip(40)
    made = config(snapshot_frames=12)
    path = str(tmp_path / "kv") if store else None
    ends = {n: vlm.stream(made) for n in (8, 12, 20, 24, 36)}
    for n, ended in ends.items():
        ended.feed(frames[:n], times(n))
    with vlm.stream(made, store=path) as stream:
        stream.feed(frames, times(40))
        for n, ended in ends.items():
            want, got = logits(ended), logits(stream, until=n - 1.0)
            near(want, got)
            blocks = stream._state.archive.snapshot().blocks
            with torch.inference_mode():
                carry = stream._state.carry_after(blocks[n // 2 - 1])
            assert carry is not None
            for one, other in zip(carry.tensors(), state(ended), strict=True):
                near(one, other)
                # a snapshot, or the chunk before the newest
                assert torch.equal(one, other) or n not in (12, 24, 36)
    for ended in ends.values():
        ended.close()


@pytest.mark.parametrize("keep", [1, 3])
def test_a_state_is_looked_up_where_it_is_and_not_made_again(
    keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed: list[int] = []
    plain = replay.replay

    def counted(adapter: Any, window: Any, blocks: Any) -> None:
        replayed.append(len(blocks))
        plain(adapter, window, blocks)

    monkeypatch.setattr(replay, "replay", counted)
    with small_vlm(FAMILY).stream(config(snapshot_frames=8)) as stream:
        stream.feed(clip(32), times(32))
        stream.ask(QUESTION, max_new_tokens=1)
        stream.ask(QUESTION, max_new_tokens=1, until=15.0)  # a snapshot
        assert replayed == []
        stream.ask(QUESTION, max_new_tokens=1, until=15.0 + 2 * keep)
        assert replayed == [keep]


def test_old_snapshots_go_where_memory_ends_and_questions_about_them_are_refused() -> None:
    with small_vlm(FAMILY).stream(config(snapshot_frames=8, snapshot_ram="100KB")) as stream:
        sizes = []
        for at in range(0, 160, 8):
            stream.feed(clip(8, seed=at), times(8, at))
            sizes.append(stream.stats().snapshot_bytes)
        assert max(sizes) <= 100_000 + sizes[0]
        assert logits(stream, until=151.0).isfinite().all()
        with pytest.raises(
            NoStateError, match=r"at 9\.00 s is no longer kept .*raise snapshot_ram"
        ):
            stream.ask(QUESTION, until=9.0)
        with pytest.raises(ValueError, match="no longer kept"):  # what users catch
            stream.find(QUESTION, until=9.0)
        stream.ask(QUESTION, max_new_tokens=1)


def test_without_snapshots_an_earlier_moment_is_refused() -> None:
    with small_vlm(FAMILY).stream(config(snapshot_frames=0)) as stream:
        stream.feed(clip(16), times(16))
        assert stream.stats().snapshot_bytes == 0
        with pytest.raises(NoStateError, match="snapshot_frames=0 keeps none"):
            stream.ask(QUESTION, until=7.0)
        stream.ask(QUESTION, max_new_tokens=1, until=15.0)
        stream.ask(QUESTION, max_new_tokens=1, since=10.0)


def test_a_store_needs_snapshots(tmp_path: Path) -> None:
    vlm = small_vlm(FAMILY)
    with pytest.raises(ValueError, match="snapshot_frames=0 keeps none of the state"):
        vlm.stream(config(snapshot_frames=0), store=str(tmp_path / "kv"))
    assert not (tmp_path / "kv").exists()
    with vlm.stream(config(), store=str(tmp_path / "kv")) as stream:
        stream.feed(clip(8), times(8))
    with pytest.raises(ValueError, match="snapshot_frames=0 keeps none of the state"):
        vlm.open(str(tmp_path / "kv"), config=mmkv.CacheConfig(snapshot_frames=0))
    small_vlm("qwen3_vl").stream(config(snapshot_frames=0), store=str(tmp_path / "other")).close()


@pytest.mark.parametrize("bad", [-1, 1.5, True])
def test_frames_between_snapshots_are_a_whole_number(bad: Any) -> None:
    with pytest.raises(ValueError, match="snapshot_frames"):
        mmkv.CacheConfig(snapshot_frames=bad)


def test_snapshots_are_as_far_apart_as_makes_them_as_large_as_what_is_between() -> None:
    assert state_log.frames_apart(64 * 1000, 1000, 2) == 128
    assert state_log.frames_apart(0, 1000, 2) == 32
    assert state_log.frames_apart(10**9, 1000, 1) == 512


@pytest.mark.parametrize("n", [16, 22, 23])
def test_a_reopened_stream_goes_on_as_if_it_had_not_stopped(n: int, tmp_path: Path) -> None:
    vlm, frames = small_vlm(FAMILY), clip(40)
    made = config(snapshot_frames=12)
    with vlm.stream(made) as whole:
        whole.feed(frames[:n], times(n))
        whole.feed(frames[n:], times(40 - n, n))
        want, wanted = logits(whole), state(whole)
    with vlm.stream(made, store=str(tmp_path / "kv")) as stream:
        stream.feed(frames[:n], times(n))
        asked = logits(stream)
    for mode in ("r", "a"):
        with vlm.open(str(tmp_path / "kv"), mode) as again:
            near(asked, logits(again))
    with vlm.open(str(tmp_path / "kv"), "a") as again:
        again.feed(frames[n:], times(40 - n, n))
        near(want, logits(again))
        for one, other in zip(wanted, state(again), strict=True):
            near(one, other)


def test_a_reader_follows_the_state_of_the_writer(tmp_path: Path) -> None:
    vlm = small_vlm(FAMILY)
    with vlm.stream(config(snapshot_frames=12), store=str(tmp_path / "kv")) as writer:
        writer.feed(clip(14), times(14))
        writer.flush()
        with vlm.open(str(tmp_path / "kv")) as reader:
            near(logits(writer), logits(reader))
            for at in (14, 30, 31):
                writer.feed(clip(7, seed=at), times(7, 10.0 * at))
                writer.flush()
                near(logits(writer), logits(reader))
                near(logits(writer, until=11.0), logits(reader, until=11.0))


def snapshots_of(path: Path) -> list[bytes]:
    """All snapshots in a store, oldest first."""
    with small_vlm(FAMILY).open(str(path)) as stream:
        past = stream._state.archive.snapshot()
        held = [past.side(state_log.STATE, block) for block in past.blocks]
    return [data for data in held if data is not None]


def damage(path: Path, data: bytes) -> None:
    """Change a byte in the middle of what a store holds."""
    for file in path.rglob("*"):
        if file.is_file() and (at := file.read_bytes().find(data)) >= 0:
            with file.open("r+b") as changed:
                changed.seek(at + len(data) // 2)
                changed.write(bytes([data[len(data) // 2] ^ 1]))
            return
    raise AssertionError("not in the store")


def test_where_the_newest_snapshot_is_damaged_the_one_before_is_replayed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vlm, path = small_vlm(FAMILY), tmp_path / "kv"
    with vlm.stream(config(snapshot_frames=12), store=str(path)) as stream:
        stream.feed(clip(32), times(32))
        want, wanted = logits(stream), state(stream)
    kept = snapshots_of(path)
    assert len(kept) == 2
    for data in reversed(kept):  # then all of them: from the opening on
        damage(path, data)
        with caplog.at_level(logging.WARNING), vlm.open(str(path), "a") as again:
            near(want, logits(again))
            for one, other in zip(wanted, state(again), strict=True):
                near(one, other)
    assert not caplog.records  # nothing is lost


def test_what_lies_between_snapshots_is_named_where_it_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vlm, path = small_vlm(FAMILY), tmp_path / "kv"
    with vlm.stream(config(snapshot_frames=12), store=str(path)) as stream:
        stream.feed(clip(32), times(32))
        blocks = stream._state.archive.snapshot()
        data = blocks.side(state_log.EMBEDS, blocks.blocks[-1])
    assert data is not None
    damage(path, data)
    with caplog.at_level(logging.WARNING), vlm.open(str(path)) as reader:
        assert logits(reader).isfinite().all()
        assert "has lost part of the state that the model carried" in caplog.text
    with pytest.raises(StoreError, match="cannot be continued"):
        vlm.open(str(path), "a")


@pytest.mark.parametrize("archived", [0, 1, 2])
def test_an_interrupt_between_archive_and_state_leaves_both_at_one_place(
    archived: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = clip(16)
    with small_vlm(FAMILY).stream(config(chunk_frames=4)) as whole:
        whole.feed(frames, times(16))
        want = state(whole)
    with small_vlm(FAMILY).stream(config(chunk_frames=4)) as stream:
        stream.feed(frames[:8], times(8))
        blocks = stream._state.archive._blocks
        add, count = blocks.add, [0]

        def torn(more: Any) -> None:
            if count[0] == archived:
                raise KeyboardInterrupt
            count[0] += 1
            add(more)

        with monkeypatch.context() as patch:
            patch.setattr(type(blocks), "add", lambda self, more: torn(more))
            if archived < 2:
                with pytest.raises(KeyboardInterrupt):
                    stream.feed(frames[8:12], times(4, 8))
            else:
                stream.feed(frames[8:12], times(4, 8))
        stream.feed(frames[8 + 2 * archived :], times(8 - 2 * archived, 8 + 2 * archived))
        for one, other in zip(want, state(stream), strict=True):
            near(one, other)


def test_what_snapshots_take_of_a_store_is_told(tmp_path: Path) -> None:
    vlm, path = small_vlm(FAMILY), str(tmp_path / "kv")
    with vlm.stream(config(snapshot_frames=12), store=path) as stream:
        stream.feed(clip(32), times(32))
        tokens = sum(block.tokens for block in stream._state.archive.snapshot().blocks)
        assert stream.stats().snapshot_bytes == 0
        one = sum(tensor.nbytes for tensor in state(stream))
    found = describe(path, check=True)
    assert found["beside_bytes"] == {"embeds": tokens * 64 * 4, "state": 2 * one}
    assert found["damaged"] == []
    assert f"snapshots are {size(2 * one)} of it" in lines(found)


def test_a_store_of_a_model_with_other_layers_is_refused_with_what_differs(tmp_path: Path) -> None:
    with small_vlm("gemma4").stream(config(), store=str(tmp_path / "kv")) as stream:
        stream.feed(clip(6), times(6))
    other = small_vlm("gemma4", sliding_window=24)
    with pytest.raises(StoreMismatchError, match=r"sliding_window is 40 in the store, here 24"):
        other.open(str(tmp_path / "kv"))
    with pytest.raises(StoreMismatchError, match="family is 'gemma4' in the store, here 'qwen3_5'"):
        small_vlm(FAMILY).open(str(tmp_path / "kv"))


def test_a_large_state_is_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmkv.encode.state._SMALL", 0)
    with small_vlm(FAMILY).stream(config()) as stream, small_vlm(FAMILY).stream(config()) as short:
        stream.feed(clip(16), times(16))
        short.feed(clip(16)[:12], times(12))
        assert stream.stats().state_bytes == sum(t.nbytes for t in state(stream))
        near(logits(short), logits(stream, until=11.0))
