"""A Hub that does not answer is told in one sentence after a bounded time.

Tried: a server that accepts connections and is silent, one that refuses them, one that answers with
an error, offline mode, and a local folder, for which nobody is asked.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants
from waiting import by_itself, finish

from mmkv.cli import session
from mmkv.cli.errors import CommandError


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that never answers, in the place of the Hub."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield address


def test_a_silent_hub_is_told_after_a_bounded_time(silent: str) -> None:
    with pytest.raises(CommandError, match=r"has not answered in 0\.2 s; .*HF_HUB_OFFLINE=1"):
        by_itself(lambda: session.check_hub("some/model", seconds=0.2))


def test_nobody_is_asked_about_a_folder_or_in_offline_mode(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.check_hub(str(tmp_path), seconds=0.2)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    session.check_hub("some/model", seconds=0.2)


def test_a_hub_that_refuses_is_left_to_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    session.check_hub("some/model")


def test_a_hub_that_answers_with_an_error_is_left_to_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Busy(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        session.check_hub("some/model")
        finish(thread)
