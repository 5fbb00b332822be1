"""How the past is stored: codecs behind one interface, chosen by name or by bits.

A new codec in five steps: copy the file nearest to it; name the class and give it `name`; write
`encode_layers`, `decode`, `split` and `spec`; add its line in `registry.py`; run `tests/codecs`,
which tries every codec of the registry.
"""

from mmkv.codecs.base import Codec, PackedLayer, Part, bits_per_element
from mmkv.codecs.registry import CODECS, from_spec, make_codec

__all__ = ["CODECS", "Codec", "PackedLayer", "Part", "bits_per_element", "from_spec", "make_codec"]
