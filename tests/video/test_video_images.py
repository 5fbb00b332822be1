"""Folders of images: every kind of pixel, every orientation, and what is passed over."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmkv.video import VideoError, open_source
from mmkv.video.still import read_still

RAMP = np.linspace(0, 255, 256).astype(np.uint8)[None].repeat(4, axis=0)  # [4, 256]


def shown(folder: Path) -> tuple[list[np.ndarray[Any, Any]], list[str]]:
    """A folder's frames, and its warnings."""
    with open_source(folder, fps=None) as frames:
        return [frame for _, frame in frames], frames.warnings


def png16(levels: np.ndarray[Any, Any]) -> bytes:
    """A 16-bit PNG of grey or colour; OpenCV writes the colour that Pillow cannot."""
    import cv2

    return bytes(cv2.imencode(".png", levels)[1])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_of_16_bits_has_the_brightness_of_8(tmp_path: Path, suffix: str) -> None:
    """Its levels used to be cut off at 255: nearly all white."""
    image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    image.save(tmp_path / f"a.{suffix}")
    (frame,), warnings = shown(tmp_path)
    np.testing.assert_array_equal(frame, RAMP[..., None].repeat(3, axis=2))
    assert warnings == []


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_16_bits_has_the_brightness_of_8(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    import cv2

    deep = np.stack([RAMP, RAMP[:, ::-1], RAMP // 2, np.full_like(RAMP, 255)], axis=-1)[
        ..., :channels
    ]
    assert cv2.imwrite(str(tmp_path / f"a{suffix}"), deep.astype(np.uint16) * 257)
    (frame,), warnings = shown(tmp_path)
    assert np.abs(frame.astype(int) - deep[..., 2::-1].astype(int)).max() <= 1
    assert warnings == []


def test_floats_go_from_black_to_white(tmp_path: Path) -> None:
    Image.fromarray((RAMP / 255).astype(np.float32)).save(tmp_path / "a.tif")
    (frame,), _ = shown(tmp_path)
    np.testing.assert_array_equal(frame, RAMP[..., None].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (RAMP.astype(np.float32), "floats from 0 to 255"),
        (np.full((4, 4), np.nan, np.float32), "floats from nan to nan"),
        (RAMP.astype(np.int32) * 1000, "32-bit integers"),
    ],
)
def test_pixels_of_unknown_brightness_are_left_out_with_a_word(
    tmp_path: Path, values: np.ndarray[Any, Any], reason: str
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    Image.fromarray(RAMP).save(tmp_path / "b.png")
    frames, warnings = shown(tmp_path)
    assert len(frames) == 1
    assert len(warnings) == 1
    assert reason in warnings[0]


def layered(mode: str) -> Image.Image:
    """Red on the left, half transparent red in the middle, nothing on the right."""
    rgba = np.zeros((8, 24, 4), np.uint8)
    rgba[:, :8], rgba[:, 8:16] = (200, 0, 0, 255), (200, 0, 0, 128)
    return Image.fromarray(rgba).convert(mode)


@pytest.mark.parametrize(
    ("name", "mode", "want"),
    [
        ("a.png", "RGBA", [[200, 0, 0], [227, 127, 127], [255, 255, 255]]),
        ("a.webp", "RGBA", [[200, 0, 0], [227, 127, 127], [255, 255, 255]]),
        ("a.tif", "RGBA", [[200, 0, 0], [227, 127, 127], [255, 255, 255]]),
        ("a.png", "LA", [[60, 60, 60], [157, 157, 157], [255, 255, 255]]),
    ],
)
def test_transparent_parts_are_white(
    tmp_path: Path, name: str, mode: str, want: list[list[int]]
) -> None:
    layered(mode).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    (frame,), _ = shown(tmp_path)
    np.testing.assert_allclose(frame[4, [4, 12, 20]], want, atol=1)


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    """Siblings: a GIF's, a PNG's, and the one transparent colour of a PNG without a palette."""
    flat = Image.fromarray(np.array([[0, 1, 2]] * 3, np.uint8).repeat(4, axis=1))
    flat = flat.convert("P", palette=Image.Palette.ADAPTIVE)
    flat.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    corner = flat.getpixel((0, 0))
    flat.save(tmp_path / "1.png", transparency=corner)
    flat.save(tmp_path / "2.gif", transparency=corner)
    flat.convert("RGB").save(tmp_path / "3.png", transparency=flat.convert("RGB").getpixel((0, 0)))
    frames, warnings = shown(tmp_path)
    assert [frame[1, 1].tolist() for frame in frames] == [[255, 255, 255]] * 3
    assert [len(set(frame[1, 9].tolist())) for frame in frames] == [2] * 3  # the rest is coloured
    assert warnings == []


@pytest.mark.parametrize(
    ("name", "mode"), [("a.jpg", "CMYK"), ("a.tif", "CMYK"), ("a.png", "1"), ("a.tif", "1"),
                       ("a.png", "P"), ("a.jpg", "YCbCr"), ("a.jpg", "L")],
)  # fmt: skip
def test_other_pixels_have_pillows_colours(tmp_path: Path, name: str, mode: str) -> None:
    blocks = Image.fromarray(
        np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((16, 16), np.uint8))
    )
    blocks.convert("RGB").convert(mode).save(tmp_path / name)
    (frame,), warnings = shown(tmp_path)
    assert np.abs(frame[8, [8, 24]].astype(int) - [[0] * 3, [255] * 3]).max() <= 4
    assert warnings == []


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientations(tmp_path: Path, suffix: str, number: int) -> None:
    """All eight, in every format that has them; expected by the Exif specification's words."""
    # where row 0 and column 0 of what is stored are in what is seen
    rows = {1: "t", 2: "t", 3: "b", 4: "b", 5: "l", 6: "r", 7: "r", 8: "l"}[number]
    columns = {1: "l", 2: "r", 3: "r", 4: "l", 5: "t", 6: "t", 7: "b", 8: "b"}[number]
    stored = np.full((64, 96, 3), 128, np.uint8)
    stored[:16], stored[:, :16] = 0, 255  # row 0 is black, column 0 white
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[0x0112] = number
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    (frame,), _ = shown(tmp_path)
    assert frame.shape == ((64, 96, 3) if number < 5 else (96, 64, 3))
    middle = {"t": frame[4, 40], "b": frame[-4, 40], "l": frame[40, 4], "r": frame[40, -4]}
    assert middle[rows].mean() < 40
    assert middle[columns].mean() > 215


def test_an_image_in_memory_is_shown_as_one_in_a_folder() -> None:
    """PIL images of a list: 16 bits, alpha and an Exif orientation."""
    turned = io.BytesIO()
    image = Image.fromarray(np.zeros((4, 256), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(turned, "PNG", exif=exif)
    given = [Image.fromarray(RAMP.astype(np.uint16) * 257), layered("RGBA"), Image.open(turned)]
    with open_source(given, fps=None) as frames:
        deep, clear, upright = (frame for _, frame in frames)
    np.testing.assert_array_equal(deep[..., 0], RAMP)
    assert clear[4, 20].tolist() == [255, 255, 255]
    assert upright.shape == (256, 4, 3)


def test_what_is_passed_over_is_told(tmp_path: Path) -> None:
    """Siblings: suffixes in capitals, and kinds that were not looked for, are taken."""
    for name in ("1.GIF", "2.WebP", "3.JPEG", "4.TIF", "5.avif", "6.tga", "7.pgm", "8.jfif"):
        kind = {"jfif": "jpeg", "tif": "tiff"}.get(name.split(".")[1].lower())
        Image.fromarray(RAMP).convert("L").save(tmp_path / name, kind)
    for name in ("a.heic", "b.HEIC", "c.h264", "notes.txt", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"x")
    frames, warnings = shown(tmp_path)
    assert len(frames) == 8
    assert len(warnings) == 1
    assert warnings[0].endswith("no images that mmkv reads: 1 .h264, 2 .heic")


def test_a_folder_of_what_cannot_be_read_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(VideoError, match=r"no images in this folder.*1 \.heic"):
        open_source(tmp_path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_image_is_left_out_whatever_pillow_raises(tmp_path: Path) -> None:
    """Each kind, cut off in its header, in its middle, and with a byte changed."""
    Image.fromarray(RAMP).save(tmp_path / "z.png")
    for suffix in ("png", "webp", "gif", "bmp", "tif", "tga", "jp2", "avif", "pgm"):
        data = io.BytesIO()
        image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
        image.save(data, {"tif": "tiff", "jp2": "jpeg2000", "pgm": "ppm"}.get(suffix, suffix))
        whole = data.getvalue()
        (tmp_path / f"{suffix}-1.{suffix}").write_bytes(whole[:20])
        (tmp_path / f"{suffix}-2.{suffix}").write_bytes(whole[: len(whole) // 2])
        (tmp_path / f"{suffix}-3.{suffix}").write_bytes(whole[:9] + b"\xff" + whole[10:])
    frames, warnings = shown(tmp_path)
    assert 1 <= len(frames) <= 28
    assert len(frames) + len(warnings) == 28
    np.testing.assert_array_equal(frames[-1][..., 0], RAMP)


def test_a_file_of_several_pages_shows_its_first(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    (frame,), warnings = shown(tmp_path)
    assert frame[0, 0].tolist() == [255, 0, 0]
    assert len(warnings) == 1
    assert "first of its 2 pictures" in warnings[0]


def test_a_large_canvas_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A WebP's header alone: its decoder would take the whole canvas at once."""
    size = (16383 - 1).to_bytes(3, "little")
    head = b"RIFF" + (22).to_bytes(4, "little") + b"WEBPVP8X" + (10).to_bytes(4, "little")
    (tmp_path / "a.webp").write_bytes(head + b"\x02\0\0\0" + size + size)
    with pytest.raises(VideoError, match="16383×16383 pixels is too large"):
        read_still(tmp_path / "a.webp")
    with pytest.raises(VideoError, match="16383×16383 pixels is too large"):
        open_source(tmp_path / "a.webp")


@pytest.mark.parametrize(
    ("frames", "advice"),
    [
        (np.full((1, 4, 4, 3), 0.5, np.float32), r"floats from 0 to 1 with \(frames \* 255\)"),
        (np.full((1, 4, 4, 3), 200.0), r"floats from 0 to 255 with frames\.round"),
        (np.full((1, 4, 4, 3), -1.5), "undo their normalisation"),
        ([np.full((4, 4, 3), 0.5, np.float16)], r"floats from 0 to 1 with \(frames \* 255\)"),
    ],
)
def test_frames_of_floats_are_told_how_to_become_bytes(frames: Any, advice: str) -> None:
    with pytest.raises(VideoError, match=advice), open_source(frames, fps=None) as source:
        list(source)
