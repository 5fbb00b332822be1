"""What mmkv-tiny is trained on is what the engine shows it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from engine_reference import archived_kv
from torch import Tensor

import mmkv
from mmkv.models.tiny import forward, recall, stages, streaming, train
from mmkv.models.tiny.batches import Batch, Encoder, make_batch
from mmkv.models.tiny.questions import KINDS
from mmkv.models.tiny.streaming import WINDOW
from mmkv.models.tiny.world import N_OBJECTS, draw, make_bank, object_name

FRAMES, QUESTIONS = 40, 6
OBJECTS = [object_name(n) for n in range(N_OBJECTS)]


@pytest.fixture(scope="module")
def vlm() -> mmkv.VideoLM:
    return mmkv.load("mmkv-tiny", dtype=torch.float32)


@pytest.fixture(scope="module")
def encoder(vlm: mmkv.VideoLM) -> Encoder:
    return Encoder(vlm.tokenizer)


def long_batch(encoder: Encoder, clips: int = 1) -> tuple[Batch, Tensor]:
    """A batch of long clips, and their frames uint8 `[clips * F, 3, 64, 64]`."""
    bank = make_bank(16, seed=98)
    kinds = {k: 1.0 for k in KINDS if k != "caption"}
    batch = make_batch(
        Random("long"), encoder, clips=clips, frames=FRAMES, questions=QUESTIONS, weights=kinds,
        variants=bank.variants,
    )  # fmt: skip
    scenes, variant = batch.scenes.flatten(0, 1), batch.variant.flatten(0, 1)
    return batch, draw(scenes, variant, bank, torch.Generator().manual_seed(4))


def watched(vlm: mmkv.VideoLM, encoder: Encoder, frames: Tensor, clips: int) -> streaming.Past:
    tokens = forward.see(vlm.model, frames).reshape(clips, -1, 256)
    embeds = forward.opening(vlm.model, tokens, encoder)
    return streaming.watch(vlm.model, embeds, len(encoder.prefix))


@torch.no_grad()
def test_the_training_forward_is_the_engines(vlm: mmkv.VideoLM, encoder: Encoder) -> None:
    _, frames = long_batch(encoder)
    past = watched(vlm, encoder, frames, 1)
    with vlm.stream(mmkv.CacheConfig(window_frames=WINDOW)) as stream:
        stream.feed(frames.permute(0, 2, 3, 1).numpy(), np.arange(float(FRAMES)))
        engine = archived_kv(stream)  # [L, 2, 2, T, 64]
    keys = torch.stack(past.keys)[:, 0, len(encoder.prefix) :].transpose(1, 2)
    values = torch.stack(past.values)[:, 0, len(encoder.prefix) :].transpose(1, 2)
    torch.testing.assert_close(keys, engine[:, 0], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(values, engine[:, 1], atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_helped_questions_are_shown_what_they_need(vlm: mmkv.VideoLM, encoder: Encoder) -> None:
    batch, frames = long_batch(encoder, clips=3)
    past = watched(vlm, encoder, frames, 3)
    helped = torch.zeros(3, QUESTIONS, dtype=torch.bool)
    helped[:, ::2] = True
    choice = recall.Choice(batch, 6, neighbours=True, helped=helped, crowded=~helped)
    _, passed = streaming.answer(vlm.model, batch, past, encoder, choice)
    newest = torch.arange(FRAMES - recall.RECENT, FRAMES)
    for layer, asked in enumerate(passed):
        assert asked.shown.shape == (3, QUESTIONS, 6 + recall.RECENT)
        own = streaming.within(asked.shown, FRAMES)
        assert bool((asked.shown[..., : -recall.RECENT].diff(dim=-1) > 0).all())
        assert bool((own[..., -recall.RECENT :] == newest).all())
        assert bool((own[helped] >= 0).all())
        seen = streaming.were_shown(asked.shown, FRAMES)
        if layer:
            assert bool((seen | ~batch.required)[helped].all())
    assert bool(choice.answerable(passed)[helped].all())


@torch.no_grad()
def test_a_question_sees_only_what_it_is_shown(vlm: mmkv.VideoLM, encoder: Encoder) -> None:
    batch, frames = long_batch(encoder)
    past = watched(vlm, encoder, frames, 1)
    shown = torch.tensor([1, 7, 8, 30, 39]).expand(1, QUESTIONS, 5)
    before, _ = streaming.answer(vlm.model, batch, past, encoder, lambda *_: shown)
    prefix = len(encoder.prefix)
    kept = torch.zeros(FRAMES, dtype=torch.bool)
    kept[shown[0, 0]] = True
    for states in (*past.keys, *past.values):
        states[:, prefix:].unflatten(1, (FRAMES, -1))[:, ~kept] = float("nan")
    after, _ = streaming.answer(vlm.model, batch, past, encoder, lambda *_: shown)
    torch.testing.assert_close(before, after, atol=0, rtol=0)


@torch.no_grad()
def test_a_question_in_a_crowd_is_shown_frames_of_other_clips(
    vlm: mmkv.VideoLM, encoder: Encoder
) -> None:
    batch, frames = long_batch(encoder, clips=3)
    past = watched(vlm, encoder, frames, 3)
    everyone = torch.ones(3, QUESTIONS, dtype=torch.bool)
    choice = recall.Choice(batch, 6, neighbours=False, helped=everyone, crowded=everyone)
    _, passed = streaming.answer(vlm.model, batch, past, encoder, choice)
    own = torch.stack([streaming.within(asked.shown, FRAMES) for asked in passed])
    assert bool((own < 0).any())
    assert bool(choice.answerable(passed).all())


def test_no_frame_of_another_clip_gives_another_answer(encoder: Encoder) -> None:
    bank = make_bank(4, seed=3)
    kinds = {"colour": 3.0, "shape": 3.0, "place": 1.0, "follow": 1.0, "exists": 1.0}
    batch = make_batch(
        Random("crowd"), encoder, clips=6, frames=20, questions=12, weights=kinds,
        variants=bank.variants,
    )  # fmt: skip
    crowded = torch.ones(6, 12, dtype=torch.bool)
    fine = recall.candidates(batch, crowded).unflatten(-1, (6, 20))
    shown_of_others = 0
    for b, questions in enumerate(batch.questions):
        for k, q in enumerate(questions):
            said = " ".join([*(text for text, _ in q.turns), q.text]).replace("?", "")
            words = set(said.split())
            for c in range(6):
                for t in range(20):
                    held = [object_name(n) for n in batch.scenes[c, t].tolist() if n >= 0]
                    if c == b:
                        assert bool(fine[b, k, c, t]) == (t < 20 - recall.RECENT)
                    elif bool(fine[b, k, c, t]):
                        shown_of_others += 1
                        assert not any(name in said for name in held), (q, held)
                        if not any(name in said for name in OBJECTS):
                            assert not any(words & set(name.split()) for name in held), (q, held)
    assert shown_of_others > 0


def test_the_quadrant_sought_holds_the_answer(encoder: Encoder) -> None:
    bank = make_bank(4, seed=3)
    batch = make_batch(
        Random("sought"), encoder, clips=8, frames=6, questions=12,
        weights={"colour": 1.0, "shape": 1.0, "place": 0.3}, variants=bank.variants,
    )  # fmt: skip
    for b, questions in enumerate(batch.questions):
        for k, q in enumerate(questions):
            place = int(batch.sought[b, k])
            assert (place >= 0) == (q.kind != "place")
            if place >= 0:
                name = object_name(int(batch.scenes[b, q.scenes[0], place]))
                assert q.answer in name.split()
                assert set(name.split()) - {q.answer} <= set(q.text.replace("?", "").split())
                assert name not in q.text


def test_the_known_word_is_told_apart_from_the_company(encoder: Encoder) -> None:
    bank = make_bank(4, seed=3)
    batch = make_batch(
        Random("known"), encoder, clips=8, frames=12, questions=12,
        weights={"colour": 1.0, "shape": 1.0, "place": 0.3}, variants=bank.variants,
    )  # fmt: skip
    words = {number: word for word, number in encoder.ids.items()}
    told = 0
    for b, questions in enumerate(batch.questions):
        for k, q in enumerate(questions):
            at = int(batch.known[b, k])
            assert (at >= 0) == (q.kind != "place" and any(name in q.text for name in OBJECTS))
            if at >= 0:
                told += 1
                number = int(batch.scenes[b, q.scenes[0], batch.sought[b, k]])
                assert words[int(batch.ids[b, at])] in object_name(number).split()
                assert int(batch.block[b, at]) == k
    assert told > 0


@pytest.mark.parametrize("frames", [4, 20])
def test_a_training_step_of_the_last_stage_changes_the_language_model(
    vlm: mmkv.VideoLM, encoder: Encoder, frames: int, tmp_path: Path
) -> None:
    model = copy.deepcopy(vlm.model)
    before = copy.deepcopy(model.state_dict())
    stage = replace(stages.STAGES[-1], frames=(frames,), steps=2, clips=2, retrieve=(8,))
    train.train_stage(
        model, stage, make_bank(4, seed=3), encoder, seed=0, summary="mean",
        log=tmp_path / "log.jsonl",
    )  # fmt: skip
    changed = {
        name for name, new in model.state_dict().items() if not torch.equal(new, before[name])
    }
    assert any("language_model.layers" in name for name in changed)
    assert not any("vision_tower" in name for name in changed)
    assert all(bool(new.isfinite().all()) for new in model.state_dict().values())


def test_neighbours_of_the_best_frames_come_before_other_good_ones() -> None:
    score = torch.tensor([[[0.0, 9, 0, 5, 0, 0, 8, 0, 7, 0]]])
    wish = recall.best(score, 6, neighbours=True)  # two hits: 1 and 6
    assert wish.topk(6).indices.sort().values.tolist() == [[[0, 1, 2, 5, 6, 7]]]
    alone = recall.best(score, 4, neighbours=False)
    assert alone.topk(4).indices.sort().values.tolist() == [[[1, 3, 6, 8]]]
