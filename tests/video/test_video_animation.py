"""Animated pictures are videos: all of their frames, at the times that browsers show them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from mmkv.cli import main
from mmkv.video import VideoError, open_source
from mmkv.video.animation import is_animation

COLOURS = ["red", "lime", "blue", "white", "black"]
PALETTE = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)])
FORMATS = ["webp", "png", "gif", "avif"]


def animate(path: Path, delays: Any = 1000, **options: Any) -> Path:
    """An animation of five colours; its delays are in milliseconds."""
    if path.suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    pages = [Image.new("RGB", (64, 48), colour) for colour in COLOURS]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=delays, **options)
    return path


def shown(path: Path, **options: Any) -> tuple[list[tuple[float, int]], list[str]]:
    """Times and numbers of a file's frames, and its warnings."""
    with open_source(path, **{"fps": None, **options}) as frames:
        found = [
            (round(seconds, 3), int(np.abs(PALETTE - frame[20, 30]).sum(axis=1).argmin()))
            for seconds, frame in frames
        ]
        return found, frames.warnings


@pytest.mark.parametrize("format", FORMATS)
def test_all_frames_come_at_their_times(tmp_path: Path, format: str) -> None:
    path = animate(tmp_path / f"a.{format}", [1000, 500, 20, 2000, 300])
    found, warnings = shown(path)
    assert found == [(0.0, 0), (1.0, 1), (1.5, 2), (1.52, 3), (3.52, 4)]
    assert warnings == []
    assert shown(path, fps=1.0)[0] == [(0.0, 0), (1.0, 1), (1.52, 3), (3.0, 3)]
    assert is_animation(path)


@pytest.mark.parametrize("delay", [0, 10])
@pytest.mark.parametrize("format", FORMATS)
def test_a_delay_of_nearly_nothing_is_a_tenth_of_a_second(
    tmp_path: Path, format: str, delay: int
) -> None:
    found, _ = shown(animate(tmp_path / f"a.{format}", delay))
    assert found == [(0.0, 0), (0.1, 1), (0.2, 2), (0.3, 3), (0.4, 4)]


@pytest.mark.parametrize("loop", [0, 1, 3])
@pytest.mark.parametrize("format", ["webp", "png", "gif"])
def test_nothing_is_repeated(tmp_path: Path, format: str, loop: int) -> None:
    found, _ = shown(animate(tmp_path / f"a.{format}", loop=loop))
    assert [number for _, number in found] == [0, 1, 2, 3, 4]


def test_a_pngs_picture_for_others_is_not_part_of_it(tmp_path: Path) -> None:
    found, _ = shown(animate(tmp_path / "a.png", default_image=True))
    assert found == [(0.0, 1), (1.0, 2), (2.0, 3), (3.0, 4)]


def test_frames_that_are_patches_are_put_together(tmp_path: Path) -> None:
    """An animation stores what changes, over transparency; the rest stays as it was."""
    for name in ("a.webp", "a.png", "a.gif"):
        pages = [Image.new("RGBA", (64, 48), (0, 0, 0, 0))]
        for number in range(3):
            page = pages[-1].copy()
            page.paste((200, 0, 0, 255), (16 * number, 0, 16 * number + 16, 48))
            pages.append(page)
        options = {"lossless": True} if name == "a.webp" else {}
        pages[0].save(
            tmp_path / name, save_all=True, append_images=pages[1:], duration=100, **options
        )
        with open_source(tmp_path / name, fps=None) as frames:
            rows = [[int(frame[20, x, 1]) for x in (8, 24, 40, 56)] for _, frame in frames]
        assert rows == [[255] * 4, [0, 255, 255, 255], [0, 0, 255, 255], [0, 0, 0, 255]]


@pytest.mark.parametrize("format", FORMATS)
def test_in_a_folder_the_first_picture_is_shown_with_a_word(tmp_path: Path, format: str) -> None:
    animate(tmp_path / f"a.{format}")
    Image.new("RGB", (64, 48), "lime").save(tmp_path / "b.jpg")
    found, warnings = shown(tmp_path)
    assert [number for _, number in found] == [0, 1]
    assert len(warnings) == 1
    assert "only the first of its 5 pictures is shown" in warnings[0]


def test_times_do_not_drift(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), number) for number in range(200)]
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:], duration=70)
    with open_source(tmp_path / "a.gif", fps=None) as frames:
        assert [seconds for seconds, _ in frames] == [70 * number / 1000 for number in range(200)]


@pytest.mark.parametrize("format", ["webp", "png"])
def test_an_animation_cut_off_gives_what_is_there(tmp_path: Path, format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), np.uint8)
    pages = [Image.fromarray(page) for page in noise]
    pages[0].save(tmp_path / f"a.{format}", save_all=True, append_images=pages[1:], duration=100)
    data = (tmp_path / f"a.{format}").read_bytes()
    for share in (0.9, 0.5, 0.02):
        (tmp_path / f"b.{format}").write_bytes(data[: int(len(data) * share)])
        with (
            contextlib.suppress(VideoError),
            open_source(tmp_path / f"b.{format}", fps=None) as frames,
        ):
            count = len(list(frames))
            assert 0 < count < 5
            assert len(frames.warnings) == 1


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif", "a.jpg"])
def test_a_still_is_no_animation(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (64, 48), "red").save(tmp_path / name)
    assert not is_animation(tmp_path / name)


def test_it_is_told_by_what_is_in_it_and_not_by_its_name(tmp_path: Path) -> None:
    path = animate(tmp_path / "a.webp").rename(tmp_path / "a.mp4")
    assert len(shown(path)[0]) == 5


def test_a_large_picture_is_scaled_down(tmp_path: Path) -> None:
    with open_source(animate(tmp_path / "a.webp"), fps=None, max_side=32) as frames:
        assert {frame.shape for _, frame in frames} == {(24, 32, 3)}


def test_mmkv_asks_about_an_animation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = animate(tmp_path / "a.webp")
    monkeypatch.setattr("sys.argv", ["mmkv", "ask", str(path), "What is there?", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["as_of"] == 4.0
