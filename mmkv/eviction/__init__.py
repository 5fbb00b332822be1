"""Which visual tokens of the past are kept: policies behind one interface.

Only the archived copy is thinned, page by page, when a page is closed: the window stays whole, and
summaries, by which frames are found, are computed before.

A new policy in four steps: a file here with one subclass of `Eviction` (`mmkv/eviction/base.py` is
the contract) and its `name`; write `scores`; a line in `registry.py`; its formula in float64 in
`tests/eviction/test_eviction_reference.py`. `benchmarks/eviction.py` then measures it along with
the others.
"""

from mmkv.eviction.base import ALL_TEXT, Eviction, Frames
from mmkv.eviction.registry import EVICTIONS, make_eviction

__all__ = ["ALL_TEXT", "EVICTIONS", "Eviction", "Frames", "make_eviction"]
