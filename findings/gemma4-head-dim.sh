#!/usr/bin/env bash
# transformers 5.24.0: a default does not help getattr(config, "head_dim", None) on Gemma 4.
#
# Gemma 4's text configuration declares head_dim as a field, and prints it. Layers of the two kinds
# have heads of different sizes, so reading the field raises. The error is no AttributeError:
# getattr with a default and hasattr, by which most code asks for head_dim, raise it as well.
# Sizes are to be read layer by layer.
#
# Seen: AmbiguousGlobalPerLayerAttributeError from getattr and hasattr; 256 and 512 by layer.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet transformers==5.24.0
"$folder/env/bin/python" - <<'PYTHON'
from transformers import Gemma4TextConfig

config = Gemma4TextConfig()
for ask in (lambda: getattr(config, "head_dim", None), lambda: hasattr(config, "head_dim")):
    try:
        raise SystemExit(f"no error any more: {ask()!r}")
    except Exception as error:
        assert not isinstance(error, AttributeError)
        print(type(error).__name__)
sizes = {kind: layer.head_dim for kind, layer in zip(config.layer_types, config.per_layer_config)}
print(sizes)
assert sizes == {"sliding_attention": 256, "full_attention": 512}
PYTHON
