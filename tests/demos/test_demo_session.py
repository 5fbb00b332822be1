"""The demo: one visitor's video, questions and settings."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from demo_visitors import FAST, Clock, answered, tiny, until
from video_servers import jpeg
from waiting import PATIENCE

from mmkv.demos.app.files import open_file
from mmkv.demos.app.limits import Limits
from mmkv.demos.app.session import Session
from mmkv.demos.app.settings import LEVELS, Settings
from mmkv.demos.app.views.talk import talk
from mmkv.demos.app.views.timeline import timeline
from mmkv.demos.app.watch import Video
from mmkv.models.tiny import SAMPLE_VIDEO


def open_session(
    folder: Path,
    settings: Settings = FAST,
    clock: Callable[[], float] = time.monotonic,
    **limits: object,
) -> Session:
    folder.mkdir(exist_ok=True)
    limited = Limits(**limits)  # type: ignore[arg-type]
    return Session(tiny(), folder, limited, settings=settings, clock=clock)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    one = open_session(tmp_path / "session")
    yield one
    one.end()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session that has watched the sample to its end; tests only ask it."""
    one = open_session(tmp_path_factory.mktemp("watched"))
    one.sample()
    assert one.watch is not None
    assert one.watch.feed.wait(PATIENCE)
    one.watch.measure()
    yield one
    one.end()


def sent(session: Session, content: bytes, name: str = "mine.mp4") -> Path:
    path = session.folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("question", "answer", "seconds"),
    [
        ("In which corner was the white ring?", "bottom left", 12.0),
        ("Where did the blue square appear?", "bottom left", 126.0),
    ],
)
def test_early_and_late_scenes_are_answered_and_shown(
    watched: Session, question: str, answer: str, seconds: float
) -> None:
    exchange = answered(watched.ask(question, "encoded"))
    assert exchange.text == answer
    assert any(abs(frame.seconds - seconds) <= 1.5 for frame in exchange.frames)
    assert all(frame.picture.startswith(b"\xff\xd8") for frame in exchange.frames)
    assert exchange.first_token > 0
    shown = timeline(watched.watch, exchange)
    assert shown.count("data:image/jpeg;base64,") >= 1
    assert "data-seek=" in shown
    assert ": go there" in shown
    assert "enlarge" not in shown


def test_the_play_position_bounds_what_an_answer_may_use(watched: Session) -> None:
    watched.play(40.0, 90.0, playing=False, rush=False)
    bounds = {"position": 40.0, "watched": 90.0, "encoded": 149.0}
    for scope, bound in bounds.items():
        exchange = answered(watched.ask("What is at the top left now?", scope))  # type: ignore[arg-type]
        assert exchange.as_of == pytest.approx(bound, abs=1.0)
        assert all(frame.seconds <= bound for frame in exchange.frames)


def test_frames_wait_for_the_player(tmp_path: Path) -> None:
    session = open_session(tmp_path / "s", Settings(rush=False))
    session.sample()
    watch = session.watch
    assert watch is not None
    session.play(5.0, 5.0, playing=True, rush=False)
    until(lambda: watch.encoded == 5.0)
    time.sleep(0.2)
    assert watch.encoded == 5.0
    session.play(20.0, 20.0, playing=True, rush=False)  # a jump: everything in between comes
    until(lambda: watch.encoded == 20.0)
    assert watch.stream.stats().frames == 21
    session.play(149.5, 149.5, playing=False, rush=True)
    assert watch.feed.wait(PATIENCE)
    session.end()


def test_a_question_right_after_a_jump_waits_for_the_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmkv.demos.app.session.CATCH_UP", PATIENCE)
    session = open_session(tmp_path / "s", Settings(rush=False))
    session.sample()
    session.play(30.0, 30.0, playing=True, rush=False)
    exchange = answered(session.ask("What is at the top left now?"))
    assert exchange.as_of == pytest.approx(30.0, abs=1.0)
    session.end()


def test_a_recording_that_no_player_shows_is_asked_about_as_far_as_it_was_seen(
    session: Session,
) -> None:
    session._begin(Video("address", "film"), lambda: open_file(SAMPLE_VIDEO, "film", 1.0))
    assert session.watch is not None
    until(lambda: (session.watch.encoded or 0.0) >= 20.0)  # type: ignore[union-attr]
    assert answered(session.ask("What is at the top left now?")).as_of >= 20.0


def test_an_own_file_is_deleted_with_its_stream(session: Session) -> None:
    path = sent(session, SAMPLE_VIDEO.read_bytes())
    session.file(path, "mine.mp4")
    assert session.watch is not None
    until(lambda: session.watch.stream.stats().frames > 20)  # type: ignore[union-attr]
    assert path.exists()
    assert list(session.folder.glob("*.kv"))
    session.forget()
    assert list(session.folder.iterdir()) == []


def test_watching_again_keeps_the_file_and_takes_the_new_settings(session: Session) -> None:
    path = sent(session, SAMPLE_VIDEO.read_bytes())
    session.file(path, "mine.mp4")
    session.settings = Settings(level="Smallest", fps=0.5, rush=True)
    session.again()
    watch = session.watch
    assert watch is not None
    assert watch.feed.wait(PATIENCE)
    stats = watch.stream.stats()
    assert path.exists()
    assert stats.frames == 75
    assert stats.bits_per_element == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"these are only words" * 50, "damaged, cut off or not a video at all"),
    ],
)
def test_what_is_no_video_is_said_in_a_sentence_and_deleted(
    session: Session, content: bytes, words: str
) -> None:
    path = sent(session, content)
    with pytest.raises(ValueError, match=r"holiday\.mp4: "):
        session.file(path, "holiday.mp4")
    assert words in session.message
    assert str(session.folder) not in session.message
    assert not path.exists()
    assert session.watch is None


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:200\n#EXTINF:150,\nfile:{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile 'file:{}'\n",
    ],
)
def test_a_file_that_names_other_files_is_not_followed(session: Session, playlist: str) -> None:
    other = session.folder.parent / "other.ts"
    shutil.copy(SAMPLE_VIDEO, other)
    path = sent(session, playlist.format(other).encode(), "list.m3u8")
    with pytest.raises(ValueError, match="cannot be opened"):
        session.file(path, "list.m3u8")


def test_only_so_much_of_a_video_is_watched(tmp_path: Path) -> None:
    session = open_session(tmp_path / "s", stream_seconds=30)
    session.sample()
    assert session.watch is not None
    assert session.watch.feed.wait(PATIENCE)
    assert session.watch.stream.seconds == 30.0
    assert session.watch.note() == "Watched up to 0:30, the longest that this server allows."
    session.end()


def test_a_camera_is_watched_picture_by_picture(tmp_path: Path) -> None:
    clock = Clock()
    session = open_session(tmp_path / "s", Settings(fps=2.0), clock)
    session.camera()
    watch = session.watch
    assert watch is not None
    assert watch.live
    assert session.picture(jpeg(1))
    until(lambda: watch.stream.stats().frames == 1)  # else the next one may replace it
    clock.now = 0.3
    assert not session.picture(jpeg(2))  # too soon for two frames per second
    clock.now = 0.5
    assert session.picture(jpeg(3))
    until(lambda: watch.stream.stats().frames == 2)
    exchange = answered(session.ask("How many shapes are there now?"))
    assert exchange.state == "done"
    shown = timeline(watch, exchange)  # no player could go to a moment of it
    assert ": enlarge it" in shown
    assert "click a picture to enlarge it" in shown
    assert "go there" not in shown
    clock.now = 1.0
    with pytest.raises(ValueError, match="damaged or not a picture at all"):
        session.picture(b"no picture")
    session.end()


def test_one_question_at_a_time_and_none_without_a_video(session: Session) -> None:
    with pytest.raises(ValueError, match="Choose a video first"):
        session.ask("What is there now?")
    session.sample()
    until(lambda: session.watch.encoded)  # type: ignore[union-attr]
    with tiny().lock.hold():
        first = session.ask("What is there now?")
        with pytest.raises(ValueError, match="One question at a time"):
            session.ask("And now?")
    answered(first)
    with pytest.raises(ValueError, match="at most 500"):
        session.ask("x" * 501)
    with pytest.raises(ValueError, match="Type a question"):
        session.ask("   ")


def test_stop_ends_an_answer_that_has_not_begun(session: Session) -> None:
    session.sample()
    until(lambda: session.watch.encoded)  # type: ignore[union-attr]
    with tiny().lock.hold():  # the device is busy with somebody else
        exchange = session.ask("What is there now?")
        session.stop()
        assert exchange.over
        assert exchange.state == "stopped"
    assert exchange.join(PATIENCE)
    assert exchange.text == ""
    assert answered(session.ask("What is there now?")).state == "done"


def test_a_new_video_begins_a_new_conversation(session: Session) -> None:
    session.sample()
    until(lambda: session.watch.encoded)  # type: ignore[union-attr]
    answered(session.ask("What is there now?"))
    assert len(talk(session.exchanges, 1.0)) == 2
    session.sample()
    assert session.exchanges == []


def test_sessions_side_by_side_answer_about_their_own_video(tmp_path: Path) -> None:
    one, other = open_session(tmp_path / "one"), open_session(tmp_path / "other")
    one.sample()
    other.camera()
    other.picture(jpeg(0))
    until(lambda: other.watch.encoded is not None)  # type: ignore[union-attr]
    assert one.watch.feed.wait(PATIENCE)  # type: ignore[union-attr]
    asked = "Where did the blue square appear?"
    exchanges = [one.ask(asked, "encoded"), other.ask(asked, "encoded")]
    mine, theirs = [answered(exchange) for exchange in exchanges]
    assert mine.text == "bottom left"
    assert {frame.seconds for frame in theirs.frames} <= {0.0}
    one.end()
    other.end()
    assert not list(tmp_path.iterdir())


def test_ending_while_a_video_plays_leaves_no_thread_and_no_file(tmp_path: Path) -> None:
    session = open_session(tmp_path / "s", Settings(rush=False))
    before = threading.active_count()
    session.sample()
    session.ask("What is there now?")
    session.end()
    until(lambda: threading.active_count() <= before)
    assert not session.folder.exists()
    with pytest.raises(ValueError, match="has ended"):
        session.sample()


def test_memory_points_stay_few_and_the_window_flat(watched: Session) -> None:
    from mmkv.demos.app.meter import POINTS, Meter

    assert watched.watch is not None
    stats = watched.watch.stream.stats()
    meter = Meter(on_gpu=False)
    for second in np.arange(0.0, 5000.0, 0.5):
        object.__setattr__(stats, "seconds", float(second))
        meter.sample(stats)
    assert len(meter.points) <= POINTS
    assert {point.window for point in meter.points} == {stats.window_bytes}
    assert meter.points[-1].seconds > 4900


@pytest.mark.parametrize("level", LEVELS)
def test_the_snippet_runs_and_says_the_settings(
    level: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(level=level, fps=0.5, moments=6)
    code = settings.snippet("mmkv-tiny").replace("What happens?", "Was there a red circle?")
    shutil.copy(SAMPLE_VIDEO, tmp_path / "my.mp4")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "snippet.py", "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out.strip() in ("yes", "no")
    bits = LEVELS[level].bits
    assert "retrieve_frames=6" in code
    assert bits is None or f"key_bits={bits[0]}" in code
