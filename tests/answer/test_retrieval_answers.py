"""What answers tell of their frames: pictures, what was read ahead, where the time went."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_models import FAMILIES, clip, small_vlm

import mmkv
from mmkv.archive import Snapshot

CONFIG = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=5)
PICTURES = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=5, thumbnails=True)


def flat(n: int) -> np.ndarray:
    """Frames of one grey each, wide enough to be made smaller."""
    levels = (np.arange(n) * 9 + 5).astype(np.uint8)[:, None, None, None]
    return np.broadcast_to(levels, (n, 120, 240, 3)).copy()


def shown(frames: tuple[mmkv.FrameRef, ...]) -> dict[int, Any]:
    """Frame number -> its picture."""
    assert all(f.thumbnail for f in frames)
    return {f.index: Image.open(io.BytesIO(f.thumbnail or b"")) for f in frames}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [24, 25])
def test_every_frame_of_an_answer_has_its_own_picture(family: str, n: int) -> None:
    with small_vlm(family).stream(PICTURES) as stream:
        stream.feed(flat(n), np.arange(float(n)))
        pictures = shown(stream.ask("Which?", max_new_tokens=1).frames)
    assert len(pictures) >= 4
    for index, picture in pictures.items():
        assert picture.size == (160, 80)
        assert abs(float(np.asarray(picture).mean()) - (9 * index + 5)) < 3


def test_pictures_come_back_from_a_store(tmp_path: Path) -> None:
    vlm = small_vlm("llava_onevision")
    with vlm.stream(PICTURES, store=tmp_path / "kept") as stream:
        stream.feed(flat(24), np.arange(24.0))
    with vlm.open(tmp_path / "kept") as stream:
        pictures = shown(stream.ask("Which?", max_new_tokens=1).frames)
    for index, picture in pictures.items():
        assert abs(float(np.asarray(picture).mean()) - (9 * index + 5)) < 3


def test_no_pictures_are_made_unless_asked_for() -> None:
    with small_vlm("llava_onevision").stream(CONFIG) as stream:
        stream.feed(clip(24), np.arange(24.0))
        answer = stream.ask("Which?", max_new_tokens=1)
    assert all(f.thumbnail is None for f in answer.frames)
    assert "thumbnail" not in answer.to_dict()["frames"][0]


def test_every_layer_asks_ahead_for_what_it_chose_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, list[int]]] = []

    def ahead(self: Snapshot, layer: int, blocks: Any) -> None:
        asked.append((layer, [block.index for block in blocks]))

    monkeypatch.setattr(Snapshot, "prefetch", ahead)
    vlm = small_vlm("llava_onevision")
    with vlm.stream(CONFIG) as stream:
        stream.feed(clip(24), np.arange(24.0))
        reply = stream.ask_iter("Which?", max_new_tokens=1)
        choices = [choice.chosen for choice in reply._generation.engine_pass.choices]
        answer = reply.finish()
    assert asked == [(layer + 1, chosen) for layer, chosen in enumerate(choices[:-1])]
    hits = sum(len(set(a) & set(b)) for a, b in pairwise(choices))
    assert answer.foreseen == pytest.approx(hits / sum(map(len, choices[1:])))


def test_an_answer_without_retrieval_has_nothing_to_foresee() -> None:
    with small_vlm("llava_onevision").stream(CONFIG) as stream:
        stream.feed(clip(2), np.arange(2.0))
        assert stream.ask("Which?", max_new_tokens=1).foreseen is None


def test_the_stages_of_a_question_add_up() -> None:
    with small_vlm("llava_onevision").stream(CONFIG) as stream:
        stream.feed(clip(24), np.arange(24.0))
        timings = stream.ask("Which?", max_new_tokens=3).timings
    parts = [timings[stage] for stage in ("score", "load", "unpack")]
    assert all(part > 0 for part in parts)
    assert sum(parts) <= timings["prefill"] <= timings["first_token"] <= timings["total"]
