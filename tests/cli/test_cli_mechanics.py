"""The command line itself, with an engine that only pretends: arguments, output, exit codes."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from waiting import heeding_ctrl_c

import mmkv
from mmkv import Answer, FrameRef, Stats
from mmkv.cli import errors, main, session
from mmkv.models.tiny import SAMPLE_VIDEO


@dataclass
class Engine:
    """Stands in for VideoLM, Stream, Feed and the reply; notes what it was asked."""

    calls: list[tuple[str, Any]] = field(default_factory=list)
    hint: str | None = None
    fails: Exception | None = None
    name: str = "pretend"
    device: str = "cpu"
    frames: int = 10
    dropped: int = 2
    error: Exception | None = None

    def load(self, model: str, **options: Any) -> Engine:
        self.calls.append(("load", (model, options)))
        if self.fails:
            raise self.fails
        return self

    def stream(self, config: Any) -> Engine:
        self.calls.append(("stream", config))
        return self

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.calls.append(("close", None))

    def encode(self, source: Any, **options: Any) -> None:
        self.calls.append(("encode", (source, options)))

    def start(self, source: Any, **options: Any) -> Engine:
        self.calls.append(("start", (source, options)))
        return self

    def wait(self, seconds: float) -> bool:
        time.sleep(0.01)
        return self.error is not None

    def stop(self) -> None:
        self.calls.append(("stop", None))

    def ask_iter(self, question: str, **options: Any) -> Engine:
        self.calls.append(("ask", (question, options)))
        return self

    def __iter__(self) -> Iterator[str]:
        yield from ("a ", "red ", "circle")

    def close(self) -> None:
        pass

    @property
    def answer(self) -> Answer:
        return Answer(
            text="a red circle", token_ids=(5, 6), finish_reason="stop", as_of=9.0,
            timings={"prefill": 0.1}, hint=self.hint,
            frames=(
                FrameRef(7, 7.0, 0.9, (0, 1)),
                FrameRef(8, 8.0, 0.4, (1,)),
                FrameRef(3, 3.0, 0.2, (0,)),
            ),
        )  # fmt: skip

    def stats(self) -> Stats:
        return Stats(
            frames=self.frames, seconds=9.0, tokens_per_frame=16, fps=1.0, bytes_per_frame=50_000,
            gb_per_hour=0.36, window_bytes=2_000_000, archive_bytes=1_000_000, index_bytes=10,
            archived_frames=10, forgotten_frames=0, timings={"vision": 0.5},
        )  # fmt: skip


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    pretend = Engine()
    monkeypatch.setattr(mmkv, "load", pretend.load, raising=False)
    monkeypatch.setattr(session, "check_hub", lambda model: None)
    monkeypatch.delenv("MMKV_MODEL", raising=False)
    return pretend


@pytest.fixture
def video(tmp_path: Path) -> str:
    path = tmp_path / "my video.mp4"
    path.symlink_to(SAMPLE_VIDEO)
    return str(path)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mmkv", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return command


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['mmkv', 'ask', '--help']; import mmkv.cli, atexit; "
        "atexit.register(lambda: sys.stderr.write(' '.join("
        "{'torch', 'transformers', 'av', 'cv2'} & set(sys.modules)))); mmkv.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("command", [(), ("ask",), ("caption",), ("encode",), ("info",)])
def test_every_help_shows_one_example(run: Run, command: tuple[str, ...]) -> None:
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert out.count("Example:") == 1
    assert "\n    mmkv " in out


def test_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("mmkv 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ask",), "no VIDEO and no question given: mmkv ask VIDEO"),
        (("ask", "{video}"), "no question"),
        (("ask", "{video}", "q", "--fps", "0"), "'0' is not a number above 0"),
        (("ask", "{video}", "q", "--since", "1:x"), "write seconds, m:ss or h:mm:ss"),
        (("ask", "{video}", "q", "--max-pixels", "0"), "--max-pixels"),
        (("ask", "{video}", "q", "--dtype", "float13"), "'float13' is not one of auto, bfloat16"),
        (("ask", "{video}", "q", "--reader", "vlc"), "'vlc' is not one of auto, pyav"),
        (("ask", "{video}", "q", "--duration", "5"), "--duration is for live sources"),
        (("ask", "{video}", "q", "--live"), "are for network addresses"),
        (("find", "0", "q", "--no-live"), "are for network addresses"),
        (("encode", "sample", "--no-live"), "are for network addresses"),
        (("ask", "rtsp://x/y", "q", "--no-live", "--duration", "5"), "ends by itself"),
        (("ask", "{video}", "q", "--nonsense"), "--nonsense"),
        (("bogus",), "bogus"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(
    run: Run, engine: Engine, video: str, arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = run(*(a.format(video=video) for a in arguments))
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1
    assert engine.calls == []


def test_a_missing_file_is_told_before_the_model_loads(run: Run, engine: Engine) -> None:
    code, out, err = run("ask", "missing.mp4", "q")
    assert (code, out) == (1, "")
    assert err.startswith("error: missing.mp4: no such file or folder")
    assert err.count("\n") == 1
    assert engine.calls == []


def test_a_file_that_is_no_video_is_told_before_the_model_loads(
    run: Run, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    code, _, err = run("ask", str(tmp_path / "notes.txt"), "q", "--quiet")
    assert code == 1
    assert err.startswith("error: ")
    assert "notes.txt" in err
    assert engine.calls == []


def test_bad_settings_are_told_before_the_model_loads(run: Run, engine: Engine, video: str) -> None:
    code, _, err = run("ask", video, "q", "--window-frames", "2", "--recent-frames", "3", "-q")
    assert code == 1
    assert err.startswith("error: recent_frames=3")
    assert engine.calls == []


def test_ask_prints_question_answer_moment_and_cost(run: Run, engine: Engine, video: str) -> None:
    code, out, _ = run("ask", video, "What was there?")
    assert code == 0
    question, answer, found, cost = out.splitlines()
    assert question == "What was there?"
    assert answer == "a red circle"
    assert "found at 0:07-0:08, then 0:03 (of 3 frames looked at)" in found
    assert "watched 10 frames" in cost
    assert "100 MB per 1,000 frames" in cost


def test_several_questions_share_one_watching(run: Run, engine: Engine, video: str) -> None:
    run("ask", video, "one?", "two?")
    assert [name for name, _ in engine.calls] == ["load", "stream", "encode", "ask", "ask", "close"]


def test_options_reach_the_engine(run: Run, engine: Engine, video: str) -> None:
    run(*shlex.split(
        f"ask {shlex.quote(video)} q --model some/model --revision v2 --device cpu --dtype float32 "
        "--max-pixels 4096 --fps 2 --reader decord --since 1:30 --until 1:00:00.5 "
        "--max-new-tokens 7 --temperature 0.5 --top-p 0.9 --seed 3 --window-frames 9 "
        "--recent-frames 2 --retrieve-frames 5 --max-ram 1GB"
    ))  # fmt: skip
    calls = dict(engine.calls)
    assert calls["load"] == (
        "some/model",
        {"revision": "v2", "device": "cpu", "dtype": "float32", "max_pixels": 4096},
    )
    config = calls["stream"]
    assert (config.window_frames, config.recent_frames, config.retrieve_frames) == (9, 2, 5)
    assert config.max_ram == 10**9
    source, options = calls["encode"]
    assert source == video
    assert (options["fps"], options["reader"]) == (2.0, "decord")
    assert calls["ask"] == (
        "q",
        {
            "since": 90.0, "until": 3600.5, "max_new_tokens": 7,
            "temperature": 0.5, "top_p": 0.9, "seed": 3,
        },
    )  # fmt: skip


def test_what_is_not_given_stays_the_engines_default(run: Run, engine: Engine, video: str) -> None:
    run("ask", video, "q")
    assert dict(engine.calls)["stream"] == mmkv.CacheConfig()
    assert dict(engine.calls)["load"] == ("mmkv-tiny", {"device": "auto", "dtype": "auto"})


def test_json_is_one_object_on_stdout(run: Run, engine: Engine, video: str) -> None:
    code, out, _ = run("ask", video, "q", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["answers"][0]["text"] == "a red circle"
    assert found["answers"][0]["frames"][0] == {
        "index": 7, "seconds": 7.0, "score": 0.9, "layers": [0, 1], "recent": False,
    }  # fmt: skip
    assert found["stats"]["gb_per_hour"] == 0.36


def test_quiet_prints_the_answer_alone(run: Run, engine: Engine, video: str) -> None:
    assert run("ask", video, "q", "--quiet") == (0, "a red circle\n", "")


def test_a_hint_is_shown_with_the_answer(run: Run, engine: Engine, video: str) -> None:
    engine.hint = "mmkv-tiny does not know 'dog'"
    _, out, _ = run("ask", video, "a dog?")
    assert "note: mmkv-tiny does not know 'dog'" in out


def test_without_a_model_the_same_command_with_one_is_shown(
    run: Run, engine: Engine, video: str
) -> None:
    _, _, err = run("ask", video, "what's there?")
    assert err.count("\n") == 1
    assert "mmkv-tiny knows only coloured shapes" in err
    command = shlex.split(err.partition("for other videos: ")[2])
    assert command == [
        "mmkv", "ask", video, "what's there?", "--model", "Qwen/Qwen3-VL-2B-Instruct",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "orig", "shown"),
    [
        ("mmkv", "python", ["mmkv"]),
        (".venv/bin/mmkv", "/a/long/path/.venv/bin/python", [".venv/bin/mmkv"]),
        ("/a/long/path/.venv/bin/mmkv", "/a/long/path/.venv/bin/python", ["mmkv"]),
        ("/lib/mmkv/__main__.py", "python", ["python", "-m", "mmkv"]),
        ("/lib/mmkv/__main__.py", ".venv/bin/python", [".venv/bin/python", "-m", "mmkv"]),
        ("/lib/mmkv/__main__.py", "/a/long/path/python3.12", ["python3.12", "-m", "mmkv"]),
    ],
)
def test_the_program_is_shown_as_it_was_typed_but_never_as_a_whole_path(
    monkeypatch: pytest.MonkeyPatch, argv: str, orig: str, shown: list[str]
) -> None:
    """Linux puts the whole path into argv where a program is found on the PATH, as for `mmkv`.

    Other messages that name the program (`mmkv rm DIR`, `see mmkv ask --help`) write `mmkv`.
    """
    monkeypatch.setattr(sys, "argv", [argv, "ask"])
    monkeypatch.setattr(sys, "orig_argv", [orig, argv, "ask"])
    assert session.program() == shown


def test_the_note_about_the_bundled_model_holds_no_path_of_the_program() -> None:
    command = [sys.executable, "-m", "mmkv", "find", "sample", "a circle", "--fps", "0.05"]
    env = {name: value for name, value in os.environ.items() if name != "MMKV_MODEL"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0
    (note,) = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    name = Path(sys.executable).name
    assert f"for other videos: {name} -m mmkv find sample 'a circle'" in note
    assert str(Path(sys.executable).parent) not in done.stderr


def test_a_chosen_model_brings_no_such_note(
    run: Run, engine: Engine, video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("ask", video, "q", "--model", "mmkv-tiny")[2] == ""
    monkeypatch.setenv("MMKV_MODEL", "some/model")
    assert run("ask", video, "q")[2] == ""
    assert engine.calls[-5][1][0] == "some/model"


def test_a_password_in_an_address_is_never_printed(run: Run, engine: Engine) -> None:
    address = "rtsp://me:s3cret@10.0.0.7/live"
    engine.error = OSError(f"cannot open {address}")
    engine.frames = 0
    for command in (("ask", address, "q"), ("ask", address, "q", "--json"), ("encode", address)):
        code, out, err = run(*command)
        assert code == 1
        assert "s3cret" not in out + err
        assert "rtsp://***@10.0.0.7/live" in err
    assert engine.calls[2][1][0] == address


@pytest.mark.parametrize(
    ("address", "option", "call", "told"),
    [
        ("http://127.0.0.1:9/a.ts", "--live", "start", True),
        ("http://127.0.0.1:9/a.ts", "--no-live", "encode", False),
        ("rtsp://127.0.0.1:9/a", "--no-live", "encode", False),
    ],
)
def test_the_user_says_whether_an_address_is_live(
    run: Run, engine: Engine, address: str, option: str, call: str, told: bool
) -> None:
    code, _, err = run("ask", address, "q", option, *(["--duration", "0.1"] if told else []))
    assert code == 0, err
    value, options = dict(engine.calls)[call]
    assert value == address
    assert options["live"] is told


@pytest.mark.parametrize("name", ["0", "/dev/video0"])
def test_a_webcam_is_watched_for_the_duration(run: Run, engine: Engine, name: str) -> None:
    code, out, _ = run("ask", name, "q", "--duration", "0.1", "--fps", "2")
    assert code == 0
    names = [name for name, _ in engine.calls]
    assert names == ["load", "stream", "start", "stop", "ask", "close"]
    assert "2 dropped" in out
    assert dict(engine.calls)["start"] == (0, {"fps": 2.0, "reader": "auto", "live": None})
    assert "a red circle" in out


def test_a_live_source_that_breaks_is_asked_about_what_was_seen(run: Run, engine: Engine) -> None:
    engine.error = OSError("the camera went away")
    code, out, err = run("ask", "0", "q")
    assert code == 0
    assert "warning: the camera went away; continuing with what was seen" in err
    assert "a red circle" in out


def test_no_frame_at_all_is_an_error(run: Run, engine: Engine, video: str) -> None:
    engine.frames = 0
    code, _, err = run("ask", video, "q", "--quiet")
    assert code == 1
    assert "no frame could be read" in err


def test_encode_prints_what_a_model_costs(run: Run, engine: Engine, video: str) -> None:
    code, out, _ = run("encode", video, "--fps", "2")
    assert code == 0
    assert "16 per frame" in out
    assert "50 kB per frame, 100 MB per 1,000 frames" in out
    assert "vision" in out


def test_encode_goes_on_with_the_other_videos(
    run: Run, engine: Engine, video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_first(source: str, **_: Any) -> None:
        if len([name for name, _ in engine.calls if name == "stream"]) == 1:
            raise ValueError(f"{source}: not a video")

    monkeypatch.setattr(engine, "encode", broken_first)
    code, out, err = run("encode", video, video, "--json", "--quiet")
    assert code == 1
    assert "not a video" in err
    assert len(json.loads(out)["videos"]) == 1


class GatedRepoError(OSError):
    pass


class LocalEntryNotFoundError(FileNotFoundError):
    pass


class OutOfMemoryError(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError("403"), "model some/model is gated"),
        (LocalEntryNotFoundError("offline"), "the Hugging Face Hub cannot be reached"),
        (OutOfMemoryError("CUDA out of memory"), "smaller --max-pixels"),
        (ValueError("dtype='x' is not known"), "dtype='x' is not known"),
        (ImportError("Using device_map needs accelerate"), "needs accelerate"),
        (KeyError("lost"), "KeyError: 'lost' (unexpected: --debug"),
        (OSError("first line\n   second line"), "first line second line"),
    ],
)
def test_errors_are_one_line_without_a_traceback(
    run: Run, engine: Engine, video: str, error: Exception, words: str
) -> None:
    engine.fails = error
    code, out, err = run("ask", video, "q", "--model", "some/model")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1


def test_warnings_are_lines_too_and_only_while_a_command_runs(
    run: Run, engine: Engine, video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(source: str, **_: Any) -> None:
        logging.getLogger("mmkv.video").warning("%s ends early", "it")
        warnings.warn("slow\ndisk", UserWarning, stacklevel=1)

    monkeypatch.setattr(engine, "encode", damaged)
    before = list(logging.getLogger("mmkv").handlers)
    ask = ("ask", video, "q", "--model", "some/model")
    assert run(*ask)[2] == "warning: it ends early\nwarning: slow disk\n"
    assert run(*ask, "--quiet")[2] == ""
    assert logging.getLogger("mmkv").handlers == before
    assert logging.getLogger("mmkv").propagate


def test_debug_shows_the_traceback_too(run: Run, engine: Engine, video: str) -> None:
    engine.fails = ValueError("bad")
    code, _, err = run("ask", video, "q", "--model", "some/model", "--debug")
    assert code == 1
    assert err.startswith("Traceback")
    assert err.endswith("error: bad\n")


def test_a_hub_error_is_found_behind_what_wraps_it() -> None:
    error = OSError("You are trying to access a gated repo.\nMake sure you have access.")
    error.__cause__ = GatedRepoError("403")
    assert "is gated" in errors.in_words(error, model="some/model")


def test_ctrl_c_exits_130_with_one_line(
    run: Run, engine: Engine, video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: str, **_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "encode", interrupted)
    assert run("ask", video, "q", "--quiet") == (130, "", "stopped\n")


def test_ctrl_c_while_live_asks_at_once(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        return False

    monkeypatch.setattr(engine, "wait", interrupted)
    with heeding_ctrl_c():
        code, out, err = run("ask", "0", "q", "--model", "some/model")
    assert code == 0
    assert "continuing with what was seen" in err
    assert "a red circle" in out


def test_a_reader_that_left_is_no_error() -> None:
    command = f"{shlex.quote(sys.executable)} -m mmkv --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line() -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "mmkv", "info", "--json"]
        pipe = subprocess.PIPE
        done = subprocess.run(command, stdout=full, stderr=pipe, text=True, env=buffered)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


COMMANDS = (
    ("ask", "gone.mp4", "q"),
    ("encode", "gone.mp4"),
    ("find", "gone.mp4", "text"),
    ("caption", "gone.mp4"),
    ("info", "gone.kv"),
    ("rm", "gone.kv"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=[name for name, *_ in COMMANDS])
def test_every_command_tells_an_error_in_one_line_and_debug_shows_where(
    run: Run, engine: Engine, command: tuple[str, ...]
) -> None:
    code, out, err = run(*command)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    _, _, err = run(*command, "--debug")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_every_command_has_debug() -> None:
    import typer.main

    from mmkv.cli.app import app

    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert "--debug" in [flag for option in command.params for flag in option.opts], name
