"""The resident mode beside retrieval: the sample video and the questions that come with it.

Part of `python -m benchmarks.codecs`. loss: how unlikely the right answer is, in nats per token;
exact: answers right to the letter; seconds to the first token, the median question's.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import torch

import mmkv
from benchmarks.common import median, show

SETTINGS: dict[str, dict[str, Any]] = {
    "retrieval, fp16": {},
    "retrieval, K1.5/V2": {"key_bits": 1.5, "value_bits": 2},
    "all, K4/V4": {"retrieve_frames": "all", "key_bits": 4, "value_bits": 4},
    "all, K1.5/V2": {"retrieve_frames": "all", "key_bits": 1.5, "value_bits": 2},
}


def measure(vlm: mmkv.VideoLM) -> dict[str, Any]:
    """Every setting on the sample video."""
    folder = files("mmkv").joinpath("models/tiny")
    questions = json.loads(folder.joinpath("sample.json").read_text())["questions"]
    result: dict[str, Any] = {"questions": len(questions)}
    for label, settings in SETTINGS.items():
        with vlm.stream(mmkv.CacheConfig(**settings)) as stream:
            stream.encode(str(folder.joinpath("sample.mp4")), fps=1.0)
            stream.ask(questions[0]["question"], max_new_tokens=1)  # brings the past over
            answers = [stream.ask(q["question"], max_new_tokens=8) for q in questions]
            losses = [judged(vlm, stream, q["question"], q["answer"])[1] for q in questions]
            right = [a.text == q["answer"] for a, q in zip(answers, questions, strict=True)]
            stats = stream.stats()
            result[label] = {
                "exact": sum(right) / len(right),
                "loss": sum(losses) / len(losses),
                "first_token_seconds": median([a.timings["first_token"] for a in answers]),
                "bits_per_element": stats.bits_per_element,
                "archive_bytes": stats.archive_bytes,
                "resident_bytes": stats.resident_bytes,
            }
    return result


@torch.inference_mode()
def judged(
    vlm: mmkv.VideoLM, stream: mmkv.Stream, question: str, answer: str
) -> tuple[bool, float]:
    """Whether greedy decoding gives this answer, and its loss per token in nats, end included."""
    ids = vlm.tokenizer(answer, add_special_tokens=False)["input_ids"]
    total, exact = 0.0, True
    targets = [*ids, vlm.tokenizer.eos_token_id]
    with stream.ask_iter(question, max_new_tokens=len(targets)) as reply:
        logits = reply._generation.logits
        for token in targets:
            total -= float(logits.float().log_softmax(-1)[token])
            exact &= int(logits.argmax()) == token
            with vlm.lock.hold():
                logits = reply._generation.step(token)
    return exact, total / len(targets)


def report(found: dict[str, Any]) -> None:
    """The table."""
    rows = []
    for label in SETTINGS:
        row = found[label]
        what = f"exact {row['exact']:.0%}, loss {row['loss']:.2f}"
        rows.append((label, what, f"first token {1e3 * row['first_token_seconds']:.0f} ms"))
    show(f"sample video, {found['questions']} questions at its end", rows)
