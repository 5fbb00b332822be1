"""Prompts from the checkpoint's own chat template, split where the video stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Turn = tuple[str, str]  # question, answer

# private-use characters that stand for the questions while the template renders
_ASKED, _BEFORE = "\ue000", "\ue001"
_MAX_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Prompt:
    """What follows the last frame: token ids, and which of them carry the question's words.

    Attributes:
        ids: token ids.
        words: for each id, whether it carries the question's own words (in a conversation, those
            of the last two questions).
        unknown: words of the question that the tokenizer does not know.
    """

    ids: tuple[int, ...]
    words: tuple[bool, ...]
    unknown: tuple[str, ...]


class Template:
    """Renders prompts of one checkpoint.

    Args:
        tokenizer: a fast tokenizer with a chat template.
        video_tokens: the texts that may stand for the video in a rendered prompt.
        system: a system message; None: the template's own.
        chat_template: instead of the tokenizer's, or None.
        around: texts before the first frame and after the last, in the place of the video.

    Attributes:
        prefix: token ids before the video.

    Raises:
        ValueError: there is no chat template, or it renders no video.
    """

    def __init__(
        self,
        tokenizer: Any,
        video_tokens: Sequence[str],
        system: str | None = None,
        *,
        chat_template: str | None = None,
        around: tuple[str, str] = ("", ""),
    ) -> None:
        if not (chat_template or getattr(tokenizer, "chat_template", None)):
            raise ValueError("the tokenizer has no chat template; mmkv builds every prompt from it")
        self._tokenizer = tokenizer
        self._system = system
        self._video_tokens = video_tokens
        self._chat_template = chat_template
        self._around = around
        self._special = sorted(
            {
                t.content
                for t in tokenizer.added_tokens_decoder.values()
                if (t.special or t.content in "".join(video_tokens)) and len(t.content) > 1
            }
            | {token.strip() for token in video_tokens},  # some families have no such token
            key=len,
            reverse=True,
        )
        prefix, _ = self._split(self._render([], "?"))
        self.prefix: tuple[int, ...] = tuple(self._encode(prefix))

    def prompt(self, question: str, history: Sequence[Turn] = ()) -> Prompt:
        """Render what follows the video: earlier turns, the question, the assistant's header.

        Args:
            question: any text.
            history: earlier questions and answers, oldest first.
        """
        question = self.plain(question)
        history = [(self.plain(q), self.plain(a)) for q, a in history]
        earlier = [*history[:-1], (_BEFORE, history[-1][1])] if history else []
        _, suffix = self._split(self._render(earlier, _ASKED))
        spans = []
        if history:
            suffix, span = _fill(suffix, _BEFORE, history[-1][0])
            spans.append(span)
        suffix, span = _fill(suffix, _ASKED, question)
        spans.append(span)
        encoded = self._tokenizer(suffix, add_special_tokens=False, return_offsets_mapping=True)
        words = tuple(
            any(a < stop and b > start for start, stop in spans) and b > a
            for a, b in encoded["offset_mapping"]
        )
        unk = getattr(self._tokenizer, "unk_token_id", None)
        start, stop = spans[-1]
        unknown = tuple(
            suffix[a:b]
            for token, (a, b) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            if token == unk and unk is not None and a < stop and b > start
        )
        return Prompt(tuple(encoded["input_ids"]), words, unknown)

    def fitting(
        self, question: str, history: Sequence[Turn] = (), name: str = "question"
    ) -> Prompt:
        """Render a question that a user typed, without the oldest turns where it gets too long.

        Args:
            question: any text.
            history: earlier questions and answers, oldest first.
            name: what the message of an error calls the question.

        Raises:
            ValueError: the question is empty, or too long by itself.
        """
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"{name}={question!r} is empty; ask something in words")
        prompt = self.prompt(question, history)
        while len(prompt.ids) > _MAX_TOKENS and history:
            history = history[1:]
            prompt = self.prompt(question, history)
        if len(prompt.ids) > _MAX_TOKENS:
            raise ValueError(
                f"the {name} has {len(prompt.ids)} tokens; at most {_MAX_TOKENS} are allowed, so "
                "shorten it"
            )
        return prompt

    def plain(self, text: str) -> str:
        """Make control tokens that a user may have typed harmless."""
        text = text.translate({ord(_ASKED): None, ord(_BEFORE): None}).strip()
        for token in self._special:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _render(self, history: Sequence[Turn], question: str) -> str:
        messages: list[dict[str, Any]] = []
        if self._system is not None:
            messages.append(_message("system", self.plain(self._system)))
        for asked, answered in history:
            messages += [_message("user", asked), _message("assistant", answered)]
        messages.append(_message("user", question))
        first = next(m for m in messages if m["role"] == "user")
        first["content"].insert(0, {"type": "video"})
        rendered = self._tokenizer.apply_chat_template(
            messages,
            chat_template=self._chat_template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return str(rendered)

    def _split(self, text: str) -> tuple[str, str]:
        for token in self._video_tokens:
            before, found, after = text.partition(token)
            if found:
                return before + self._around[0], self._around[1] + after
        raise ValueError(
            f"the chat template renders no video (looked for {', '.join(self._video_tokens)})"
        )

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _fill(text: str, mark: str, part: str) -> tuple[str, tuple[int, int]]:
    start = text.index(mark)
    return text[:start] + part + text[start + len(mark) :], (start, start + len(part))
