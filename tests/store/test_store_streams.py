"""A stream kept in a store is answered, and goes on, as if it had never been closed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import archived_kv
from small_models import EVERY, FAMILIES, PREPROCESS, clip, small_vlm
from stock import QUESTION, Stock, teacher_forced
from store_blocks import without_fsync
from waiting import until

import mmkv
from mmkv.store import StoreError, StoreMismatchError

CONFIG = mmkv.CacheConfig(
    window_frames=6, recent_frames=2, retrieve_frames=4, chunk_frames=4, snapshot_frames=2
)


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    with without_fsync():
        yield


def logits(stream: mmkv.Stream, **options: Any) -> torch.Tensor:
    with stream.ask_iter("Which?", max_new_tokens=1, **options) as reply:
        return reply._generation.logits


@pytest.mark.parametrize("where", ["writer", "reader", "later", "from disk alone"])
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_retrieved_through_a_store_equals_plain_transformers(
    family: str, where: str, tmp_path: Path
) -> None:
    vlm = small_vlm(family)
    frames, times = clip(14, seed=3), [0.5 * i for i in range(14)]
    ram = 1000 if where == "from disk alone" else "8GB"
    config = mmkv.CacheConfig(
        window_frames=20, recent_frames=2, retrieve_frames=50, page_tokens=20, max_ram=ram
    )
    writer = vlm.stream(config, store=tmp_path / "s")
    writer.feed(frames, times)
    writer.flush()
    if where in ("later", "from disk alone"):
        writer.close()
    stream = writer if where == "writer" else vlm.open(tmp_path / "s", config=config)
    rows, ids = teacher_forced(stream, 4)
    reads = stream._state.archive.reads
    assert (reads.disk == 0) == (where == "writer")
    with torch.inference_mode():
        expected = Stock(vlm, frames, times).logits(QUESTION, ids)
    for step, row in enumerate(rows[: len(ids)]):
        want = expected[-1 - len(ids) + step]
        assert (row - want).abs().max() <= 1e-4 * max(1.0, want.abs().max().item())
    stream.close()
    writer.close()


@pytest.mark.parametrize("count", [3, 26, 27])
@pytest.mark.parametrize("family", EVERY)
def test_an_opened_stream_answers_exactly_as_the_closed_one(
    family: str, count: int, tmp_path: Path
) -> None:
    vlm = small_vlm(family)
    with vlm.stream(CONFIG, store=tmp_path / "s", system="Watch.") as stream:
        stream.feed(clip(count), np.arange(float(count)))
        stream.flush()
        want = [logits(stream), logits(stream, until=count - 2.0), logits(stream, since=1.0)]
        span = stream.seconds
    for mode in ("r", "a"):
        with vlm.open(tmp_path / "s", mode=mode) as again:
            assert again.seconds == span
            assert again.stats().frames == count
            got = [logits(again), logits(again, until=count - 2.0), logits(again, since=1.0)]
        assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize("counts", [(2, 1, 20), (9, 16, 7), (26, 27, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_encoding_goes_on_as_if_it_had_not_stopped(
    family: str, counts: tuple[int, ...], tmp_path: Path
) -> None:
    vlm, total = small_vlm(family), sum(counts)
    frames, times = clip(total), np.arange(float(total)) * 0.7 + 3
    with vlm.stream(CONFIG) as whole:
        at = 0
        for count in counts:
            whole.feed(frames[at : at + count], times[at : at + count])
            at += count
        want, answer = archived_kv(whole), logits(whole)
        far = whole._state.window.far_distance
    at = 0
    for count in counts:
        opened = (
            vlm.open(tmp_path / "s", mode="a") if at else vlm.stream(CONFIG, store=tmp_path / "s")
        )
        with opened as part:
            part.feed(frames[at : at + count], times[at : at + count])
            at += count
            if at == total:
                assert torch.equal(archived_kv(part), want)
                assert torch.equal(logits(part), answer)
                assert part._state.window.far_distance == far


def test_a_source_after_opening_continues_the_time(tmp_path: Path) -> None:
    vlm = small_vlm("llava_onevision")
    with vlm.stream(CONFIG, store=tmp_path / "s") as stream:
        stream.encode(clip(5).numpy(), fps=1.0)
    with vlm.open(tmp_path / "s", mode="a") as stream:
        with pytest.raises(ValueError, match="times must rise"):
            stream.feed(clip(1), 3.0)
        stream.encode(clip(5).numpy(), fps=1.0)
        assert stream.seconds == 9.0
        assert stream.ask("Which?", since=7.5, max_new_tokens=1).as_of == 9.0


def test_a_reader_follows_and_takes_no_frames(tmp_path: Path) -> None:
    vlm = small_vlm("qwen3_vl")
    with vlm.stream(CONFIG, store=tmp_path / "s") as writer, vlm.open(tmp_path / "s") as reader:
        with pytest.raises(ValueError, match="no frames yet"):
            reader.ask("Which?")
        for stop in (7, 8, 19, 33):
            start = writer.stats().frames
            writer.feed(clip(33)[start:stop], np.arange(float(start), float(stop)))
            writer.flush()
            assert torch.equal(logits(reader), logits(writer))
            assert reader.seconds == stop - 1
        for call in (lambda: reader.feed(clip(1), 99.0), lambda: reader.encode(clip(1).numpy())):
            with pytest.raises(ValueError, match="mode='a'"):
                call()
        with pytest.raises(StoreError, match="is being written by process"):
            vlm.open(tmp_path / "s", mode="a")


def test_an_opened_stream_can_be_packed(tmp_path: Path) -> None:
    vlm = small_vlm("qwen2_5_vl")
    config = mmkv.CacheConfig(
        window_frames=6, recent_frames=2, retrieve_frames=4, key_bits=2, value_bits=2
    )
    with vlm.stream(config, store=tmp_path / "s") as stream:
        stream.feed(clip(40), np.arange(40.0))
        stream.flush()
        answer = stream.ask("Which?", until=30.0, max_new_tokens=4).token_ids
    with vlm.open(tmp_path / "s") as again:
        assert again.ask("Which?", until=30.0, max_new_tokens=4).token_ids == answer
        assert again.config.retrieve_frames == 4
    with vlm.open(tmp_path / "s", config=config, mode="a") as again:
        again.feed(clip(4), np.arange(40.0, 44.0))
    other = mmkv.CacheConfig(key_bits=4, value_bits=4)
    with pytest.raises(StoreMismatchError, match="is packed by"):
        vlm.open(tmp_path / "s", config=other)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "s"
    with small_vlm("qwen3_vl").stream(CONFIG, store=path) as stream:
        stream.feed(clip(8), np.arange(8.0))
    return path


@pytest.mark.parametrize("mode", ["r", "a"])
def test_another_model_is_refused_and_what_differs_is_named(kept: Path, mode: Any) -> None:
    with pytest.raises(StoreMismatchError, match="its weights differ"):
        small_vlm("qwen3_vl", seed=1).open(kept, mode=mode)
    with pytest.raises(StoreMismatchError, match="family is 'qwen3_vl' in the store"):
        small_vlm("llava_onevision").open(kept, mode=mode)
    small_vlm("qwen3_vl").open(kept, mode=mode).close()  # refusing has locked nothing


def test_other_rope_settings_are_refused(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = small_vlm("qwen3_vl")
    rope = dict(vlm.adapter.text_config.rope_parameters, rope_theta=5e5)
    monkeypatch.setattr(vlm.adapter.text_config, "rope_parameters", rope)
    with pytest.raises(StoreMismatchError, match=r"rope_theta is 10000\.0 in the store, here 5"):
        vlm.open(kept)


def test_other_preparation_of_frames_is_refused(kept: Path) -> None:
    vlm = small_vlm("qwen3_vl")
    other = mmkv.load(
        model=vlm.model,
        tokenizer=vlm.tokenizer,
        preprocess={"image_mean": [0.1, 0.2, 0.3]},
        max_pixels=12 * 16 * 16,
    )
    assert PREPROCESS.mean != (0.1, 0.2, 0.3)
    with pytest.raises(StoreMismatchError, match="preprocess mean is"):
        other.open(kept)


def test_another_window_or_mode_is_refused(kept: Path) -> None:
    vlm = small_vlm("qwen3_vl")
    with pytest.raises(ValueError, match="window_frames=9 is not what the store was encoded with"):
        vlm.open(kept, config=mmkv.CacheConfig(window_frames=9))
    with pytest.raises(ValueError, match="mode='w' is not allowed"):
        vlm.open(kept, mode="w")  # type: ignore[arg-type]
    with vlm.open(kept, config=mmkv.CacheConfig(retrieve_frames=2, recent_frames=0)) as stream:
        assert (stream.config.window_frames, stream.config.retrieve_frames) == (6, 2)


@pytest.mark.parametrize(("name", "other"), [("landmarks", 3), ("thumbnails", True)])
def test_what_a_store_keeps_of_frames_may_not_be_named_otherwise(
    name: str, other: Any, kept: Path
) -> None:
    vlm = small_vlm("qwen3_vl")
    with pytest.raises(ValueError, match=f"{name}={other} is not what the store was encoded with"):
        vlm.open(kept, config=mmkv.CacheConfig(**{name: other}))
    with vlm.open(kept, config=mmkv.CacheConfig(landmarks=5, thumbnails=False)) as stream:
        assert stream.config.landmarks == 5


def test_only_a_configuration_is_taken_for_one(kept: Path) -> None:
    with pytest.raises(ValueError, match=r"config=\{\} is not a CacheConfig"):
        small_vlm("qwen3_vl").open(kept, config={})  # type: ignore[arg-type]


def test_an_existing_store_names_open(kept: Path) -> None:
    with pytest.raises(StoreError, match="open"):
        small_vlm("qwen3_vl").stream(CONFIG, store=kept)


def test_the_store_knows_its_dtype_but_another_may_read_it(kept: Path) -> None:
    vlm = small_vlm("qwen3_vl")
    half = mmkv.load(
        model=type(vlm.model)(vlm.model.config).bfloat16(),
        tokenizer=vlm.tokenizer,
        preprocess=PREPROCESS,
        max_pixels=12 * 16 * 16,
    )
    half.model.load_state_dict(vlm.model.state_dict())
    with half.open(kept) as stream:
        assert stream.ask("Which?", max_new_tokens=2).token_ids
        assert archived_kv(stream).dtype == torch.bfloat16


def test_memory_is_bounded_while_a_store_grows(tmp_path: Path) -> None:
    config = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4, max_ram=200_000)
    with small_vlm("llava_onevision").stream(config, store=tmp_path / "s") as stream:
        for at in range(0, 200, 20):
            stream.feed(clip(20), np.arange(20.0) + at)
            stream.flush()
            stats = stream.stats()
            assert stats.archive_bytes <= 200_000
            assert (stats.archived_frames, stats.forgotten_frames) == (at + 20, 0)
            assert stats.disk_bytes >= (at + 20) * stats.bytes_per_frame
            assert stats.backlog_bytes == 0
        early = stream.ask("Which?", until=50.0, max_new_tokens=1)
        assert early.as_of == 50.0


def test_an_error_of_the_disk_comes_up_at_the_next_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_vlm("llava_onevision").stream(CONFIG, store=tmp_path / "s") as stream:
        stream.feed(clip(20), np.arange(20.0))
        stream.flush()
        writer = stream._state.archive.sink.writer
        with monkeypatch.context() as patch:
            patch.setattr(writer, "write", _full)
            stream.feed(clip(4), np.arange(20.0, 24.0))
            with pytest.raises(StoreError, match=r"No space left.* frames up to 19\.00 s"):
                stream.flush()
            frames = stream.stats().frames
            until(lambda: stream._state.archive.sink._state.error)
            with pytest.raises(StoreError, match="No space left"):
                stream.feed(clip(4), np.arange(24.0, 28.0))
            assert stream.stats().frames == frames == 24
            assert stream.ask("Which?", max_new_tokens=1).as_of == 23.0
            until(lambda: stream._state.archive.sink._state.error)
        with pytest.raises(StoreError):
            stream.flush()
        stream.flush()
    with small_vlm("llava_onevision").open(tmp_path / "s") as again:
        assert again.stats().frames == 24


def _full(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


def without_segment(path: Path, number: int) -> None:
    (path / f"{number:06d}.data").unlink()


def in_segments(vlm: mmkv.VideoLM, path: Path, counts: tuple[int, ...]) -> None:
    """A store with so many frames in each segment, a frame a second."""
    with vlm.stream(CONFIG, store=path) as stream:
        for i, count in enumerate(counts):
            if i:
                at = int(stream.seconds) + 1
                writer, block = stream._state.archive.sink.writer, stream._state.archive.last
                writer._begin(replace(block, index=block.index + 1))
            else:
                at = 0
            stream.feed(clip(count, seed=i), np.arange(float(at), at + count))
            stream.flush()


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_of_a_lost_segment_are_told_and_never_offered(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vlm, path = small_vlm(family), tmp_path / "s"
    in_segments(vlm, path, (8, 8, 8))
    everything = replace(CONFIG, window_frames=None, retrieve_frames=50)
    with vlm.open(path, config=everything) as stream:
        whole = logits(stream, since=16.0)
    without_segment(path, 1)
    with vlm.open(path, config=everything) as stream:
        for _ in range(2):
            seen = {frame.index // 8 for frame in stream.ask("Which?", max_new_tokens=1).frames}
            assert seen == {0, 2}
        assert {m.index // 8 for m in stream.find("Which?", k=20)} <= {0, 2}
        assert torch.equal(logits(stream, since=16.0, until=23.5), whole)
        with pytest.raises(ValueError, match="no frames between since=9"):
            stream.ask("Which?", since=9.0, until=14.0)
    told = [r.getMessage() for r in caplog.records if "has lost" in r.getMessage()]
    assert len(told) == 1
    assert "frames 8 to 15 (after 7.00 s and before 16.00 s)" in told[0]
    assert "000001.data is missing" in told[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_store_goes_on_behind_a_loss_that_its_window_no_longer_shows(
    family: str, tmp_path: Path
) -> None:
    vlm, path = small_vlm(family), tmp_path / "s"
    in_segments(vlm, path, (8, 8, 8))
    frames, times = clip(9, seed=5), np.arange(24.0, 33.0)
    shutil.copytree(path, tmp_path / "whole")
    without_segment(path, 1)
    found = []
    for folder in (tmp_path / "whole", path):
        with vlm.open(folder, mode="a") as stream:
            stream.feed(frames, times)
            stream.flush()
            found.append(logits(stream, since=24.0))
    assert torch.equal(*found)
    with vlm.open(path) as stream:
        assert torch.equal(logits(stream, since=24.0), found[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_store_that_lost_frames_of_its_window_is_read_but_not_gone_on_with(
    family: str, tmp_path: Path
) -> None:
    vlm, path = small_vlm(family), tmp_path / "s"
    in_segments(vlm, path, (8, 8, 2))
    with vlm.open(path) as stream:
        whole = logits(stream, since=16.0), logits(stream, until=7.0)
    without_segment(path, 1)
    with pytest.raises(StoreError, match=r"would see in their window: frames 8 to 15 .*mode='r'"):
        vlm.open(path, mode="a")
    with vlm.open(path) as stream:
        assert torch.equal(logits(stream, since=16.0), whole[0])
        assert torch.equal(logits(stream, until=7.0), whole[1])
    without_segment(path, 2)
    with pytest.raises(StoreError, match=r"newest frames are lost: frames from 8 on .*mode='r'"):
        vlm.open(path, mode="a")


def test_damage_in_the_newest_frames_leaves_the_others_to_questions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vlm = small_vlm("llava_onevision")
    config = replace(CONFIG, page_tokens=20)
    with vlm.stream(config, store=tmp_path / "s") as stream:
        stream.feed(clip(14), [float(i) for i in range(14)])
        stream.flush()
        want = logits(stream, until=5.0)
        stored = stream._state.archive.snapshot().pages[-1].stored
        begin, size = stored._payload, int(stored.sizes.sum())
    data = bytearray((tmp_path / "s" / "000000.data").read_bytes())
    data[begin + size - 3] ^= 255
    (tmp_path / "s" / "000000.data").write_bytes(data)
    with vlm.open(tmp_path / "s") as again:
        assert "some of the newest frames" in caplog.text
        torch.testing.assert_close(logits(again, until=5.0), want, rtol=1e-4, atol=1e-4)
        with pytest.raises(StoreError, match="damaged"):
            again.ask("Which?", max_new_tokens=1)
    with pytest.raises(
        StoreError, match=r"cannot be continued.*some of the newest frames.*mode='r'"
    ):
        vlm.open(tmp_path / "s", mode="a")
