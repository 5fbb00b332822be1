"""The tokenizer of mmkv-tiny: one token per word, case and punctuation ignored."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mmkv.models.tiny import phrases, world

PAD, UNK, START, END, IMAGE, VIDEO = (
    "<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<video>",
)  # fmt: skip
SPECIAL = (PAD, UNK, START, END, IMAGE, VIDEO)
VISION_START, VISION_END, VIDEO_PAD, IMAGE_PAD = (
    "<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>",
)  # fmt: skip
CLOCK = ("seconds", *"0123456789")  # what the times of Qwen3-VL's layout are written with
SYSTEM = "watch the video"
# American spelling and a few forms people type are read as the words the model knows.
SAME = (
    ("color", "colour"), ("gray", "grey"), ("an", "a"), ("whats", "what is"),
    ("were is", "where is"), ("photo", "video"), ("clip", "video"), ("movie", "video"),
)  # fmt: skip

CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' -%}"
    "{{ '<|im_start|>system\\n" + SYSTEM + "<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'video' -%}"
    "{{ '<video>\\n' }}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}"
    "{{ '<image>\\n' }}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}"
    "{{ part['text'] }}{%- endfor -%}"
    "{%- endif -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def words() -> list[str]:
    """List every word the model knows, in a fixed order."""
    texts = [SYSTEM, "system user assistant yes no and then nothing grey"]
    texts += [" ".join(phrases.NUMBERS), " ".join(world.PLACES)]
    texts += [" ".join(world.COLOURS), " ".join(world.SHAPES)]
    for worded in phrases.PHRASES.values():
        texts += [p.replace("?", "").format(o="", p="", c="", s="") for p in worded]
    return list(dict.fromkeys(" ".join(texts).split()))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer with its chat template."""
    return _tokenizer(SPECIAL, words(), CHAT_TEMPLATE)


def build_clock_tokenizer() -> PreTrainedTokenizerFast:
    """Make one for layouts that write times, such as `<12.5 seconds>`: a token per digit.

    The marks around and in a time are ignored, as all punctuation is: 1 2 5 seconds.
    """
    template = CHAT_TEMPLATE.replace("<video>\\n", VISION_START + VIDEO_PAD + VISION_END)
    template = template.replace("<image>\\n", VISION_START + IMAGE_PAD + VISION_END)
    special = (PAD, UNK, START, END, VISION_START, VISION_END, VIDEO_PAD, IMAGE_PAD)
    return _tokenizer(special, [*words(), *CLOCK], template)


def _tokenizer(
    special: tuple[str, ...], known: list[str], template: str
) -> PreTrainedTokenizerFast:
    vocabulary = {w: i for i, w in enumerate((*special, *known))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"['’]"), ""),
            normalizers.Replace(Regex(r"[^a-z0-9]+"), " "),
            *(normalizers.Replace(Regex(rf"\b{a}\b"), b) for a, b in SAME),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if CLOCK[-1] in vocabulary:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [backend.pre_tokenizer, pre_tokenizers.Digits(individual_digits=True)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNK,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(special[2:]),
        model_max_length=32768,
    )
    tokenizer.chat_template = template
    return tokenizer
