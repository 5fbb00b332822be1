#!/usr/bin/env bash
# transformers 5.24.0: AutoTokenizer gives every qwen3_5 checkpoint Qwen's own splitting rules.
#
# A tokenizer.json says itself how text is split before words are looked up. Beside a config.json
# whose model_type is qwen3_5, AutoTokenizer takes its class for that type and replaces these rules
# by byte-level ones, whatever class tokenizer_config.json names. A fine-tuned or small model with a
# tokenizer of its own then gets other tokens, or none, without an error or a warning. Beside
# qwen3_vl the file is read as it was written.
#
# Seen: for "one two" of a vocabulary of whole words, [0, 1] beside qwen3_vl, [] beside qwen3_5;
# PreTrainedTokenizerFast reads [0, 1] from both folders.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet transformers==5.24.0
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

for kind, expected in (("qwen3_vl", [0, 1]), ("qwen3_5", [])):
    folder = Path(sys.argv[1], kind)
    core = Tokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?").save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    written = PreTrainedTokenizerFast.from_pretrained(folder)("one two").input_ids
    read = AutoTokenizer.from_pretrained(folder)
    print(kind, type(read).__name__, read("one two").input_ids, written)
    assert written == [0, 1]
    assert read("one two").input_ids == expected
PYTHON
