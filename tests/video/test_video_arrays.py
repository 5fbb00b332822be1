"""Frames in memory, folders of images, iterators and sources of somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from video_files import number_of, numbered
from waiting import until

from mmkv.video import Frame, FrameSource, VideoError, open_source
from mmkv.video.images import natural

CLIP = np.stack([numbered(index) for index in range(20)])


def read(source: Any, **options: Any) -> list[tuple[float, int]]:
    with open_source(source, **options) as frames:
        return [(seconds, number_of(frame)) for seconds, frame in frames]


@pytest.mark.parametrize(
    "source",
    [
        CLIP,
        torch.from_numpy(CLIP),
        list(CLIP),
        [torch.from_numpy(frame) for frame in CLIP],
        [Image.fromarray(frame) for frame in CLIP],
        [Image.fromarray(frame).convert("RGBA") for frame in CLIP],
        CLIP[:, :, :, ::-1],
    ],
    ids=["array", "tensor", "list", "tensors", "images", "alpha", "not-contiguous"],
)
def test_frames_in_memory_with_their_own_rate(source: Any) -> None:
    assert read(source, fps=1.0, source_fps=4.0) == [(0, 0), (1, 4), (2, 8), (3, 12), (4, 16)]
    assert read(source, fps=2.0) == [(index / 2, index) for index in range(20)]
    with open_source(source, fps=None) as frames:
        assert all(frame.flags.c_contiguous for _, frame in frames)


def test_times_of_an_array_are_sampled() -> None:
    times = [0.0, 0.3, 0.9, 1.4, 5.0]
    assert read(CLIP[:5], fps=1.0, times=times) == [(0.0, 0), (0.9, 2), (1.4, 3), (5.0, 4)]
    assert read(CLIP[:5], fps=None, times=times) == list(zip(times, range(5), strict=True))


@pytest.mark.parametrize(
    ("source", "shape"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"ndarray uint8 \[4, 4, 3\]"),
        (np.zeros((2, 4, 4, 3), np.float32), r"ndarray float32 \[2, 4, 4, 3\]"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"ndarray uint8 \[2, 3, 4, 4\]"),
        (torch.zeros(2, 3, 4, 4), r"Tensor torch.float32 \[2, 3, 4, 4\]"),
        ([np.zeros((4, 4), np.uint8)], r"frame 0 must be .* got ndarray uint8 \[4, 4\]"),
        (["a.png"], "frame 0 must be .* got str"),
        (np.zeros((0, 4, 4, 3), np.uint8), "no frames"),
        ([], "no frames"),
        (None, "cannot read frames from NoneType"),
        (3.5, "cannot read frames from float"),
        (True, "cannot read frames from bool"),
        ({"a": 1}, "cannot read frames from dict"),
        (-1, "index is 0 or more"),
    ],
)
def test_wrong_shapes_and_types_are_named(source: Any, shape: str) -> None:
    with pytest.raises(ValueError, match=shape):
        read(source)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0], "one number per frame: 1 for 3"),
        ([0.0, 1.0, 1.0], "times must rise, but frame 2 at 1.0 s follows one at 1.0 s"),
        ([0.0, float("nan"), 2.0], "frame 1 is nan"),
    ],
)
def test_bad_times_are_named(times: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(CLIP[:3], times=times)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps must be a finite number"),
        ({"fps": float("inf")}, "fps must be a finite number"),
        ({"source_fps": -3}, "source_fps must be"),
        ({"reader": "ffmpeg"}, "reader must be one of auto, pyav, decord, opencv; got 'ffmpeg'"),
        ({"max_side": 0}, "max_side must be"),
        ({"timeout": 0}, "timeout must be"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(CLIP, **options)


def test_pairs_and_plain_frames_from_generators() -> None:
    pairs = ((index * 0.4, CLIP[index]) for index in range(10))
    assert [index for _, index in read(pairs, fps=1.0)] == [0, 2, 5, 7]
    assert read(iter(CLIP), fps=2.0)[:3] == [(0.0, 0), (0.5, 1), (1.0, 2)]
    assert read(iter(CLIP), fps=1.0, source_fps=10.0) == [(0.0, 0), (1.0, 10)]


def test_a_generator_may_reuse_its_buffer() -> None:
    def frames() -> Iterator[tuple[float, Frame]]:
        buffer = np.empty((48, 80, 3), np.uint8)
        for index in range(20):
            buffer[:] = numbered(index)
            yield index / 10, buffer

    assert [index for _, index in read(frames(), fps=None)] == list(range(20))
    assert [index for _, index in read(frames(), fps=5.0)] == list(range(0, 20, 2))


def test_an_error_in_a_generator_arrives_as_it_is() -> None:
    class CameraError(Exception): ...

    def frames() -> Iterator[tuple[float, Frame]]:
        yield 0.0, CLIP[0]
        raise CameraError("unplugged")

    with open_source(frames(), fps=None) as source:
        reading = iter(source)
        assert next(reading)[0] == 0.0
        with pytest.raises(CameraError, match="unplugged"):
            next(reading)


def test_a_generator_is_closed_when_reading_stops() -> None:
    closed: list[bool] = []

    def frames() -> Iterator[Frame]:
        try:
            while True:
                yield CLIP[0]
        finally:
            closed.append(True)

    with open_source(frames()) as source:
        next(iter(source))
    until(lambda: closed)
    assert closed == [True]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(0.0, CLIP[0]), (0.0, CLIP[1])], "times must rise, but frame 1 at 0.0 s"),
        ([(1.0, CLIP[0]), (0.5, CLIP[1])], "times must rise"),
        ([(float("nan"), CLIP[0])], "must be finite"),
        ([(CLIP[0], 0.0)], r"\(seconds, frame\) pairs; item 0"),
        ([(0.0, "x")], "frame 0 must be RGB"),
    ],
)
def test_bad_items_of_an_iterator_are_named(items: list[Any], message: str) -> None:
    with pytest.raises(VideoError, match=message):
        read(iter(items))


def test_folder_in_natural_order_with_an_unreadable_image(tmp_path: Path) -> None:
    for index in range(12):
        Image.fromarray(numbered(index)).save(tmp_path / f"frame{index}.png")
    (tmp_path / "frame5.png").write_bytes(b"damaged")
    (tmp_path / "notes.txt").write_text("not an image")
    with open_source(tmp_path, fps=2.0) as frames:
        got = [(seconds, number_of(frame)) for seconds, frame in frames]
        assert frames.duration == 6.0
    assert got == [(index / 2, index) for index in range(12) if index != 5]
    assert len(frames.warnings) == 1
    assert "frame5.png: left out" in frames.warnings[0]
    assert [index for _, index in read(tmp_path, fps=1.0, source_fps=4.0)] == [0, 4, 8]


def test_natural_order() -> None:
    names = ["b10.png", "b9.png", "a.png", "10.png", "9.png", "b9a.png"]
    assert sorted(names, key=natural) == [
        "9.png", "10.png", "a.png", "b9.png", "b9a.png", "b10.png",
    ]  # fmt: skip


def test_folder_of_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(VideoError, match="none of its 1 images can be read"):
        read(tmp_path)


class Counter(FrameSource):
    """What a user may write: no __init__, one method."""

    name = "counter"

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        index = 0
        while not self.closed and index < 20:
            yield index / 4, CLIP[index]
            index += 1


def test_own_frame_source_comes_back_as_it_is_or_sampled() -> None:
    own = Counter()
    assert open_source(own, fps=None) is own
    assert read(Counter(), fps=1.0) == [(0, 0), (1, 4), (2, 8), (3, 12), (4, 16)]
    with open_source(own, fps=1.0) as frames:
        assert (frames.name, frames.live, frames.dropped) == ("counter", False, 0)
        for _, _ in frames:
            frames.close()
    assert own.closed
    assert own.warnings == []
    assert Counter().warnings is not own.warnings


def test_own_live_source_is_sampled_without_delay() -> None:
    class Live(Counter):
        live = True
        given = 0

        def __iter__(self) -> Iterator[tuple[float, Frame]]:
            for item in super().__iter__():
                self.given += 1
                yield item

    own = Live()
    with open_source(own, fps=1.0) as frames:
        reading = iter(frames)
        assert [next(reading)[0], next(reading)[0]] == [0.0, 1.0]
        assert own.given == 5  # not one further
