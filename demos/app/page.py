"""The page: Gradio blocks that call `events`."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from mmkv.config.units import size
from mmkv.demos.app.events import Events
from mmkv.demos.app.registry import Registry
from mmkv.demos.app.settings import LEVELS, MOMENTS, RATES
from mmkv.demos.app.suggestions import suggestions
from mmkv.demos.app.views.player import player

CSS = Path(__file__).with_name("page.css")
HEAD = '<script src="mmkv/page.js"></script>'
SCOPES = [
    ("What I have watched", "watched"),
    ("Up to the play position", "position"),
    ("All that is encoded", "encoded"),
]
PACES = [("As it plays", False), ("As fast as possible", True)]
ONLY_HERE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def in_browser(arguments: str, body: str) -> str:
    """Write a JavaScript function that calls `page.js`.

    It waits for `page.js`, which Gradio adds only once it is running itself, so that it may arrive
    after the first event.

    Args:
        arguments: the function's parameters.
        body: its statements.
    """
    wait = "while (!window.mmkv) await new Promise((again) => setTimeout(again, 20));"
    return f"async ({arguments}) => {{ {wait} {body} }}"


STATE = in_browser("...all", "all[0] = window.mmkv.state(); return all;")
TAB = in_browser("", "return [window.mmkv.tab()];")


def theme() -> gr.themes.Base:
    """Make a theme of quiet colours, and fonts that every system has: nothing is fetched."""
    return gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_border_width="0px",
        block_shadow="none",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )


def page(registry: Registry) -> gr.Blocks:
    """Build the whole page."""
    events, limits = Events(registry), registry.limits
    with gr.Blocks(title="mmkv", analytics_enabled=False, fill_width=True) as blocks:
        tab = gr.Textbox(visible=False)
        state = gr.JSON(visible=False)
        gr.HTML(_header(registry), elem_id="mm-header")
        banner = gr.HTML(elem_id="mm-banner")
        with gr.Row(elem_id="mm-main", equal_height=False):
            with gr.Column(scale=7, min_width=320, elem_id="mm-left"):
                with gr.Row(elem_id="mm-sources"):
                    sample = gr.Button("Try the sample", variant="primary", elem_id="mm-sample")
                    upload = gr.Button("Upload a video", elem_id="mm-upload")
                    camera = gr.Button("Use the camera", elem_id="mm-camera")
                if registry.hosts:
                    with gr.Row(elem_id="mm-address"):
                        address = gr.Textbox(
                            label="Address",
                            placeholder=f"rtsp:// or http:// address on {registry.hosts}",
                            show_label=False, container=False, scale=4, max_lines=1,
                            elem_id="mm-address-box",
                        )  # fmt: skip
                        go = gr.Button("Watch", scale=1, elem_id="mm-address-go")
                gr.HTML(_notes(limits.upload_bytes), elem_id="mm-notes")
                screen = gr.HTML(player(None, limits), elem_id="mm-screen")
                line = gr.HTML(elem_id="mm-line")
            with gr.Column(scale=5, min_width=320, elem_id="mm-right"):
                chat = gr.Chatbot(
                    show_label=False, height=430, layout="bubble", buttons=[], feedback_options=[],
                    placeholder="Ask anything about what the video has shown so far.",
                    latex_delimiters=[], allow_file_downloads=False, elem_id="mm-chat",
                )  # fmt: skip
                with gr.Row(elem_id="mm-ask"):
                    question = gr.Textbox(
                        label="Question", placeholder="Ask about the video", show_label=False,
                        container=False, max_lines=4, max_length=limits.question_chars, scale=5,
                        elem_id="mm-question",
                    )  # fmt: skip
                    ask = gr.Button(
                        "Ask", variant="primary", scale=1, min_width=80, elem_id="mm-go"
                    )
                    stop = gr.Button(
                        "Stop", variant="stop", scale=1, min_width=80, visible=False,
                        elem_id="mm-stop",
                    )  # fmt: skip
                scope = gr.Radio(SCOPES, value="watched", label="Answer from", elem_id="mm-scope")
                with gr.Row(visible=False, elem_id="mm-try") as tries:
                    offered = [gr.Button(text, size="sm") for text in suggestions()]
        with gr.Row(elem_id="mm-below", equal_height=False):
            with gr.Column(scale=7, min_width=320):
                gauges = gr.HTML(elem_id="mm-gauges")
            with gr.Column(scale=5, min_width=320):
                plot = gr.HTML(elem_id="mm-plot")
        with gr.Accordion("Memory and detail", open=False, elem_id="mm-settings"):  # noqa: SIM117
            with gr.Row(equal_height=False):
                with gr.Column(scale=7, min_width=320):
                    level = gr.Radio(
                        list(LEVELS), value="Full detail", label="How much is kept of each moment",
                        elem_id="mm-level",
                    )  # fmt: skip
                    words = gr.Markdown(elem_id="mm-words")
                    fps = gr.Radio(
                        [(f"{rate:g}", rate) for rate in RATES], value=1.0,
                        label="Frames looked at per second", elem_id="mm-fps",
                    )  # fmt: skip
                    moments = gr.Slider(
                        *MOMENTS, value=events.moments, step=1, elem_id="mm-moments",
                        label="Earlier frames looked up for each question",
                    )  # fmt: skip
                    rush = gr.Radio(PACES, value=False, label="Encode", elem_id="mm-pace")
                    follow_ups = gr.Checkbox(
                        label="Questions may refer to earlier ones", info=_follow_ups(registry),
                        elem_id="mm-follow-ups",
                    )  # fmt: skip
                    with gr.Row():
                        again = gr.Button("Watch again with these settings", elem_id="mm-again")
                        delete = gr.Button(
                            "Delete my video and conversation", variant="stop", elem_id="mm-delete"
                        )
                with gr.Column(scale=5, min_width=320):
                    code = gr.Code(
                        language="python", label="The same from Python", interactive=False,
                        buttons=["copy"], wrap_lines=True, elem_id="mm-code",
                    )  # fmt: skip
        timer = gr.Timer(1.0, active=False)  # until the page is known

        settings: list[Any] = [level, fps, moments, rush, follow_ups]
        shown = [banner, screen, line, gauges, plot, chat, ask, stop, tries]
        answering = [question, banner, line, gauges, chat, ask, stop]
        loads: dict[str, Any] = {"queue": True, "concurrency_limit": None, **ONLY_HERE}
        entered = [*shown, timer, words, code, *settings]
        opened = blocks.load(events.enter, [tab], entered, js=TAB, **loads)
        opened.then(events.follow, None, answering, **loads)
        timer.tick(events.tick, [state], shown, js=STATE, **loads)
        blocks.unload(events.leave)

        sample.click(events.sample, None, shown, **loads)
        for button, name in ((upload, "upload"), (camera, "camera")):
            call = in_browser("", f"window.mmkv.{name}();")
            button.click(None, js=call, api_visibility="private")
        if registry.hosts:
            gr.on([go.click, address.submit], events.address, [address], shown, **loads)
        asked: dict[str, Any] = {"js": STATE, "trigger_mode": "multiple", **loads}
        gr.on(
            [ask.click, question.submit], events.ask, [state, question, scope], answering, **asked
        )
        for button in offered:
            button.click(events.ask, [state, button, scope], answering, **asked)
        stop.click(events.stop, None, answering, **loads)
        for setting in settings:
            setting.change(events.choose, settings, [words, code], **loads)
        again.click(events.again, None, shown, **loads)
        delete.click(events.delete, None, shown, **loads)
    return blocks


def _header(registry: Registry) -> str:
    model = escape(registry.vlm.name)
    return (
        '<header class="mm-header"><h1>mmkv</h1><p>Ask a video anything, while it plays.</p>'
        f'<span title="chosen by whoever runs this server">{model}</span></header>'
    )


def _follow_ups(registry: Registry) -> str:
    """What to know before questions refer to others."""
    if registry.settings.follow_ups:
        return "“And after it?” is answered with the earlier questions and answers in mind."
    return f"Off with {registry.vlm.name}, which was not trained to follow a conversation."


def _notes(upload_bytes: int) -> str:
    return (
        f'<input type="file" id="mm-file" accept="video/*,.mkv,.avi,.ts" hidden '
        f'data-most="{upload_bytes}" aria-label="Video file, up to {size(upload_bytes)}">'
        '<p id="mm-note" role="status" hidden></p>'
        '<p id="mm-no-camera" hidden>The camera needs https or localhost: browsers do not allow '
        "it on other pages.</p>"
        '<dialog id="mm-large" onclick="this.close()"><img alt="The frame, enlarged"></dialog>'
    )
