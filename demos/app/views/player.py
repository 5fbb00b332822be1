"""The player, or what stands in its place."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from mmkv.config.units import clock, size
from mmkv.demos.app.files import PLAYABLE

if TYPE_CHECKING:
    from mmkv.demos.app.limits import Limits
    from mmkv.demos.app.watch import Watch


def player(watch: Watch | None, limits: Limits) -> str:
    """Show the visitor's video; the page's script starts it, follows it, and seeks in it."""
    if watch is None:
        return (
            '<div class="mm-player mm-drop" id="mm-drop"><p><b>Choose a video to begin</b></p>'
            "<p>Try the sample, drop a file here, or use your camera. Ask while it plays.</p>"
            f"<p><small>Files up to {size(limits.upload_bytes)}; at most "
            f"{clock(limits.stream_seconds)} of each video is watched. Everything is deleted when "
            "you leave.</small></p></div>"
        )
    video, name = watch.video, escape(watch.video.name)
    head = f'<div class="mm-player" id="mm-drop" data-token="{video.token}">'
    if video.kind == "camera":
        screen = (
            f'<video id="mm-video" data-camera="1" data-fps="{watch.settings.fps:g}" autoplay '
            "muted playsinline></video>"
        )
    elif video.path is None:
        screen = '<div class="mm-drop"><p>Waiting for the first picture.</p></div>'
        picture = watch.picture()
        if picture is not None:
            data = base64.b64encode(picture).decode()
            screen = (
                f'<img id="mm-live" alt="The newest frame" src="data:image/jpeg;base64,{data}">'
            )
    else:
        kind = PLAYABLE.get(video.path.suffix.lower(), "video/mp4")
        screen = (
            f'<video id="mm-video" data-start="{watch.position:.2f}" '
            f'data-furthest="{watch.furthest:.2f}" controls autoplay muted playsinline '
            f'preload="auto"><source src="mmkv/video/{video.token}" type="{kind}"></video>'
        )
    return f'{head}{screen}<p class="mm-name">{name}</p></div>'
