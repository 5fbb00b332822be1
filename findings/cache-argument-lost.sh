#!/usr/bin/env bash
# transformers 5.17.0 and 5.24.0: the new name of the cache argument is dropped without a word.
#
# Version 5.24 renamed the argument past_key_values of language models' forward to cache, and takes
# both names. Written for the new name, code runs on 5.17 too, without an error or a warning: there
# the name falls into **kwargs. A model with recurrent layers (Qwen3.5) then forgets everything
# before the newest chunk, and its hidden states are wrong.
#
# Seen: with past_key_values, the two chunks give what one forward gives, in both versions; with
# cache they do in 5.24.0, and in 5.17.0 the second chunk is off by more than 0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy
cat > "$folder/chunks.py" <<'PYTHON'
import sys

import torch
from transformers import DynamicCache, Qwen3_5TextConfig, Qwen3_5TextModel

torch.manual_seed(0)
config = Qwen3_5TextConfig(
    vocab_size=8, hidden_size=32, intermediate_size=32, num_hidden_layers=4, head_dim=16,
    num_attention_heads=2, num_key_value_heads=1, linear_num_key_heads=2, linear_num_value_heads=2,
    linear_key_head_dim=8, linear_value_head_dim=8, initializer_range=0.2,
)
model = Qwen3_5TextModel(config).eval()
embeds, order = torch.randn(1, 24, 32), torch.arange(24)[None]
off = {}
with torch.inference_mode():
    whole = model(inputs_embeds=embeds, position_ids=order).last_hidden_state
    for name in ("past_key_values", "cache"):
        cache, parts = DynamicCache(config=config), []
        for at in (slice(0, 12), slice(12, 24)):
            more = {name: cache, "use_cache": True}
            out = model(inputs_embeds=embeds[:, at], position_ids=order[:, at], **more)
            parts.append(out.last_hidden_state)
        off[name] = float((torch.cat(parts, dim=1) - whole).abs().max())
print(off)
assert off["past_key_values"] < 1e-3
assert (off["cache"] > 0.1) == (sys.argv[1] == "5.17.0")
PYTHON
for version in 5.17.0 5.24.0; do
	"$folder/env/bin/pip" install --quiet "transformers==$version"
	echo "transformers $version"
	"$folder/env/bin/python" "$folder/chunks.py" "$version" 2>/dev/null
done
