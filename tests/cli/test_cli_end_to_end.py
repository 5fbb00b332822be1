"""The command with the bundled model on real input, as a person runs it: in its own process."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from waiting import PATIENCE, heeding_ctrl_c

from mmkv.models.tiny import SAMPLE_VIDEO

ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "MMKV_MODEL": "mmkv-tiny", "COLUMNS": "100"}
ENV["TERM"] = "xterm"
MMKV = [sys.executable, "-m", "mmkv"]


def mmkv(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [*MMKV, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV | env, timeout=PATIENCE)
    assert "Traceback" not in done.stderr
    return done


def test_the_bundled_video_is_asked_three_questions() -> None:
    questions = ["Where was the red circle?", "How many shapes are there now?", "a dog?"]
    done = mmkv("ask", "sample", *questions, "--json", "--max-new-tokens", "8")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [answer["question"] for answer in found["answers"]] == questions
    assert all(answer["frames"] and answer["text"] for answer in found["answers"])
    assert "dog" in found["answers"][2]["hint"]
    assert found["stats"]["frames"] == 150
    assert found["stats"]["tokens_per_frame"] == 16
    assert found["answers"][0]["timings"]["prefill"] > 0


def test_a_question_about_the_start_sees_nothing_later() -> None:
    done = mmkv("ask", "sample", "What was there?", "--until", "0:10", "--json", "--fps", "0.5")
    frames = json.loads(done.stdout)["answers"][0]["frames"]
    assert frames
    assert max(frame["seconds"] for frame in frames) <= 10


def test_the_same_seed_gives_the_same_answer() -> None:
    sampled = ["--temperature", "2", "--max-new-tokens", "8", "--fps", "0.2", "--quiet"]
    ask = ["ask", "sample", "What was there?", *sampled]
    assert mmkv(*ask, "--seed", "1").stdout == mmkv(*ask, "--seed", "1").stdout


def test_a_folder_of_images_is_a_video(tmp_path: Path) -> None:
    for number in range(4):
        image = np.full((48, 64, 3), 60 * number, dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    done = mmkv("encode", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["videos"][0]["frames"] == 4


@pytest.mark.skipif(find_spec("gradio") is None, reason="needs Gradio, which brings the video")
def test_a_foreign_video_works() -> None:
    spec = find_spec("gradio")
    assert spec is not None
    assert spec.origin is not None
    video = Path(spec.origin).parent / "media_assets" / "videos" / "world.mp4"
    done = mmkv("ask", video, "What was there?", "--max-new-tokens", "4", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stats"]["frames"] > 1


@pytest.mark.parametrize("content", [b"", b"this is no video", SAMPLE_VIDEO.read_bytes()[:3000]])
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    video = tmp_path / "broken.mp4"
    video.write_bytes(content)
    done = mmkv("ask", video, "What was there?")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "broken.mp4" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    done = mmkv("encode", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [("ask", "sample", "q"), ("encode", "sample"), ("info",)])
def test_a_model_that_is_not_here_is_one_line_with_a_next_step(command: tuple[str, ...]) -> None:
    done = mmkv(*command, "--model", "nobody/no-such-model")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody/no-such-model" in done.stderr
    assert "local folder" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    done = mmkv("ask", "sample", "q", "--model", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_an_unsupported_model_lists_the_supported_ones(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = mmkv("info", "--model", tmp_path)
    assert done.returncode == 1
    assert "LlamaForCausalLM" in done.stderr
    assert "LlavaOnevisionForConditionalGeneration" in done.stderr


def test_an_unknown_device_is_one_line() -> None:
    done = mmkv("ask", "sample", "q", "--device", "tpu7")
    assert done.returncode == 1
    assert "tpu7" in done.stderr
    assert done.stderr.count("\n") == 1


def test_info_tells_versions_and_what_the_model_costs() -> None:
    done = mmkv("info", "--model", "mmkv-tiny", "--fps", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["packages"]["torch"]
    assert set(found["families"]) >= {"llava_onevision", "qwen2_5_vl", "qwen3_vl"}
    cost = found["model"]
    assert cost["gb_per_hour"] == pytest.approx(cost["bytes_per_frame"] * 2 * 3600 / 1e9)


def test_info_agrees_with_what_encoding_then_measures() -> None:
    told = json.loads(mmkv("info", "--model", "mmkv-tiny", "--json").stdout)["model"]
    done = json.loads(mmkv("encode", "sample", "--fps", "1", "--json").stdout)["videos"][0]
    assert told["tokens_per_frame"] == done["tokens_per_frame"]
    assert told["bytes_per_frame"] == done["bytes_per_frame"]


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[str]:
    """The address, with a password, of a camera on this machine that never stops sending."""
    clip = tmp_path / "clip.ts"
    with av.open(str(SAMPLE_VIDEO)) as source, av.open(str(clip), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts * packet.time_base < 30:
                packet.stream = stream
                target.mux(packet)
    data, closing = clip.read_bytes(), threading.Event()

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            with contextlib.suppress(OSError):  # the watcher has left
                for at in itertools.cycle(range(0, len(data), len(data) // 60)):
                    self.wfile.write(data[at : at + len(data) // 60])
                    if closing.wait(0.5):
                        return

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://me:s3cret@127.0.0.1:{server.server_port}/live"
    closing.set()
    server.shutdown()
    server.server_close()


def test_a_live_source_is_watched_for_the_duration_and_asked(camera: str) -> None:
    ask = ["ask", camera, "What is there now?", "--max-new-tokens", "4"]
    done = mmkv(*ask, "--duration", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["answers"][0]["text"]
    assert found["stats"]["frames"] >= 1


def test_ctrl_c_on_a_live_source_asks_at_once(camera: str) -> None:
    ask = ["ask", camera, "What is there now?", "--max-new-tokens", "4", "--duration", "3600"]
    shown, code = on_a_terminal(ask, stop_at=r"live \d+:\d\d, [1-9]\d* frames")
    assert code == 0
    assert "continuing with what was seen" in shown
    assert "answered in" in shown
    assert "s3cret" not in shown


def test_a_reader_that_leaves_early_causes_no_message() -> None:
    ask = shlex.join([*MMKV, "ask", "sample", "What was there?", "--fps", "0.2"])
    done = subprocess.run(
        ["bash", "-c", f"{ask} | head -c 1"], capture_output=True, text=True, env=ENV
    )
    assert done.stderr == ""


def on_a_terminal(arguments: list[str], *, stop_at: str | None = None) -> tuple[str, int]:
    """Run on a pseudo-terminal; Ctrl-C is typed when `stop_at` appears."""
    with heeding_ctrl_c():
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(sys.executable, [*MMKV, *arguments], ENV)
    shown, begin = "", time.monotonic()
    while time.monotonic() - begin < PATIENCE:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed: it has ended
            break
        if not data:
            break
        shown += data.decode(errors="replace")
        if stop_at and re.search(stop_at, shown):
            os.write(terminal, b"\x03")
            stop_at = None
    else:
        os.kill(pid, signal.SIGKILL)
    return shown, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_terminal_shows_progress_and_then_only_the_result() -> None:
    shown, code = on_a_terminal(["encode", "sample", "--fps", "0.5"])
    assert code == 0
    assert "loading mmkv-tiny" in shown
    assert re.search(r"\d+ frames, [\d.]+ frames/s", shown)
    left = shown.rpartition("\x1b[2K")[2]  # what stays when the bar has been wiped
    assert left.startswith("sample\r\nframes")


def test_ctrl_c_while_watching_stops_at_once() -> None:
    videos = [str(SAMPLE_VIDEO)] * 100  # far more than is waited for
    shown, code = on_a_terminal(["encode", *videos, "--fps", "10"], stop_at=r"\d+ frames,")
    assert code == 130
    assert shown.rstrip().endswith("stopped")
    assert "Traceback" not in shown
