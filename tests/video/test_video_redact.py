"""Passwords in addresses never come out, however odd they are."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkv.video.redact import Address, redact


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://10.0.0.7/live", "rtsp://10.0.0.7/live"),
        ("rtsp://admin:hunter2@10.0.0.7:554/live", "rtsp://***@10.0.0.7:554/live"),
        ("rtsp://admin@10.0.0.7/live", "rtsp://***@10.0.0.7/live"),
        ("RTSP://a:hunter2@[fe80::1]:554/x", "RTSP://***@[fe80::1]:554/x"),
        ("rtsp://a:hun/ter2@cam/x", "rtsp://***@cam/x"),
        ("rtsp://a:hun@ter2@cam/x", "rtsp://***@cam/x"),
        ("rtsp://a:12/hunter2@cam/x", "rtsp://***@cam/x"),
        ("rtsp://a:hun?ter2@cam/x", "rtsp://***"),
        ("rtsp://a:hun#ter2@cam/x", "rtsp://***"),
        ("http://a:b@cam/x?token=hun@ter2", "http://***"),
        ("https:/a:hunter2@cam/x", "https:/***@cam/x"),
        ("http://cam/x?token=hunter2", "http://cam/x?token=***"),
        ("http://cam/x?user=a&password=hunter2&q", "http://cam/x?user=***&password=***&***"),
        ("http://cam/x?hunter2", "http://cam/x?***"),
        ("http://cam/x?auth=a=hunter2", "http://cam/x?auth=***"),
        ("http://cam/x#hunter2", "http://cam/x"),
        ("admin:hunter2@cam/x", "***@cam/x"),
        ("rtsp//admin:hunter2@cam/x", "***@cam/x"),
        ("rtsp:/admin:hunter2@cam/x", "rtsp:/***@cam/x"),
        ("clip.mp4", "clip.mp4"),
        ("talk: me@home.mp4", "***@home.mp4"),
        ("folder/a:b@c.mp4", "folder/a:b@c.mp4"),
        ("/videos/a@b?c=d#e.mp4", "/videos/a@b?c=d#e.mp4"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, shown: str) -> None:
    assert redact(address) == shown
    assert redact(shown) == shown


SECRET = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=""), min_size=1
).map(lambda text: "Zq9" + text + "Zq9")


@given(password=SECRET, token=SECRET)
def test_no_password_and_no_token_ever_shows(password: str, token: str) -> None:
    address = f"rtsp://user:{password}@cam.example:554/live?key={token}"
    assert "Zq9" not in redact(address)
    assert "Zq9" not in repr(Address(address))
    assert "Zq9" not in str(Address(address))


def test_log_lines_are_cleaned() -> None:
    address = Address("http://admin:hunter2%21@cam:80/x?token=abc123&n=1")
    lines = [
        "Opening 'http://admin:hunter2%21@cam:80/x?token=abc123&n=1' for reading",
        "request: GET /x?token=abc123&n=1\r\nAuthorization: Basic YWRtaW46aHVudGVyMiE=\r\n",
        "redirected to https://other/y?sig=abc123",
        "using admin and hunter2!",
    ]
    for line in lines:
        clean = address.clean(line)
        for secret in ("hunter2", "abc123", "YWRt"):
            assert secret not in clean
    assert address.clean("HTTP error 404 Not Found") == "HTTP error 404 Not Found"


def test_an_address_in_a_traceback_shows_no_password() -> None:
    def connect(address: Address) -> None:
        raise OSError(f"no route to {address!r}")

    try:
        connect(Address("rtsp://a:hunter2@cam/x"))
    except OSError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert "hunter2" not in "".join(shown.format()).replace('"rtsp://a:hunter2@cam/x"', "")
