"""The next video, opened while another is captioned: by any reader, wherever its thread ends.

Tried: every reader that is installed, among them decord, whose process ends with the thread that
started it; a file that cannot be opened; a video that is given up before and after it is open.
"""

from __future__ import annotations

import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from video_files import write_video
from waiting import until

from mmkv.demos.captioning import ahead
from mmkv.demos.captioning.ahead import Ahead
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.settings import Captioning
from mmkv.video import VideoError

MODULES = {"pyav": "av", "decord": "decord", "opencv": "cv2"}


@pytest.fixture
def video(tmp_path: Path) -> Video:
    times = [250 * i for i in range(80)]
    return Video.of(str(write_video(tmp_path / "x.mp4", times, size=(64, 64))))


def readers() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name == "mmkv-ahead"}


@pytest.mark.parametrize("reader", [name for name in MODULES if find_spec(MODULES[name])])
def test_every_frame_arrives_long_after_it_was_opened(video: Video, reader: str) -> None:
    opened = Ahead(video, Captioning(fps=1, reader=reader))
    source = opened.take()
    opened._thread.join(1.0)  # time for a thread that would end, and its process with it
    with source:
        assert [round(seconds) for seconds, _ in source] == list(range(20))
    opened.close()
    until(lambda: not readers())


def test_a_file_that_cannot_be_opened_is_told_in_its_turn(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("no video")
    opened = Ahead(Video.of(str(tmp_path / "x.mp4")), Captioning())
    with pytest.raises(VideoError):
        opened.take()
    opened.close()
    until(lambda: not readers())


@pytest.mark.parametrize("early", [True, False])
def test_a_video_that_is_given_up_is_closed(
    video: Video, early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, closed = threading.Event(), threading.Event()
    real = ahead.open_source

    def slow(*given: Any, **how: Any) -> Any:
        go.wait()
        source = real(*given, **how)
        close = source.close

        def noted() -> None:
            close()
            closed.set()

        source.close = noted
        return source

    monkeypatch.setattr(ahead, "open_source", slow)
    opened = Ahead(video, Captioning())
    if early:
        opened.close()
    go.set()
    if not early:
        opened.take()
        opened.close()
    until(closed.is_set)
    until(lambda: not readers())
