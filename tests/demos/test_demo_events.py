"""The demo: what a tick of the page's timer updates while an answer has a handler of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_visitors import Server, answered, tiny, until

pytest.importorskip("gradio")

import gradio as gr

from mmkv.config.units import took
from mmkv.demos.app import events as module
from mmkv.demos.app.events import ANSWERING, SHOWN, Events
from mmkv.demos.app.visit import Visit

PAGE = "page of a"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path)
    yield one
    one.close()


@pytest.fixture
def visit(server: Server) -> Visit:
    """Somebody who watches the sample, of which something has been encoded."""
    one = server.visit("a")
    one.session.sample()
    until(lambda: one.session.watch is not None and one.session.watch.encoded)
    return one


def ticked(events: Events, visit: Visit) -> dict[str, Any]:
    """What a tick changes on the page."""
    told = zip(SHOWN, events._shown(visit, PAGE), strict=True)
    return {name: value for name, value in told if value != gr.skip()}


def test_an_answer_under_way_is_left_to_its_own_handler(server: Server, visit: Visit) -> None:
    events = Events(server.registry)
    ticked(events, visit)
    with tiny().lock.hold():
        exchange = visit.session.ask("What is there now?")
        assert not {"chat", "ask", "stop"} & set(ticked(events, visit))
    answered(exchange)
    told = ticked(events, visit)
    assert exchange.text in told["chat"][-1]["content"]
    assert (told["ask"]["visible"], told["stop"]["visible"]) == (True, False)
    assert not {"chat", "ask", "stop"} & set(ticked(events, visit))


def test_an_answers_own_handler_tells_how_soon_its_first_word_came(
    server: Server, visit: Visit
) -> None:
    events = Events(server.registry)
    exchange = visit.session.ask("What is there now?")
    *_, last = events._answer(visit, exchange, clear=False)
    told = dict(zip(ANSWERING, last, strict=True))
    assert exchange.first_token is not None
    assert f"<b>{took(exchange.first_token)}</b>" in told["gauges"]


def test_a_tick_that_an_answer_ends_in_does_not_tell_half_of_it(
    server: Server, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, talk = Events(server.registry), module.talk
    turn = tiny().lock.hold()
    turn.__enter__()
    exchange = visit.session.ask("What is there now?")

    def slow(*arguments: Any) -> Any:
        half = talk(*arguments)
        if not exchange.over:
            turn.__exit__(None, None, None)
            answered(exchange)
        return half

    monkeypatch.setattr(module, "talk", slow)
    assert "chat" not in ticked(events, visit)
    assert exchange.text in ticked(events, visit)["chat"][-1]["content"]
