"""What happens when a visitor does something, always to the visitor's own session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from mmkv.demos.app.exchange import Exchange
from mmkv.demos.app.guard import COOKIE
from mmkv.demos.app.registry import Registry
from mmkv.demos.app.session import Session, sentence
from mmkv.demos.app.settings import MOMENTS, Settings
from mmkv.demos.app.views.banner import GONE, banner
from mmkv.demos.app.views.gauges import gauges
from mmkv.demos.app.views.player import player
from mmkv.demos.app.views.plot import plot
from mmkv.demos.app.views.talk import talk
from mmkv.demos.app.views.timeline import timeline
from mmkv.demos.app.visit import Busy, Key, Visit

STEP = 0.05  # seconds, at least, between two updates of an answer
SHOWN = ("banner", "screen", "line", "gauges", "plot", "chat", "ask", "stop", "tries")
ANSWERING = ("question", "banner", "line", "gauges", "chat", "ask", "stop")
SCOPES = ("watched", "position", "encoded")


class Events:
    """Handlers for one server's page, each returning values for the page's components.

    Args:
        registry: the server's sessions.

    Attributes:
        moments: earlier frames that a question retrieves unless the visitor chooses otherwise.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        chosen = registry.settings.moments
        self.moments = chosen or _default_moments(registry)

    def enter(self, tab: str, request: gr.Request) -> list[Any]:
        """Handle a page that was opened or reloaded; `tab` is the tab's own secret."""
        visitor = request.cookies.get(COOKIE)
        page = request.session_hash
        if not visitor or not page or not isinstance(tab, str) or not 16 <= len(tab) <= 128:
            return [_line(GONE), *[gr.skip()] * (len(SHOWN) + 7)]
        visit = self._registry.enter(Key(visitor, tab, request.username), page)
        settings = visit.session.settings
        chosen = [settings.level, settings.fps, settings.moments or self.moments]
        return [
            *self._shown(visit, page, anew=True),
            gr.Timer(active=True),
            settings.in_words(self._registry.vlm),
            settings.snippet(self._registry.vlm.name),
            *chosen,
            settings.rush,
            settings.follow_ups,
        ]

    def follow(self, request: gr.Request) -> Iterator[list[Any]]:
        """Continue showing an answer that was in progress when the page was reloaded."""
        visit = self._visit(request)
        exchange = None if visit is None else visit.session.answering
        if visit is not None and exchange is not None:
            yield from self._answer(visit, exchange, clear=False)
        else:
            yield [gr.skip()] * len(ANSWERING)

    def leave(self, request: gr.Request) -> None:
        """Handle a page that was closed."""
        if request.session_hash:
            self._registry.leave(request.session_hash)

    def tick(self, state: Any, request: gr.Request) -> list[Any]:
        """Once a second, take the player's `state` and return what is new."""
        visit = self._visit(request)
        if visit is None:
            return [_line(GONE), *[gr.skip()] * (len(SHOWN) - 1)]
        _play(visit.session, state)
        return self._shown(visit, str(request.session_hash))

    def sample(self, request: gr.Request) -> list[Any]:
        """Watch the bundled video."""
        return self._start(request, lambda session: session.sample())

    def address(self, text: str, request: gr.Request) -> list[Any]:
        """Watch a network address on a listed host."""
        return self._start(request, lambda session: session.address(text))

    def again(self, request: gr.Request) -> list[Any]:
        """Watch the same video again from its start."""
        return self._start(request, lambda session: session.again())

    def delete(self, request: gr.Request) -> list[Any]:
        """Delete everything of this visitor's."""
        visit = self._visit(request)
        if visit is not None:
            self._registry.release(visit)
        return self.tick(None, request)

    def ask(
        self, state: Any, question: str, scope: str, request: gr.Request
    ) -> Iterator[list[Any]]:
        """Answer a question, token by token.

        Args:
            state: where the player is.
            question: as typed.
            scope: one of `SCOPES`, up to where the video may be used.
            request: whose page it is.

        Yields:
            values of the components in `ANSWERING`.
        """
        visit = self._visit(request)
        if visit is None:
            yield [gr.skip(), _line(GONE), *[gr.skip()] * (len(ANSWERING) - 2)]
            return
        _play(visit.session, state)
        try:
            exchange = visit.session.ask(question, scope if scope in SCOPES else "watched")  # type: ignore[arg-type]
        except ValueError as error:
            gr.Warning(sentence(error), duration=6)
            yield [gr.skip()] * len(ANSWERING)
            return
        yield from self._answer(visit, exchange, clear=True)

    def stop(self, request: gr.Request) -> list[Any]:
        """End the answer in progress."""
        visit = self._visit(request)
        if visit is None:
            return [gr.skip()] * len(ANSWERING)
        visit.session.stop()
        return self._answering(visit)

    def choose(
        self, level: str, fps: float, moments: float, rush: bool, follow_ups: bool,
        request: gr.Request,
    ) -> list[Any]:  # fmt: skip
        """Take over settings that were changed; they are the controls' values."""
        visit = self._visit(request)
        if visit is None:
            return [gr.skip(), gr.skip()]
        try:
            count = int(moments)
            settings = replace(
                visit.session.settings,
                level=level,
                fps=float(fps),
                moments=None if count == self.moments else count,
                rush=bool(rush),
                follow_ups=bool(follow_ups),
            )
        except (ValueError, TypeError, OverflowError):  # no choice of the page's
            return [gr.skip(), gr.skip()]
        visit.session.settings = settings
        vlm = self._registry.vlm
        return [settings.in_words(vlm), settings.snippet(vlm.name)]

    def _visit(self, request: gr.Request) -> Visit | None:
        page, visitor = request.session_hash, request.cookies.get(COOKIE)
        if not page or not visitor:
            return None
        visit = self._registry.of_page(page, visitor)
        return visit if visit is not None and visit.key.user == request.username else None

    def _start(self, request: gr.Request, begin: Callable[[Session], None]) -> list[Any]:
        visit = self._visit(request)
        if visit is None:
            return self.tick(None, request)
        session = visit.session
        session.message = ""
        start = partial(self._registry.begin, visit, partial(begin, session))
        try:
            self._registry.place(visit, start)
            start()
        except Busy:
            pass  # it starts once a place is free
        except Exception as error:
            session.message = sentence(error)
        return self._shown(visit, str(request.session_hash))

    def _answer(self, visit: Visit, exchange: Exchange, *, clear: bool) -> Iterator[list[Any]]:
        first = self._answering(visit)
        visit.follower = follower = object()
        yield ["" if clear else gr.skip(), *first[1:]]
        version, frames = -1, exchange.frames
        while not exchange.over:
            version = exchange.wait(version, 1.0)
            if visit.follower is not follower:  # each takes one of the server's threads
                return
            values = self._answering(visit)
            if exchange.frames == frames and not exchange.over:
                values[2] = gr.skip()
            frames = exchange.frames
            yield values
        yield self._answering(visit)

    def _answering(self, visit: Visit) -> list[Any]:
        values = self._values(visit)
        return [gr.skip(), *[_shaped(name, values[name]) for name in ANSWERING[1:]]]

    def _shown(self, visit: Visit, page: str, *, anew: bool = False) -> list[Any]:
        """What has changed on a page since it was last updated."""
        sent = visit.pages.get(page)
        if sent is None:
            return [gr.skip()] * len(SHOWN)
        if anew:
            sent.clear()
        values = self._values(visit)
        watch = visit.session.watch
        marks = {**values, "screen": None if watch is None else watch.showing}
        # an answer's own handler sends these, and this could arrive after what it sent last
        others = ("chat", "ask", "stop") if values["stop"] and not anew else ()
        changed = [n for n in SHOWN if n not in others and (n not in sent or sent[n] != marks[n])]
        sent.update(marks)
        for name in others:
            del sent[name]  # sent once more when the answer is over
        return [_shaped(n, values[n]) if n in changed else gr.skip() for n in SHOWN]

    def _values(self, visit: Visit) -> dict[str, Any]:
        session, registry = visit.session, self._registry
        watch, exchanges = session.watch, session.exchanges
        last = exchanges[-1] if exchanges else None
        busy = last is not None and not last.over  # first, so that a finished answer is shown whole
        stats = None if watch is None else watch.stream.stats()
        gap = 1.5 / session.settings.fps if watch is None else 1.5 / watch.settings.fps
        return {
            "banner": banner(registry, visit),
            "screen": player(watch, registry.limits),
            "line": timeline(watch, last),
            "gauges": gauges(watch, stats, last),
            "plot": plot(watch.meter.points if watch is not None else ()),
            "chat": talk(exchanges, gap),
            "ask": not busy,
            "stop": busy,
            "tries": watch is not None and watch.video.kind == "sample",
        }


def _shaped(name: str, value: Any) -> Any:
    if name in ("ask", "stop", "tries"):
        return gr.update(visible=value)
    return value


def _play(session: Session, state: Any) -> None:
    """Pass the player's position to the session; whatever else a page sends is ignored."""
    session.beat()
    watch = session.watch
    if not isinstance(state, dict) or watch is None or state.get("token") != watch.video.token:
        return
    position, furthest = state.get("time"), state.get("furthest")
    if not all(isinstance(t, (int, float)) and 0 <= t < 1e7 for t in (position, furthest)):
        return
    session.play(
        float(position or 0),
        float(furthest or 0),
        playing=state.get("playing") is True,
        rush=state.get("rush") is True,
    )


def _default_moments(registry: Registry) -> int:
    """What the engine retrieves by itself with this model."""
    vlm = registry.vlm
    config = Settings().config(registry.limits, registry.limits.disk_bytes)
    trained = int(getattr(vlm.adapter.text_config, "max_position_embeddings", 32768))
    sizes = config.resolve(trained, vlm.tokens_per_frame())
    least, most = MOMENTS
    return max(least, min(most, sizes.retrieve_frames))


def _line(text: str) -> str:
    return f'<div class="mm-banner mm-warn" role="status">{text}</div>'
