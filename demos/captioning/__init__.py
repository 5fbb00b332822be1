"""Dense timed captions of videos, one or a whole folder: the `mmkv caption` command and its parts.

`caption` does one video; `run.caption_videos` does many, in a process that may be killed, with rows
appended to a JSON Lines file that a rerun continues; `on_ray.caption_on_ray` does that on several
devices or machines.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmkv.demos.captioning.captions import Captions, Segment
    from mmkv.demos.captioning.on_ray import caption_on_ray
    from mmkv.demos.captioning.one_video import caption
    from mmkv.demos.captioning.run import caption_videos
    from mmkv.demos.captioning.settings import Captioning

_WHERE = {
    "Captioning": "settings",
    "Captions": "captions",
    "Segment": "captions",
    "caption": "one_video",
    "caption_on_ray": "on_ray",
    "caption_videos": "run",
}

__all__ = ["Captioning", "Captions", "Segment", "caption", "caption_on_ray", "caption_videos"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
