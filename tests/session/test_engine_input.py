"""Wrong input is refused in one sentence and leaves the stream usable; odd input works."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import archived_kv
from small_models import FAMILIES, clip, small_vlm

import mmkv

CONFIG = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4, chunk_frames=4)
VLM = small_vlm("llava_onevision")


@pytest.fixture
def stream() -> Any:
    with VLM.stream(CONFIG) as opened:
        yield opened


@pytest.mark.parametrize("field", ["window_frames", "chunk_frames"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True])
def test_a_size_that_has_to_be_one_or_more_is_named(field: str, value: Any) -> None:
    message = rf"{field}={value!r} is not allowed; use a whole number of 1 or more"
    with pytest.raises(ValueError, match=message):
        mmkv.CacheConfig(**{field: value})


@pytest.mark.parametrize("field", ["recent_frames", "retrieve_frames"])
@pytest.mark.parametrize("value", [-1, 0.5, "most"])
def test_a_size_that_has_to_be_zero_or_more_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field}={value!r} is not allowed; use a whole number"):
        mmkv.CacheConfig(**{field: value})


def test_all_frames_may_be_retrieved_but_not_be_recent() -> None:
    assert mmkv.CacheConfig(retrieve_frames="all").retrieve_frames == "all"
    with pytest.raises(ValueError, match="recent_frames='all' is not allowed"):
        mmkv.CacheConfig(recent_frames="all")  # type: ignore[arg-type]


def test_more_recent_frames_than_the_window_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="recent_frames=9 is more than window_frames=8"):
        mmkv.CacheConfig(window_frames=8, recent_frames=9)


@pytest.mark.parametrize("value", [0, -5, "many", "8 PB", "1.5", True, 2.5, ""])
def test_a_memory_limit_that_is_no_size_is_refused(value: Any) -> None:
    if value == "1.5":  # a byte and a half
        assert mmkv.CacheConfig(max_ram=value).max_ram == 1
        return
    with pytest.raises(ValueError, match=r"max_ram=.* is not a size; use bytes or a text"):
        mmkv.CacheConfig(max_ram=value)


@pytest.mark.parametrize(
    ("text", "value"), [("8GB", 8 * 10**9), ("500 mb", 5 * 10**8), ("1.5KB", 1500), (7, 7)]
)
def test_a_memory_limit_may_be_a_text(text: Any, value: int) -> None:
    assert mmkv.CacheConfig(max_ram=text).max_ram == value


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        mmkv.CacheConfig().window_frames = 3  # type: ignore[misc]


def test_a_stream_takes_a_configuration_only() -> None:
    with pytest.raises(ValueError, match="is not a CacheConfig"):
        VLM.stream({"window_frames": 4})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8, 3), dtype=np.float32),
        np.zeros((2, 8, 8, 3), dtype=np.uint16),
        np.zeros((2, 8, 8, 4), dtype=np.uint8),
        np.zeros((2, 3, 8, 8), dtype=np.uint8),
        np.zeros((8, 8), dtype=np.uint8),
        np.zeros((0, 8, 8, 3), dtype=np.uint8),
        np.zeros((1, 0, 8, 3), dtype=np.uint8),
        torch.zeros(1, 8, 8, 3),
    ],
    ids=lambda f: f"{tuple(f.shape)}-{f.dtype}",
)
def test_frames_of_another_kind_are_shown_with_what_is_allowed(
    stream: mmkv.Stream, frames: Any
) -> None:
    shape = re.escape(str(tuple(frames.shape)))
    with pytest.raises(ValueError, match=rf"shape {shape} and type .*pass uint8 \[N, H, W, 3\]"):
        stream.feed(frames, np.arange(float(len(frames))))


def test_what_is_no_array_is_refused(stream: mmkv.Stream) -> None:
    with pytest.raises(ValueError, match="frames are list; pass a uint8 array"):
        stream.feed([[1]], 0.0)  # type: ignore[arg-type]


def test_an_unknown_channel_order_is_refused(stream: mmkv.Stream) -> None:
    with pytest.raises(ValueError, match="channels='gbr' is not known; use 'rgb' or 'bgr'"):
        stream.feed(clip(1), 0.0, channels="gbr")  # type: ignore[arg-type]


def test_bgr_frames_are_turned_round(stream: mmkv.Stream) -> None:
    frames = clip(3).numpy()
    stream.feed(frames[..., ::-1], np.arange(3.0), channels="bgr")
    with VLM.stream(CONFIG) as other:
        other.feed(frames, np.arange(3.0))
        assert torch.equal(archived_kv(stream), archived_kv(other))


def test_a_late_time_that_does_not_rise_refuses_all_frames_of_the_call() -> None:
    frames = np.zeros((20, 24, 24, 3), dtype=np.uint8)
    with small_vlm("llava_onevision").stream() as stream:
        with pytest.raises(ValueError, match="times must rise"):
            stream.feed(frames, [*range(18), 3.0, 19.0])  # in the third chunk
        assert stream.stats().frames == 0


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0], "1 times for 2 frames"),
        ([0.0, 1.0, 2.0], "3 times for 2 frames"),
        ([0.0, float("nan")], "time is nan; pass finite seconds"),
        ([0.0, float("inf")], "time is inf; pass finite seconds"),
        ([0.0, 1e12], "time is 1000000000000.0; pass finite seconds, at most 1e"),
        ([1.0, 1.0], "a frame at 1.0 s came after one at 1.0 s; times must rise"),
        ([1.0, 0.5], "a frame at 0.5 s came after one at 1.0 s; times must rise"),
        (["soon", "later"], "are not numbers; pass seconds"),
        (None, "time is nan|1 times for 2 frames"),
    ],
)
def test_wrong_times_are_refused_and_nothing_is_encoded(
    stream: mmkv.Stream, times: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stream.feed(clip(2), times)
    assert stream.stats().frames == 0
    stream.feed(clip(2), [0.0, 1.0])
    assert stream.ask("What?", max_new_tokens=1).as_of == 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frame_from_before_is_refused_and_the_stream_goes_on(family: str) -> None:
    with small_vlm(family).stream(CONFIG) as stream:
        stream.feed(clip(5), np.arange(5.0))
        for late in (3.5, 4.0):
            with pytest.raises(ValueError, match=rf"at {late} s came after one at 4\.0 s"):
                stream.feed(clip(1), late)
        stream.feed(clip(1), 4.5)
        assert (stream.stats().frames, stream.seconds) == (6, 4.5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(96, 64), (30, 200), (1, 1), (480, 640), (1, 300)])
def test_frames_of_another_size_are_fitted_into_the_first_ones(
    family: str, size: tuple[int, int]
) -> None:
    with small_vlm(family).stream(CONFIG) as stream:
        stream.feed(clip(3), np.arange(3.0))
        tokens = stream._state.block_tokens
        stream.feed(clip(3, height=size[0], width=size[1]), np.arange(3.0, 6.0))
        assert stream._state.block_tokens == tokens
        assert stream.ask("What?", max_new_tokens=1).as_of == 5.0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (1080, 1920)])
def test_a_first_frame_of_odd_size_works(family: str, size: tuple[int, int]) -> None:
    with small_vlm(family).stream(CONFIG) as stream:
        stream.feed(clip(2, height=size[0], width=size[1]), [0.0, 1.0])
        assert stream.ask("What?", max_new_tokens=1).as_of == 1.0


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_shape_that_no_grid_fits_is_refused_and_the_stream_stays_usable(family: str) -> None:
    with small_vlm(family).stream(CONFIG) as stream:
        with pytest.raises(ValueError, match="600x2 pixels is more than 200 times longer"):
            stream.feed(clip(1, height=2, width=600), 0.0)
        stream.feed(clip(2), [0.0, 1.0])
        assert stream.stats().frames == 2


def test_letterboxing_adds_black_and_keeps_the_shape() -> None:
    from mmkv.models.fit import fit_frames
    from mmkv.models.grid import Grid
    from mmkv.models.preprocess import Preprocess

    white = torch.full((1, 40, 10, 3), 255, dtype=torch.uint8)
    plain = Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3)
    fitted = fit_frames(white, Grid(20, 20, 1, 1, 40, 40), plain)[0, 0]
    assert fitted.shape == (20, 20)
    assert (fitted[:, 7:12].mean() - 1).abs() < 1e-6  # a quarter as wide as tall, in the middle
    assert fitted[:, :7].max() == fitted[:, 12:].max() == 0


def test_read_only_and_reversed_arrays_are_taken_without_a_warning(stream: mmkv.Stream) -> None:
    frames = clip(4).numpy()[::-1]
    frames.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream.feed(frames, np.arange(4.0))
        stream.push([(4.0, frames[0])])
    assert stream.stats().frames == 5


def test_frames_are_not_changed_by_feeding_them(stream: mmkv.Stream) -> None:
    frames = clip(5, height=40, width=40)
    before = frames.clone()
    stream.feed(frames, np.arange(5.0))
    assert torch.equal(frames, before)


def test_pushing_nothing_changes_nothing(stream: mmkv.Stream) -> None:
    stream.push([])
    assert (stream.stats().frames, stream.seconds) == (0, None)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_frames_of_floats_are_told_how_to_become_bytes(
    stream: mmkv.Stream, kind: torch.dtype
) -> None:
    with pytest.raises(ValueError, match=r"floats from 0 to 1 with \(frames \* 255\)"):
        stream.feed(torch.full((8, 8, 3), 0.5, dtype=kind), 0.0)
