"""Captioning on Ray: a local one with two actors; an actor that is killed, and its process."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from caption_clips import scenes, write_clip
from waiting import by_itself, until

from mmkv.demos.captioning.job import CaptioningError, Job
from mmkv.demos.captioning.listing import Video, listed
from mmkv.demos.captioning.output import Output
from mmkv.demos.captioning.progress import Tally
from mmkv.demos.captioning.settings import Captioning

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'mmkv-video[ray]')")
pytest.importorskip("ray.data")
JOB = Job(Captioning(max_new_tokens=16, summary=""))


def start() -> None:
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        object_store_memory=100 * 2**20,
    )  # fmt: skip


@pytest.fixture(scope="module")
def local() -> Iterator[None]:
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - else a busy machine starves them
    for left in (3, 2, 1, 0):
        try:
            start()
            break
        except Exception:  # a node that is not there within Ray's 30 seconds, on a busy machine
            ray.shutdown()
            if not left:
                raise
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos, and a file that is none."""
    path = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_clip(path / f"{number}.mp4", scenes(20 * number, 2))
    (path / "text.mp4").write_text("no video")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def caption(videos: list[Video], out: Path, job: Job = JOB) -> Tally:
    from mmkv.demos.captioning.on_ray import caption_on_ray

    with Output(out) as output:
        return caption_on_ray(videos, job, output, actors=2)


def test_two_actors_caption_what_an_earlier_run_left(
    local: None, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "captions.jsonl"
    videos = listed([str(folder)], None)
    with Output(out) as output:
        output.add({"id": videos[0].id, "path": videos[0].path, "config_hash": JOB.digest})
    tally = caption(videos, out)
    assert (tally.before, tally.done, tally.failed) == (1, 3, 1)
    rows = lines(out)
    assert sorted(Path(row["path"]).name for row in rows) == [f"{n}.mp4" for n in range(4)]
    assert all([s["start"] for s in row["segments"]] == [0.0, 1.0] for row in rows[1:])
    (error,) = lines(out.with_name("captions.errors.jsonl"))
    assert error["kind"] == "video"
    assert Path(error["path"]).name == "text.mp4"


def captioning() -> list[psutil.Process]:
    """The processes that hold a model for an actor of ours."""
    found = []
    for one in psutil.Process().children(recursive=True):
        try:
            if "mmkv.demos.captioning.worker" in one.cmdline():
                found.append(one)
        except psutil.Error:  # it has ended since
            continue
    return found


def test_after_an_actor_and_a_process_are_killed_every_video_has_its_row_once(
    local: None, folder: Path, tmp_path: Path
) -> None:
    killed: list[psutil.Process] = []

    def kill() -> None:
        first = until(captioning)[0]
        actor = first.parent()
        assert actor is not None
        actor.kill()
        killed.extend((first, actor))
        other = until(lambda: [one for one in captioning() if one.pid != first.pid])[0]
        other.kill()
        killed.append(other)

    killer = threading.Thread(target=by_itself, args=(kill,), daemon=True)
    killer.start()
    out = tmp_path / "captions.jsonl"
    videos = listed([str(folder / f"{n}.mp4") for n in range(4)], None)
    tally = caption(videos, out)
    killer.join()
    assert len(killed) == 3
    assert (tally.done, tally.failed) == (4, 0)
    assert sorted(row["id"] for row in lines(out)) == sorted(video.id for video in videos)
    until(lambda: not any(one.is_running() and one.status() != "zombie" for one in killed))


def test_a_model_that_is_not_there_ends_the_run(local: None, folder: Path, tmp_path: Path) -> None:
    job = Job(Captioning(), model=str(tmp_path / "no-model"))
    with pytest.raises(CaptioningError, match="no-model"):
        caption(listed([str(folder)], None)[:1], tmp_path / "c.jsonl", job)
