"""`mmkv demo` on the command line."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import PATIENCE, heeding_ctrl_c

from mmkv.cli import main

pytest.importorskip("gradio")


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    """Exit code and stderr."""
    monkeypatch.setattr(sys, "argv", ["mmkv", "demo", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "/no/such/model", "--port", "0"], "/no/such/model"),
        (["--auth", "nobody"], "--auth takes USER:PASSWORD"),
        (["--max-upload", "lots"], "--max-upload='lots' is not a size"),
        (["--idle", "soon"], "--idle='soon' is not a duration"),
        (["--max-upload", "5GB"], "has to be more than upload_bytes"),
        (["--allow-host", "rtsp://cam/live"], "--allow-host 'rtsp://cam/live' is not a host"),
        (["--server-name", "http://me"], "--server-name 'http://me' is not a host's name"),
        (["--ssl-certfile", "cert.pem"], "--ssl-certfile and --ssl-keyfile belong together"),
        (["--ssl-certfile", "a.pem", "--ssl-keyfile", "b.pem"], "a.pem: there is no such file"),
        (["--host", "203.0.113.7", "--port", "0"], "cannot listen on 203.0.113.7"),
        (["--port", "99999"], "--port"),
        (["--sessions", "0"], "--sessions"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    code, err = run(monkeypatch, capsys, *words, "--temp", str(tmp_path))
    assert code in (1, 2)
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("*/*"))


def test_a_taken_port_is_one_line(
    taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = run(monkeypatch, capsys, "--port", str(taken))
    assert code == 1
    assert f"port {taken} on 127.0.0.1 is taken; choose another with --port" in err
    assert err.count("\n") == 1


def test_without_gradio_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name)
    )
    code, err = run(monkeypatch, capsys)
    assert code == 1
    assert err == "error: the demo needs Gradio: pip install 'mmkv-video[demo]'\n"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
def test_a_certificate_needs_its_own_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from mmkv.demos.app.server import Serving

    for name in "ab":
        making = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name}"
        files = ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        subprocess.run([*making.split(), *files], check=True, capture_output=True)
    own = Serving(certificate=tmp_path / "a.pem", key=tmp_path / "a.key", port=0)
    own.check_certificate()
    with own.listen() as listening:
        assert own.address(listening).startswith("https://127.0.0.1:")
    words = ["--ssl-certfile", str(tmp_path / "a.pem"), "--ssl-keyfile", str(tmp_path / "b.key")]
    code, err = run(monkeypatch, capsys, *words)
    assert code == 1
    assert "cannot be used for https" in err
    assert err.count("\n") == 1


def test_help_names_what_an_operator_decides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mmkv", "demo", "--help"])
    with pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().out
    for option in (
        "--host",
        "--auth",
        "--server-name",
        "--allow-host",
        "--sessions",
        "--ssl-certfile",
        "--idle",
    ):
        assert option in out


def test_it_serves_the_page_and_deletes_its_folder_when_told_to_end(tmp_path: Path) -> None:
    words = ["demo", "--port", "0", "--temp", str(tmp_path), "--model", "mmkv-tiny"]
    with heeding_ctrl_c():
        process = subprocess.Popen(
            [sys.executable, "-m", "mmkv", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", told)
        assert address is not None, told
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(address[0], timeout=PATIENCE) as answer:
            assert b"gradio" in answer.read()
        assert list(tmp_path.glob("*/*"))
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not list(tmp_path.glob("*/*"))
