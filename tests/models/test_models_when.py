"""A Qwen3-VL that learned to read time texts says *when*, from the frames it retrieves."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import FAMILIES, PREPROCESS

import mmkv
from mmkv.models.prompt import Template

COLOURS = {
    "r": (255, 0, 0),
    "g": (0, 255, 0),
    "b": (0, 0, 255),
    "y": (255, 255, 0),
    "w": (255, 255, 255),
    "k": (0, 0, 0),
}
Scene = list[tuple[str, int]]  # a colour, and the second in the middle of which it is shown


def scene(rng: random.Random) -> Scene:
    seconds = sorted(rng.sample(range(10), 4))
    return list(zip(rng.sample(list(COLOURS), 4), seconds, strict=True))


def frame(colour: str) -> torch.Tensor:
    return torch.tensor(COLOURS[colour], dtype=torch.uint8).expand(32, 32, 3).contiguous()


class Reader:
    """Teaches the language model to give the digit of the time text of the colour asked for.

    The first layer is helped: its visual tokens name their digit, its last token the colour.
    """

    def __init__(self, vlm: mmkv.VideoLM) -> None:
        self.adapter: Any = vlm.adapter
        self.template = Template(vlm.tokenizer, self.adapter.video_tokens)
        self.grid = self.adapter.grid(32, 32)
        pairs = [frame(c) for c in COLOURS for _ in range(2)]
        with torch.no_grad():
            blocks = self.adapter.blocks(pairs, [float(i) for i in range(12)], self.grid)
        self.blocks = dict(zip(COLOURS, blocks, strict=True))

    def ids(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor(self.adapter.tokenizer.convert_tokens_to_ids(texts))

    def sequence(self, shown: Scene, asked: str) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Embeddings, which are visual, and positions of a clip and its question."""
        prefix = list(self.template.prefix)
        parts, visual = [self.adapter.embed_text(prefix)], [False] * len(prefix)
        places, at = [np.broadcast_to(np.arange(len(prefix)), (3, len(prefix)))], len(prefix)
        for colour, second in shown:
            layout = self.adapter.layout(self.grid, [second + 0.4, second + 0.6])
            block = self.blocks[colour]
            parts += [
                self.adapter.embed_text(layout.before),
                block.embeds[block.visual],
                self.adapter.embed_text(layout.after),
            ]
            visual += [False] * len(layout.before) + [True] * self.grid.tokens + [False]
            places.append(layout.offsets + at)
            at += layout.advance[0]
        ids = list(self.template.prompt(f"When {asked}?").ids)
        parts.append(self.adapter.embed_text(ids))
        places.append(np.broadcast_to(np.arange(len(ids)), (3, len(ids))) + at)
        mask = torch.tensor(visual + [False] * len(ids))
        return torch.cat(parts), mask, np.concatenate(places, axis=1)

    def loss(self, batch: list[tuple[Scene, str]]) -> torch.Tensor:
        model, head = self.adapter.language_model, self.adapter.lm_head
        embeds, masks, places = zip(*(self.sequence(*example) for example in batch), strict=True)
        positions = torch.tensor(np.stack(places, axis=1))
        levels = range(len(self.blocks["r"].deepstack))
        out = model(
            inputs_embeds=torch.stack(embeds),
            position_ids=positions,
            visual_pos_masks=torch.stack(masks),
            deepstack_visual_embeds=[
                torch.cat([self.blocks[c].deepstack[i] for shown, _ in batch for c, _ in shown])
                for i in levels
            ],
            use_cache=False,
            output_hidden_states=True,
        )
        first = model.norm(out.hidden_states[1])
        digits = self.ids([str(s) for shown, _ in batch for _, s in shown])
        return (
            F.cross_entropy(
                head(out.last_hidden_state[:, -1]),
                self.ids([str(dict(shown)[asked]) for shown, asked in batch]),
            )
            + F.cross_entropy(
                head(first[torch.stack(masks)]), digits.repeat_interleave(self.grid.tokens)
            )
            + F.cross_entropy(head(first[:, -1]), self.ids([asked for _, asked in batch]))
        )

    def learn(self, steps: int, rng: random.Random) -> None:
        weights = list(self.adapter.language_model.parameters())
        optimizer = torch.optim.AdamW(weights, lr=3e-3, betas=(0.9, 0.98))
        for step in range(steps):
            scenes = [scene(rng) for _ in range(16)]
            loss = self.loss([(shown, rng.choice(shown)[0]) for shown in scenes])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1, (step + 1) / 30) * (1 - step / steps) + 1e-5
            optimizer.step()


@pytest.fixture(scope="module")
def vlm() -> mmkv.VideoLM:
    torch.manual_seed(0)
    model, tokenizer = FAMILIES["qwen3_vl"]()
    loaded = mmkv.load(
        model=model, tokenizer=tokenizer, preprocess=PREPROCESS, max_pixels=4 * 16 * 16
    )
    Reader(loaded).learn(500, random.Random(0))
    return loaded


def ask(vlm: mmkv.VideoLM, seed: int, config: mmkv.CacheConfig, alone: bool) -> int:
    """How many of 40 questions on new clips are answered right, from retrieved frames only."""
    rng, right = random.Random(seed), 0
    for _ in range(40):
        shown = scene(rng)
        with vlm.stream(config) as stream:
            for colour, second in shown:
                stream.feed(torch.stack([frame(colour)] * 2), [second + 0.4, second + 0.6])
            colour, second = rng.choice(shown)
            span = {"since": float(second), "until": second + 1.0} if alone else {}
            answer = stream.ask(f"When {colour}?", max_new_tokens=1, **span)
            assert not any(f.recent for f in answer.frames)
            right += answer.text == str(second)
    return right


@pytest.mark.slow
def test_it_says_when_a_colour_was_shown(vlm: mmkv.VideoLM) -> None:
    config = mmkv.CacheConfig(window_frames=8, recent_frames=0, retrieve_frames=8)
    assert ask(vlm, 1, config, alone=False) >= 30


@pytest.mark.slow
def test_a_retrieved_frame_alone_tells_its_own_time(vlm: mmkv.VideoLM) -> None:
    config = mmkv.CacheConfig(window_frames=2, recent_frames=0, retrieve_frames=2)
    assert ask(vlm, 2, config, alone=True) >= 30
