"""The bundled checkpoint loads with stock transformers and answers held-out clips."""

from __future__ import annotations

from random import Random

import pytest
import torch
from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration

from mmkv.models.tiny import CHECKPOINT, forward, streaming
from mmkv.models.tiny.batches import TOKENS, Batch, Encoder, make_batch
from mmkv.models.tiny.controls import exact_answers
from mmkv.models.tiny.questions import KINDS
from mmkv.models.tiny.tokenizer import VIDEO
from mmkv.models.tiny.world import Bank, draw, make_bank

FRAMES = 4


@pytest.fixture(scope="module")
def model() -> LlavaOnevisionForConditionalGeneration:
    return LlavaOnevisionForConditionalGeneration.from_pretrained(
        CHECKPOINT, dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(CHECKPOINT))


@pytest.fixture(scope="module")
def bank() -> Bank:
    return make_bank(16, seed=99)


def held_out(
    encoder: Encoder, bank: Bank, clips: int, questions: int
) -> tuple[Batch, torch.Tensor]:
    """A batch of clips and their frames, uint8 `[clips * FRAMES, 3, 64, 64]`."""
    kinds = {k: 1.0 for k in KINDS if k not in ("caption", "follow")}
    batch = make_batch(
        Random("held out"), encoder, clips=clips, frames=FRAMES, questions=questions,
        weights=kinds, variants=bank.variants,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    frames = draw(batch.scenes.flatten(0, 1), batch.variant.flatten(0, 1), bank, generator)
    return batch, frames


def visual(
    model: LlavaOnevisionForConditionalGeneration, frames: torch.Tensor, clips: int
) -> torch.Tensor:
    """Visual tokens by the stock method, without the newline that it adds since 5.18."""
    pixels = forward.pixels_of(frames).unflatten(0, (clips, FRAMES))
    out = model.model.get_video_features(pixels, vision_feature_layer=-1).pooler_output
    return out[:, : FRAMES * TOKENS]


def test_the_checkpoint_is_small() -> None:
    assert sum(f.stat().st_size for f in CHECKPOINT.iterdir()) < 12e6


@torch.no_grad()
def test_plain_generate_gives_the_right_answers(
    model: LlavaOnevisionForConditionalGeneration, encoder: Encoder, bank: Bank
) -> None:
    batch, frames = held_out(encoder, bank, clips=8, questions=6)
    video = [encoder.ids[VIDEO]] * (FRAMES * TOKENS + 1)
    right = 0
    for b, questions in enumerate(batch.questions):
        pixels = forward.pixels_of(frames[b * FRAMES : (b + 1) * FRAMES])[None]
        for q in questions:
            text = encoder(q.text + " {e} {s} assistant")
            ids = torch.tensor([[*encoder.prefix, *video, *text]])
            out = model.generate(input_ids=ids, pixel_values_videos=pixels, max_new_tokens=12)
            said = encoder.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            right += said == q.answer
    assert right >= 0.95 * 48


@torch.no_grad()
def test_training_gives_each_question_what_the_stock_model_gives_it_alone(
    model: LlavaOnevisionForConditionalGeneration, encoder: Encoder, bank: Bank
) -> None:
    batch, frames = held_out(encoder, bank, clips=2, questions=5)
    tokens = visual(model, frames, 2)
    past = streaming.watch(model, forward.opening(model, tokens, encoder), len(encoder.prefix))
    everything = streaming.whole_clips(2, 5, FRAMES)
    states, _ = streaming.answer(model, batch, past, encoder, lambda *_: everything)
    ours = model.lm_head(states)
    video = [encoder.ids[VIDEO]] * (FRAMES * TOKENS + 1)
    pixels = forward.pixels_of(frames).unflatten(0, (2, FRAMES))
    for b in range(2):
        for k in range(5):
            own = batch.ids[b, batch.block[b] == k]
            ids = torch.tensor([[*encoder.prefix, *video, *own.tolist()]])
            stock = model(input_ids=ids, pixel_values_videos=pixels[b : b + 1]).logits
            mine = ours[b, batch.block[b] == k]
            torch.testing.assert_close(mine, stock[0, -len(own) :], atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_a_fifth_of_the_tokens_is_not_enough(
    model: LlavaOnevisionForConditionalGeneration, encoder: Encoder, bank: Bank
) -> None:
    batch, frames = held_out(encoder, bank, clips=24, questions=10)
    tokens = visual(model, frames, 24)
    whole = exact_answers(model, batch, tokens, encoder).float().mean()
    thinned = exact_answers(model, batch, tokens, encoder, keep="per frame").float().mean()
    assert thinned < whole - 0.1
