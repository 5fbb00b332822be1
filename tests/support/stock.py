"""The same clip and question through plain transformers, for tests of parity."""

from __future__ import annotations

import functools
import inspect
from typing import Any
from unittest import mock

import pytest
import torch
import transformers
from packaging.version import Version
from small_models import PREPROCESS, clip, small_vlm
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

import mmkv
from mmkv.encode.frame_encoder import token_ids
from mmkv.engine.transformers_compat import cache_argument

QUESTION = "What happened?"
VERSION = Version(transformers.__version__)
WHOLE_SECONDS = Version("5.18") > VERSION
COUNT_LOST = Version("5.19") <= VERSION < Version("5.23")


def stock_pixels(frames: torch.Tensor, *sizes: tuple[int, int]) -> torch.Tensor:
    """Resize to each size in turn, rescale and normalise, written a second time."""
    pixels = frames.permute(0, 3, 1, 2).float()
    for size in sizes:
        pixels = torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True)
        pixels = pixels.round().clamp(0, 255)
    pixels = pixels / 255
    mean, std = torch.tensor(PREPROCESS.mean), torch.tensor(PREPROCESS.std)
    return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def stock_patches(pixels: torch.Tensor, patch: int, merge: int) -> torch.Tensor:
    """Patches of paired frames by loops: time, block row, block column, row, column in a block."""
    n, _, height, width = pixels.shape
    side = patch * merge
    rows = []
    for t in range(0, n, 2):
        for top in range(0, height, side):
            for left in range(0, width, side):
                for y in range(top, top + side, patch):
                    for x in range(left, left + side, patch):
                        cut = pixels[t : t + 2, :, y : y + patch, x : x + patch]
                        rows.append(cut.transpose(0, 1).reshape(-1))  # channel, time, y, x
    return torch.stack(rows)


class Stock:
    """The same clip and question through plain transformers."""

    def __init__(self, vlm: mmkv.VideoLM, frames: torch.Tensor, times: list[float]) -> None:
        self.vlm, self.model, self.tok = vlm, vlm.model, vlm.tokenizer
        self.frames, self.times = frames, times
        self.grid = vlm.adapter.grid(*frames.shape[1:3])

    def logits(self, question: str, generated: list[int]) -> torch.Tensor:
        """Logits `[n, V]` of the whole sequence."""
        return getattr(self, "_" + self.vlm.family)(question, generated)

    def _ids(
        self,
        question: str,
        generated: list[int],
        video: str,
        expanded: str,
        template: str | None = None,
    ) -> torch.Tensor:
        message = [{"type": "video"}, {"type": "text", "text": question}]
        text = self.tok.apply_chat_template(
            [{"role": "user", "content": message}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
        )
        assert text.count(video) == 1
        ids = self.tok(text.replace(video, expanded), add_special_tokens=False).input_ids
        return torch.tensor([ids + generated])

    def _llava_onevision(self, question: str, generated: list[int]) -> torch.Tensor:
        pixels = stock_pixels(self.frames, (40, 40))[None]
        tokens = len(self.frames) * 9 + 1
        ids = self._ids(question, generated, "<video>", "<video>" * tokens)
        return self.model(input_ids=ids, pixel_values_videos=pixels).logits[0]

    def _internvl(self, question: str, generated: list[int]) -> torch.Tensor:
        image = "<img>" + "<IMG_CONTEXT>" * 9 + "</img>"
        text = "\n".join(f"Frame{i + 1}: {image}" for i in range(len(self.frames)))
        ids = self._ids(question, generated, "<video>", text)
        features = self.model.get_image_features(stock_pixels(self.frames, (48, 48)))
        return self._with_features(ids, len(generated), features.pooler_output.flatten(0, 1))

    def _smolvlm(self, question: str, generated: list[int]) -> torch.Tensor:
        mark = "<fake_token_around_image>"
        text = "You are provided the following series of frames from a video.\n"
        for t in self.times:
            clock = f"{int(t + 1e-3) // 60:02d}:{int(t + 1e-3) % 60:02d}"
            text += f"\nFrame from {clock}:{mark}<global-img>" + "<image>" * 9 + mark
        ids = self._ids(question, generated, "<video>", text + "\n\n", DEFAULT_CHAT_TEMPLATE)
        pixels = stock_pixels(self.frames, (42, 56), (48, 48))  # the longer side to 56 first
        features = self.model.get_image_features(pixels[None])
        return self._with_features(ids, len(generated), torch.cat(list(features.pooler_output)))

    def _with_features(
        self, ids: torch.Tensor, generated: int, features: torch.Tensor
    ) -> torch.Tensor:
        # a random model may generate the placeholder too, where no feature belongs
        embeds = self.model.get_input_embeddings()(ids)
        image = ids[0] == self.model.config.image_token_id
        image[len(image) - generated :] = False
        embeds[0, image] = features
        return self.model(inputs_embeds=embeds).logits[0]

    def _qwen(self, ids: torch.Tensor, **more: Any) -> torch.Tensor:
        grid = self.grid
        pixels = stock_patches(stock_pixels(self.frames, (grid.height, grid.width)), 8, 2)
        thw = torch.tensor([[len(self.frames) // 2, grid.rows * 2, grid.cols * 2]])
        kinds = (ids == self.model.config.video_token_id).int() * 2
        positions, _ = self.model.model.get_rope_index(
            ids, mm_token_type_ids=kinds, video_grid_thw=thw, **more
        )
        last = kinds[0].nonzero().max()
        # the text after a clip starts past the largest of its three coordinates
        positions[:, 0, last + 1 :] += (
            positions[:, 0, : last + 1].max() + 1 - positions[0, 0, last + 1]
        )
        return self.model(
            input_ids=ids,
            pixel_values_videos=pixels,
            video_grid_thw=thw,
            mm_token_type_ids=kinds,
            position_ids=positions,
        ).logits[0]

    def _qwen2_5_vl(self, question: str, generated: list[int]) -> torch.Tensor:
        count = len(self.frames) // 2 * self.grid.tokens
        start, pad, end = "<|vision_start|>", "<|video_pad|>", "<|vision_end|>"
        ids = self._ids(question, generated, start + pad + end, start + pad * count + end)
        step = self.times[2] - self.times[0]
        if step % 1 and WHOLE_SECONDS:
            pytest.skip("transformers before 5.18 cuts the seconds between pairs to whole ones")
        return self._qwen(ids, second_per_grid_ts=torch.tensor([step]))

    def _qwen3_vl(self, question: str, generated: list[int]) -> torch.Tensor:
        start, pad, end = "<|vision_start|>", "<|video_pad|>", "<|vision_end|>"
        segments = ""
        for i in range(0, len(self.frames), 2):
            middle = (self.times[i] + self.times[i + 1]) / 2
            segments += f"<{middle:.1f} seconds>" + start + pad * self.grid.tokens + end
        return self._qwen(self._ids(question, generated, start + pad + end, segments))

    _qwen3_5 = _qwen3_vl

    def gemma_inputs(self, question: str, generated: list[int]) -> dict[str, torch.Tensor]:
        """What the stock processor makes of the clip and the question, padding included."""
        grid, count = self.grid, len(self.frames)
        segments = " ".join(
            f"{int(t // 60):02d}:{int(t % 60):02d} <|image>{'<|video|>' * grid.tokens}<image|>"
            for t in self.times
        )
        ids = self._ids(question, generated, "<|video|>", segments)
        pixels = stock_pixels(self.frames, (grid.height, grid.width))
        patches, places = [], []
        for y in range(0, grid.height, 8):
            for x in range(0, grid.width, 8):
                cut = pixels[:, :, y : y + 8, x : x + 8].permute(0, 2, 3, 1)  # row, column, colour
                patches.append(cut.reshape(count, -1))
                places.append(torch.tensor([x // 8, y // 8]).expand(count, 2))
        spare = 8  # patches of padding, two tokens of 2 x 2
        patches += [torch.zeros_like(patches[0])] * spare
        places += [torch.full_like(places[0], -1)] * spare
        return {
            "input_ids": ids,
            "pixel_values_videos": torch.stack(patches, dim=1),
            "video_position_ids": torch.stack(places, dim=1),
            "num_frames_per_video": torch.tensor([count]),
            "mm_token_type_ids": (ids == self.model.config.video_token_id).int() * 2,
        }

    def _gemma4(self, question: str, generated: list[int]) -> torch.Tensor:
        inputs, inner = self.gemma_inputs(question, generated), self.model.model
        if COUNT_LOST:  # Gemma4Model.forward does not pass it on to the method that wants it
            count = inputs["num_frames_per_video"]
            counted = functools.partial(inner.get_video_features, num_frames_per_video=count)
            with mock.patch.object(inner, "get_video_features", counted):
                return self.model(**inputs).logits[0]
        if "num_frames_per_video" not in inspect.signature(self.model.forward).parameters:
            del inputs["num_frames_per_video"]  # older versions take a batch of videos
            for name in ("pixel_values_videos", "video_position_ids"):
                inputs[name] = inputs[name][None]
        return self.model(**inputs).logits[0]


def teacher_forced(
    stream: mmkv.Stream, steps: int, **options: Any
) -> tuple[list[torch.Tensor], list[int]]:
    """Logits of every generated token, and the tokens."""
    reply = stream.ask_iter(QUESTION, max_new_tokens=steps, **options)
    rows = [reply._generation.logits]
    rows += [reply._generation.logits for _ in iter(reply._advance, False)]
    return rows, list(reply.answer.token_ids)


@functools.cache
def chunk_noise(family: str, n: int = 26) -> float:
    """How far keys, values and hidden states of the stock model move with the chunks' sizes.

    It is some 1e-6 where all layers are attention; a recurrence is summed in another order.
    """
    adapter = small_vlm(family).adapter
    with torch.inference_mode():
        times = [0.7 * i for i in range(n)]
        blocks = adapter.blocks(list(clip(n, seed=5)), times, adapter.grid(48, 64))
    embeds = torch.cat([block.embeds for block in blocks])[None]
    tokens = embeds.shape[1]
    extras = adapter.token_inputs(token_ids(adapter, [block.layout for block in blocks]))
    rows = [_chunked(adapter.language_model, embeds, extras, size) for size in (tokens, 64, 14, 9)]
    pairs = (zip(rows[0], row, strict=True) for row in rows[1:])
    return max((a - b).abs().max().item() for pair in pairs for a, b in pair)


def _chunked(
    model: Any, embeds: torch.Tensor, extras: dict[str, torch.Tensor], chunk: int
) -> list[torch.Tensor]:
    cache = transformers.DynamicCache(config=model.config)
    hidden = []
    for at in range(0, embeds.shape[1], chunk):
        part = embeds[:, at : at + chunk]
        where = torch.arange(at, at + part.shape[1])[None]
        past = {name: extra[:, at : at + chunk] for name, extra in extras.items()}
        with torch.inference_mode():
            past |= {cache_argument(model): cache}
            out = model(inputs_embeds=part, position_ids=where, use_cache=True, **past)
        hidden.append(out.last_hidden_state)
    kept = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
    states = [state for layer in kept for state in (layer.keys, layer.values)]
    return [torch.cat(hidden, dim=1), *states]


def tolerance(family: str) -> float:
    """What chunking may change: 1e-5, or a few times what it changes in the stock model."""
    return max(1e-5, 2 * chunk_noise(family))
