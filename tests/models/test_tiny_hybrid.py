"""The hybrid sibling of mmkv-tiny learns, is saved, and is trained as stock transformers runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from transformers import AutoTokenizer, Qwen3_5ForConditionalGeneration

from mmkv.models.grid import Grid
from mmkv.models.preprocess import Preprocess, read_preprocess
from mmkv.models.prompt import Template
from mmkv.models.qwen3_vl import Qwen3VL
from mmkv.models.tiny import clips, forward, stages, train
from mmkv.models.tiny.batches import Batch, Encoder, make_batch
from mmkv.models.tiny.clip_lesson import pointer_loss, wander
from mmkv.models.tiny.hybrid import OLDEST, Hybrid
from mmkv.models.tiny.hybrid_build import ROWS
from mmkv.models.tiny.muon import Muon32
from mmkv.models.tiny.tokenizer import UNK, VIDEO_PAD, VISION_END, VISION_START
from mmkv.models.tiny.world import Bank, draw, make_bank

FRAMES, CLIPS, QUESTIONS = 3, 3, 4
FAMILY = Hybrid()

pytestmark = pytest.mark.skipif(
    Version(transformers.__version__) < OLDEST, reason=f"training needs transformers {OLDEST}"
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(FAMILY.build_tokenizer())


@pytest.fixture(scope="module")
def model(encoder: Encoder) -> Any:
    return FAMILY.build_model(encoder.tokenizer, 0).eval()


@pytest.fixture(scope="module")
def bank() -> Bank:
    return make_bank(4, seed=99)


def a_batch(encoder: Encoder, bank: Bank) -> Batch:
    return make_batch(
        Random("hybrid"), encoder, clips=CLIPS, frames=FRAMES, questions=QUESTIONS,
        weights=dict.fromkeys(FAMILY.kinds, 1.0), variants=bank.variants,
    )  # fmt: skip


def drawn(batch: Batch, bank: Bank) -> torch.Tensor:
    """Pairs of frames, uint8 `[B * F, 2, 3, 64, 64]`."""
    scenes, variant = batch.scenes.flatten(0, 1), batch.variant.flatten(0, 1)
    generator = torch.Generator().manual_seed(5)
    return torch.stack([draw(scenes, variant, bank, generator) for _ in range(2)], 1)


def test_times_are_read_digit_by_digit(encoder: Encoder) -> None:
    said = encoder.tokenizer.tokenize(f"<12.5 seconds>{VISION_START}{VIDEO_PAD}{VISION_END}what?")
    assert said == ["1", "2", "5", "seconds", VISION_START, VIDEO_PAD, VISION_END, "what"]
    every = encoder.tokenizer("".join(f"<{t}.5 seconds>" for t in range(3000)))["input_ids"]
    assert encoder.ids[UNK] not in every


def test_the_template_puts_the_question_behind_the_video(encoder: Encoder) -> None:
    template = Template(encoder.tokenizer, Qwen3VL.video_tokens)
    assert list(template.prefix) == encoder.prefix
    asked = template.prompt("where was the red circle?")
    assert list(asked.ids) == encoder("where was the red circle? {e} {s} assistant")


def test_clips_are_laid_out_as_qwen3_vl_lays_out_blocks(model: Any, encoder: Encoder) -> None:
    family = Qwen3VL(model, encoder.tokenizer, Preprocess((0.5,) * 3, (0.5,) * 3), None)
    grid = family.grid(64, 64)
    assert (grid.rows, grid.cols) == (ROWS, ROWS)
    layout = clips.Clips(model, encoder, 3, start=97.0)
    ids, origin = list(encoder.prefix), np.full(3, len(encoder.prefix))
    positions = [np.broadcast_to(np.arange(len(ids)), (3, len(ids)))]
    for t in range(3):
        block = family.layout(grid, (97.0 + 2 * t, 98.0 + 2 * t))
        ids += [*block.before, *[encoder.ids[VIDEO_PAD]] * grid.tokens, *block.after]
        positions.append(block.offsets + origin[:, None])
        origin = family.origin(origin, block.advance, origin, 0.0)
        assert int(layout.ends[t]) == len(ids) - 1
    assert layout.ids.tolist() == ids
    assert layout.positions.numpy().tolist() == np.concatenate(positions, 1).tolist()


@torch.no_grad()
def test_the_tower_sees_patches_in_the_order_of_the_engine(
    model: Any, encoder: Encoder, bank: Bank
) -> None:
    frames = drawn(a_batch(encoder, bank), bank)
    family = Qwen3VL(model, encoder.tokenizer, Preprocess((0.5,) * 3, (0.5,) * 3), None)
    grid = Grid(64, 64, ROWS, ROWS, 64, 64)
    patches, thw = family.patches(forward.pixels_of(frames.flatten(0, 1)), grid)
    stock = model.model.get_video_features(patches, thw).pooler_output
    torch.testing.assert_close(clips.see(model, frames).flatten(0, 1), torch.cat(list(stock)))


@torch.no_grad()
def test_training_gives_each_question_what_the_stock_model_gives_it_alone(
    model: Any, encoder: Encoder, bank: Bank
) -> None:
    batch = a_batch(encoder, bank)
    frames = drawn(batch, bank)
    layout = clips.Clips(model, encoder, FRAMES, start=8.0)
    tokens = clips.see(model, frames).reshape(CLIPS, -1, 128)
    carry, _ = clips.watch(model, layout, tokens)
    own = torch.arange(CLIPS).repeat_interleave(QUESTIONS)
    states = clips.answer(model, batch, layout, carry, own).last
    family = Qwen3VL(model, encoder.tokenizer, Preprocess((0.5,) * 3, (0.5,) * 3), None)
    grid = Grid(64, 64, ROWS, ROWS, 64, 64)
    for b in range(CLIPS):
        pair = frames[b * FRAMES : (b + 1) * FRAMES].flatten(0, 1)
        patches, thw = family.patches(forward.pixels_of(pair), grid)
        for k in range(QUESTIONS):
            said = batch.ids[b, batch.block[b] == k]
            ids = torch.cat([layout.ids, said])[None]
            stock = model(
                input_ids=ids, pixel_values_videos=patches, video_grid_thw=thw,
                mm_token_type_ids=2 * (ids == encoder.ids[VIDEO_PAD]).int(),
            ).logits  # fmt: skip
            mine = model.lm_head(states[b, batch.block[b] == k])
            torch.testing.assert_close(mine, stock[0, -len(said) :], atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_scenes_go_on_from_the_states_of_earlier_ones(
    model: Any, encoder: Encoder, bank: Bank
) -> None:
    batch = a_batch(encoder, bank)
    tokens = clips.see(model, drawn(batch, bank)).reshape(CLIPS, -1, 128)
    whole = clips.Clips(model, encoder, FRAMES, start=10.0)
    first, rest = (clips.Clips(model, encoder, *at) for at in ((1, 10.0), (FRAMES - 1, 12.0)))
    carry, _ = clips.watch(model, whole, tokens)
    left = clips.watch(model, first, tokens[:, : clips.TOKENS])[0].left()
    later, _ = clips.watch(model, rest, tokens[:, clips.TOKENS :], left)
    for layer in (0, 1, 2):  # before the first full attention
        torch.testing.assert_close(later.state[layer], carry.state[layer], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(later.conv[layer], carry.conv[layer], atol=2e-5, rtol=1e-4)
    assert later.kv[3][0].shape[2] == len(rest.ids)


@torch.no_grad()
def test_a_hidden_question_sees_the_newest_scenes_only(
    model: Any, encoder: Encoder, bank: Bank
) -> None:
    batch = a_batch(encoder, bank)
    layout = clips.Clips(model, encoder, FRAMES, start=0.0)
    tokens = clips.see(model, drawn(batch, bank)).reshape(CLIPS, -1, 128)
    carry, _ = clips.watch(model, layout, tokens)
    own = torch.arange(CLIPS).repeat_interleave(QUESTIONS)
    hidden = torch.zeros(CLIPS, QUESTIONS, dtype=torch.bool)
    hidden[:, ::2] = True
    first = clips.answer(model, batch, layout, carry, own, hidden).last
    old = layout.scene == 0
    assert FRAMES - clips.RECENT == 1
    for keys, values in carry.kv.values():
        keys[:, :, old], values[:, :, old] = 3.0, -2.0
    second = clips.answer(model, batch, layout, carry, own, hidden).last
    same = (first == second).all(-1)
    assert bool(same[hidden.gather(1, batch.block.clamp(min=0)) & (batch.block >= 0)].all())
    assert not bool(same[~hidden.gather(1, batch.block.clamp(min=0))].any())


def test_no_question_goes_on_from_states_that_answer_otherwise(
    encoder: Encoder, bank: Bank
) -> None:
    moved = 0
    for seed in range(6):
        batch = make_batch(
            Random(seed), encoder, clips=4, frames=6, questions=8,
            weights=dict.fromkeys(FAMILY.kinds, 1.0), variants=bank.variants,
        )  # fmt: skip
        everyone = torch.ones(4, 8, dtype=torch.bool)
        chosen = wander(batch, everyone).view(4, 8)
        for b in range(4):
            for k in range(8):
                if int(chosen[b, k]) != b:
                    moved += 1
                    held = [n for n in batch.scenes[chosen[b, k]].flatten().tolist() if n >= 0]
                    assert not bool(batch.shunned[b, k, held].any()), (seed, b, k)
        assert bool((wander(batch, ~everyone).view(4, 8) == torch.arange(4)[:, None]).all())
    assert moved > 0.8 * 6 * 4 * 8


def test_pointing_right_costs_nothing(model: Any, encoder: Encoder, bank: Bank) -> None:
    batch = a_batch(encoder, bank)
    layout = clips.Clips(model, encoder, FRAMES, start=0.0)
    n, length = len(layout.ids), batch.ids.shape[1]
    right = torch.zeros(CLIPS, length, 4, n + 9)
    for b in range(CLIPS):
        for at in range(length):
            k = int(batch.block[b, at])
            needed, named = batch.required[b, k].nonzero()[:, 0], batch.pointed[b, k].nonzero()
            right[b, at, :2, layout.ends[needed]] = 1 / max(1, len(needed))
            for t, corner in named.tolist():
                right[b, at, 2, int(layout.ends[t]) - 4 + corner] = 1.0
    everyone = torch.ones(CLIPS, QUESTIONS, dtype=torch.bool)
    assert float(pointer_loss(batch, layout, (right,), everyone)) < 1e-5
    even = torch.full_like(right, 1 / (n + 9))
    assert float(pointer_loss(batch, layout, (even,), everyone)) > 2
    assert float(pointer_loss(batch, layout, (even,), ~everyone)) == 0


def test_training_lowers_the_loss_and_leaves_the_tower_alone(
    encoder: Encoder, bank: Bank, tmp_path: Path
) -> None:
    model = FAMILY.build_model(encoder.tokenizer, 1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    stage = replace(stages.HYBRID_STAGES[0], frames=(1,), steps=16, clips=4, questions=4)
    batch = a_batch(encoder, bank)

    def loss() -> float:
        lesson = FAMILY.lesson(model, stage, bank, encoder, "mean")
        with torch.no_grad():
            figures = lesson(batch, Random(0), torch.Generator().manual_seed(0)).figures
        return float(figures["loss"])

    first = loss()
    train.train_stage(
        model, stage, bank, encoder, seed=0, summary="mean", log=tmp_path / "log", family=FAMILY
    )
    assert loss() < 0.9 * first
    changed = {n for n, new in model.state_dict().items() if not torch.equal(new, before[n])}
    for kind in ("linear_attn.A_log", "linear_attn.conv1d.weight", "self_attn.k_proj.weight"):
        assert any(name.endswith(kind) for name in changed), kind
    assert not any("visual" in name for name in changed)


def test_muon_in_float32_is_torchs_muon() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(24, 60, generator=generator)
    mine, theirs = (torch.nn.Parameter(first.clone()) for _ in range(2))
    ours = Muon32([mine], lr=1e-2)
    stock = torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        mine.grad = torch.randn(24, 60, generator=generator)
        theirs.grad = mine.grad.clone()
        ours.step()
        stock.step()
    off, moved = (mine - theirs).detach().abs().max(), (theirs.detach() - first).abs().max()
    assert float(off) < 0.03 * float(moved)  # torch's computes in bfloat16


@torch.no_grad()
def test_a_saved_checkpoint_is_read_by_stock_transformers(
    model: Any, encoder: Encoder, bank: Bank, tmp_path: Path
) -> None:
    FAMILY.save(model, encoder.tokenizer, tmp_path)
    again = Qwen3_5ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(weight, model.state_dict()[name].half().float())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.get_vocab() == encoder.tokenizer.get_vocab()
    assert tokenizer.chat_template == encoder.tokenizer.chat_template
    for text in ("<12.5 seconds>", "Where was... the RED circle?!", "an elephant", "<|im_end|>\n"):
        assert tokenizer(text)["input_ids"] == encoder.tokenizer(text)["input_ids"]
    assert tokenizer.decode(encoder("top left {e}"), skip_special_tokens=True) == "top left"
    assert again.config.video_token_id == encoder.ids[VIDEO_PAD]
    assert again.config.vision_start_token_id == encoder.ids[VISION_START]
    assert read_preprocess(str(tmp_path)).mean == (0.5, 0.5, 0.5)
    batch = a_batch(encoder, bank)
    visual = clips.see(again, drawn(batch, bank)).reshape(CLIPS, -1, 128)
    exact = FAMILY.exact_answers(FAMILY.load(tmp_path), batch, visual, encoder, {})
    assert exact.shape == (CLIPS, QUESTIONS)
