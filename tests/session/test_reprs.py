"""Public objects say what they are, in Python and in a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

import mmkv
from mmkv.video import open_source

FRAMES = np.stack([np.full((64, 64, 3), 30 * i, np.uint8) for i in range(5)])


@pytest.fixture(scope="module")
def vlm() -> mmkv.VideoLM:
    return mmkv.load("mmkv-tiny")


@pytest.fixture
def stream(vlm: mmkv.VideoLM) -> Iterator[mmkv.Stream]:
    with vlm.stream(mmkv.CacheConfig(thumbnails=True)) as one:
        one.feed(FRAMES, [float(i) for i in range(5)])
        yield one


def test_a_configuration_shows_what_differs_from_the_defaults() -> None:
    assert repr(mmkv.CacheConfig()) == "CacheConfig()"
    changed = mmkv.CacheConfig(window_frames=16, max_ram="1GB", key_bits=1.5)
    assert repr(changed) == "CacheConfig(window_frames=16, key_bits=1.5, max_ram=1000000000)"


def test_a_stream_and_its_counters(stream: mmkv.Stream) -> None:
    assert repr(stream) == "<Stream of mmkv-tiny: 5 frames to 4.0 s, open>"
    assert re.fullmatch(r"<Stats 5 frames to 4.0 s: window .*B, archive .*, index .*>",
                        repr(stream.stats()))  # fmt: skip


def test_an_answer_its_frames_and_a_reply(stream: mmkv.Stream) -> None:
    with stream.ask_iter("What is there now?", max_new_tokens=3) as reply:
        assert "0 tokens, generating" in repr(reply)
        answer = reply.finish()
    assert repr(reply).endswith(("tokens, stop>", "tokens, length>"))
    assert repr(answer).startswith(f"<Answer {answer.text!r}: seen up to 4.0 s, ")
    assert re.match(r"<FrameRef frame \d at \d.00 s: score ", repr(answer.frames[0]))
    assert len(repr(answer)) < 200


def test_an_answer_shows_its_frames_in_a_notebook(stream: mmkv.Stream) -> None:
    answer = stream.ask("What is there now?", max_new_tokens=3)
    page = answer._repr_html_()
    assert page.count("<img src='data:image/jpeg;base64,") == len(answer.frames)
    assert "0:04" in page
    assert "<img" in answer.frames[0]._repr_html_()


def test_text_in_a_notebook_is_escaped() -> None:
    text = "<script>alert(1)</script>\n'&"
    page = mmkv.Answer(text, (1,), "length", 3.0, (), hint="<b>")._repr_html_()
    assert "<script>" not in page
    assert "<b></b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;<br>&#x27;&amp;" in page
    assert "cut off" in page


def test_chats_moments_and_progress(stream: mmkv.Stream) -> None:
    chat = stream.chat()
    reply = chat.ask_iter("And now?", max_new_tokens=1)
    assert "And now?" in repr(reply)
    assert list(reply) is not None
    assert repr(chat).startswith("<Chat of 1 turns on <Stream")
    assert repr(mmkv.Moment(1.0, 2.0, 1.5, 3, 0.777)) == "<Moment 1.0 to 2.0 s: score 0.78>"
    assert "frames=3" in repr(mmkv.Progress(3, 2.0, None, 1.0))


def test_a_feed_and_its_source(stream: mmkv.Stream) -> None:
    feed = stream.start(FRAMES, fps=None)
    feed.wait()
    assert re.fullmatch(r"<Feed of .*: at \d+\.\d s, ended>", repr(feed))
    assert repr(open_source(FRAMES, fps=None)).startswith("<ArraySource ")
