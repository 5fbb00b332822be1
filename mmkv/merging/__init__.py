"""What becomes of evicted tokens: policies behind one interface, off by default.

A new policy in three steps: a file here with one subclass of `Merge` (`mmkv/merging/base.py` is the
contract) and its `name`; a line in `registry.py`; its formula in float64 in
`tests/merging/test_merging_reference.py`. `benchmarks/eviction.py` then measures it along with the
others.
"""

from mmkv.merging.base import Merge
from mmkv.merging.registry import MERGINGS, make_merge

__all__ = ["MERGINGS", "Merge", "make_merge"]
