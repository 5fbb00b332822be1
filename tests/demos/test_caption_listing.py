"""Which videos a run is about."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
