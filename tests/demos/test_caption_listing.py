"""Which videos a run is about."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmkv.demos.captioning.listing import Video, listed, shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.MKV", "deep/er/c.webm", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_a_folder_gives_its_videos_at_any_depth(folder: Path) -> None:
    found = listed([str(folder)], None)
    assert [Path(v.path).name for v in found] == ["a.MKV", "b.mp4", "c.webm"]


def test_a_list_gives_paths_and_ids(folder: Path) -> None:
    file = folder / "list.txt"
    file.write_text(f"# mine\n\nclip-7\t{folder}/b.mp4\n{folder}/deep/er/c.webm\n")
    found = listed([], str(file))
    assert [v.path for v in found] == [f"{folder}/b.mp4", f"{folder}/deep/er/c.webm"]
    assert found[0].id == "clip-7"


def test_a_list_comes_from_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}/b.mp4\n"))
    assert len(listed([], "-")) == 1


def test_a_video_named_twice_comes_once(folder: Path) -> None:
    assert len(listed([f"{folder}/b.mp4", str(folder)], None)) == 3


def test_the_id_is_the_same_however_the_path_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert Video.of("b.mp4") == Video.of(f"{folder}/deep/../b.mp4")


def test_two_videos_with_one_id_are_refused(folder: Path) -> None:
    file = folder / "list.txt"
    file.write_text(f"x\t{folder}/b.mp4\nx\t{folder}/a.MKV\n")
    with pytest.raises(ValueError, match="same id 'x'"):
        listed([], str(file))


def test_what_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        listed([f"{folder}/gone.mp4"], None)


def test_a_folder_without_videos_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no videos in it"):
        listed([str(tmp_path)], None)


def test_a_password_is_neither_shown_nor_in_the_id() -> None:
    video = Video.of("http://me:secret@host/a.mp4")
    assert "secret" not in video.shown
    assert video.id == Video.of("http://me:other@host/a.mp4").id


@settings(deadline=None)
@given(count=st.integers(1, 9), names=st.sets(st.text("abcdef", min_size=1), max_size=30))
def test_parts_are_disjoint_and_complete(count: int, names: set[str]) -> None:
    videos = [Video(name, f"/{name}") for name in sorted(names)]
    parts = [shard(videos, count, index) for index in range(count)]
    assert sorted(v.id for part in parts for v in part) == sorted(names)


def test_a_part_that_does_not_exist_is_told() -> None:
    with pytest.raises(ValueError, match="shard_index=3 of num_shards=3"):
        shard([], 3, 3)


def in_list(folder: Path, data: bytes) -> list[tuple[str, str]]:
    """Ids and paths of a list of these bytes; an id that was made is "made"."""
    (folder / "list.txt").write_bytes(data)
    found = listed([], str(folder / "list.txt"))
    return [("made" if len(v.id) == 16 else v.id, v.path) for v in found]


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_list_from_another_system_is_read(folder: Path, encoding: str, end: str) -> None:
    """Encodings with and without a mark, and line ends; a mark used to become part of a path."""
    text = end.join([f"{folder}/b.mp4", "", "# Größe", f"ü-7\t{folder}/a.MKV", ""])
    want = [("made", f"{folder}/b.mp4"), ("ü-7", f"{folder}/a.MKV")]
    assert in_list(folder, text.encode(encoding)) == want


@pytest.mark.parametrize(
    "line",
    [
        "{0}/b.mp4  ",
        "  {0}/b.mp4",
        '"{0}/b.mp4"',
        "'{0}/b.mp4' ",
        "{0}/b.mp4\t",
        "\t{0}/b.mp4",
        '"{0}/b.mp4"\t',
    ],
)
def test_what_is_around_a_path_is_dropped(folder: Path, line: str) -> None:
    """Spaces, quotation marks, and a tab that a spreadsheet leaves before or after."""
    assert in_list(folder, line.format(folder).encode()) == [("made", f"{folder}/b.mp4")]


@pytest.mark.parametrize(
    "name", ["c.mp4 ", " c.mp4", "c\td.mp4", '"c.mp4"', "c\x0bd.mp4", "c\u2028d.mp4"]
)
def test_a_name_that_really_is_so_is_found(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that end in a space, hold a tab or a line separator, or have quotation marks."""
    monkeypatch.chdir(folder)
    (folder / name).write_bytes(b"x")
    assert in_list(folder, f"{name}\nb.mp4 \n".encode()) == [
        ("made", str(folder / name)),
        ("made", f"{folder}/b.mp4"),
    ]


def test_quotation_marks_around_an_id_too(folder: Path) -> None:
    assert in_list(folder, f'"x 1"\t"{folder}/b.mp4"'.encode()) == [("x 1", f"{folder}/b.mp4")]


def test_a_list_in_another_encoding_is_refused_with_its_line(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"list\.txt: line 2 is not UTF-8 text; save the list"):
        in_list(folder, b"a.mp4\nGr\xf6\xdfe.mp4\n")


def test_a_folders_other_kinds_are_taken_or_told(folder: Path) -> None:
    """Suffixes in capitals, bare streams, and pictures that move; pictures that do not are told."""
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("1.GIF", "2.webp", "3.png"):
        pages[0].save(folder / name, save_all=True, append_images=pages[1:], duration=100)
    for name in ("still.gif", "still.webp", "still.png", "still.JPG"):
        pages[0].save(folder / name)
    for name in ("4.h264", "5.HEVC", "photo.heic", "cut.gif"):
        (folder / name).write_bytes(b"x")
    with pytest.warns(
        UserWarning, match=r"no videos.*: 2 \.gif, 1 \.heic, 1 \.jpg, 1 \.png, 1 \.webp"
    ):
        found = listed([str(folder)], None)
    names = {Path(v.path).name for v in found}
    assert names == {"1.GIF", "2.webp", "3.png", "4.h264", "5.HEVC", "a.MKV", "b.mp4", "c.webm"}


def test_a_folder_without_videos_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no videos in it.*1 \.heic"):
        listed([str(tmp_path)], None)


def test_a_name_that_is_no_text_has_an_id(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / name).write_bytes(b"x")
    (video,) = listed([str(tmp_path)], None)
    assert len(video.id) == 16
    assert shard([video], 1, 0) == [video]
