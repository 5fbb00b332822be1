"""A stream's tokens are those of the stock processor's prompt for the same clip.

The processors themselves need torchvision; the functions that write their text do not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_models import clip, preprocess_of, small_vlm
from stock import QUESTION, Stock
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor

import mmkv
from mmkv.models.prompt import Turn

ASKED: list[tuple[str | None, list[Turn]]] = [
    (None, []),
    ("Be short.", []),
    (None, [("Who?", "A man."), ("Why?", "Because.")]),
]


@pytest.fixture(autouse=True)
def _numbers_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing_smolvlm, "num2words", {12: "twelve"}.get)


def smolvlm_clip(times: list[float]) -> str:
    """The stock text of a clip of 12 frames, but for the sentence that it opens with."""
    processor = SimpleNamespace(
        image_seq_len=9,
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )
    facts = SimpleNamespace(fps=1.0, timestamps=times, duration=75.0)
    inputs = {"pixel_values": torch.empty(1, len(times), 0), "video_metadata": [facts]}
    text = SmolVLMProcessor.replace_video_token(processor, inputs, 0)
    unknown = "the following series of twelve frames from a 0:01:15 [H:MM:SS] video.\n"
    assert text.count(unknown) == 1
    return text.replace(unknown, "the following series of frames from a video.\n")


def internvl_clip(times: list[float]) -> str:
    """The stock text of a clip."""
    processor = SimpleNamespace(
        image_seq_length=9,
        image_token="<IMG_CONTEXT>",
        start_image_token="<img>",
        end_image_token="</img>",
    )
    inputs = {"pixel_values_videos": [torch.empty(len(times), 0)]}
    return InternVLProcessor.replace_video_token(processor, inputs, 0)


def stock(
    vlm: mmkv.VideoLM, template: str | None, text: str, system: str | None, turns: list[Turn]
) -> list[int]:
    """Token ids of the whole prompt, rendered and tokenized in one piece."""
    said = [("system", system)] if system else []
    for question, answer in turns:
        said += [("user", question), ("assistant", answer)]
    said.append(("user", "What happened?"))
    messages: list[dict[str, Any]] = [
        {"role": role, "content": [{"type": "text", "text": words}]} for role, words in said
    ]
    next(m for m in messages if m["role"] == "user")["content"].insert(0, {"type": "video"})
    rendered = vlm.tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert rendered.count("<video>") == 1
    ids = vlm.tokenizer(rendered.replace("<video>", text), add_special_tokens=False).input_ids
    return list(ids)


def watched(
    vlm: mmkv.VideoLM, times: list[float], image: str, system: str | None, turns: list[Turn]
) -> list[int]:
    """Token ids that a stream puts through the model for the same prompt."""
    with vlm.stream(mmkv.CacheConfig(window_frames=4), system=system) as stream:
        stream.feed(clip(len(times)), times)
        ids = list(stream._state.frame_encoder.prefix)
        for block in stream._state.archive.snapshot().blocks:
            visual = block.tokens - len(block.layout.before) - len(block.layout.after)
            ids += block.layout.before
            ids += [vlm.tokenizer.convert_tokens_to_ids(image)] * visual
            ids += block.layout.after
        return [*ids, *vlm.adapter.template(system).prompt("What happened?", turns).ids]


@pytest.mark.parametrize("family", ["internvl", "smolvlm"])
def test_the_stock_forward_puts_pixels_where_the_tests_of_parity_do(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, times = small_vlm(family), [float(i) for i in range(4)]
    forward, given = vlm.model.get_image_features, {}

    def noted(pixels: torch.Tensor) -> Any:
        given["pixel_values"] = pixels
        return forward(pixels)

    monkeypatch.setattr(vlm.model, "get_image_features", noted)
    image = vlm.tokenizer.convert_tokens_to_ids(
        {"internvl": "<IMG_CONTEXT>"}.get(family, "<image>")
    )
    with torch.inference_mode():
        parity = Stock(vlm, clip(4), times)
        monkeypatch.setattr(
            parity, "_with_features", lambda ids, *rest: given.update(input_ids=ids)
        )
        getattr(parity, f"_{family}")(QUESTION, [])
        want = vlm.model(**given).logits[0]
        got = Stock(vlm, clip(4), times).logits(QUESTION, [])
    assert (given["input_ids"] == image).sum() == 4 * 9
    assert torch.allclose(got, want, atol=1e-4)


@pytest.mark.parametrize(("system", "turns"), ASKED)
@pytest.mark.parametrize("gap", [0.5, 1.0, 6.8])
def test_a_smolvlm_clip_has_the_stock_tokens_but_for_its_length(
    gap: float, system: str | None, turns: list[Turn]
) -> None:
    vlm, times = small_vlm("smolvlm"), [gap * i for i in range(12)]
    template = processing_smolvlm.DEFAULT_CHAT_TEMPLATE
    want = stock(vlm, template, smolvlm_clip(times), system, turns)
    assert watched(vlm, times, "<image>", system, turns) == want


@pytest.mark.parametrize(("system", "turns"), ASKED)
@pytest.mark.parametrize("gap", [0.5, 1.0, 6.8])
def test_an_internvl_clip_has_the_stock_tokens(
    gap: float, system: str | None, turns: list[Turn]
) -> None:
    vlm, times = small_vlm("internvl"), [gap * i for i in range(12)]
    want = stock(vlm, None, internvl_clip(times), system, turns)
    assert watched(vlm, times, "<IMG_CONTEXT>", system, turns) == want


def test_a_smolvlm_frames_text_says_its_minute_and_second() -> None:
    adapter = small_vlm("smolvlm").adapter
    grid, marks = adapter.grid(48, 64), "<fake_token_around_image><global-img>"
    for seconds, clock in (
        (0.0, "00:00"),
        (0.9, "00:00"),
        (0.9999, "00:01"),
        (59.5, "00:59"),
        (60.0, "01:00"),
        (7325.2, "122:05"),
    ):
        before = adapter.layout(grid, [seconds]).before
        assert adapter.tokenizer.decode(list(before)) == f"\nFrame from {clock}:{marks}"


def test_an_internvl_store_goes_on_counting_frames(tmp_path: Path) -> None:
    vlm, path = small_vlm("internvl"), tmp_path / "store"
    with vlm.stream(mmkv.CacheConfig(window_frames=4), store=path) as stream:
        stream.feed(clip(5), np.arange(5.0))
    with vlm.open(path, mode="a") as stream:
        stream.feed(clip(3), np.arange(5.0, 8.0))
        blocks = stream._state.archive.snapshot().blocks
    texts = [vlm.tokenizer.decode(list(b.layout.before)) for b in blocks]
    assert texts == [f"Frame{i + 1}: <img>" for i in range(8)]


@pytest.mark.parametrize("family", ["internvl", "smolvlm"])
def test_a_time_of_many_digits_still_fits(family: str) -> None:
    with small_vlm(family).stream(mmkv.CacheConfig(window_frames=2, chunk_frames=1)) as stream:
        stream.feed(clip(3), [0.0, 1e9, 1e9 + 1])
        assert stream.ask("When?", max_new_tokens=1).as_of == 1e9 + 1
        last = stream._state.archive.last
        assert last is not None
        assert last.tokens <= stream._state.window.chunk


def test_a_frame_of_zeros_is_a_frame() -> None:
    vlm = small_vlm("smolvlm")
    black = replace(preprocess_of("smolvlm"), mean=(0.0, 0.0, 0.0))
    vlm = mmkv.load(model=vlm.model, tokenizer=vlm.tokenizer, preprocess=black)
    frames = clip(3)
    frames[1] = 0
    with vlm.stream() as stream:
        stream.feed(frames, np.arange(3.0))
        assert len(stream._state.archive.snapshot().blocks) == 3
        assert stream.ask("What?", max_new_tokens=1).token_ids


def test_the_word_video_in_a_system_message_is_no_video() -> None:
    template = small_vlm("smolvlm").adapter.template("Watch the <video> closely.")
    prefix = small_vlm("smolvlm").tokenizer.decode(list(template.prefix))
    assert prefix.startswith("<|im_start|>System: Watch the < video> closely.<end_of_utterance>\n")
    assert prefix.endswith("frames from a video.\n")
