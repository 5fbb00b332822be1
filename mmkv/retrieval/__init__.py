"""Retrieval: which blocks of the past a question reads.

A `Score` compares a question with blocks, `choose` turns scores into blocks, and a `Retriever`
does both for one question. To add a score:

1. a file here, with one subclass of `Score` (`mmkv/retrieval/base.py` is the contract),
2. `name`, by which `CacheConfig(score=...)` knows it,
3. `rows`, which is computed for each block by itself, and `combine`, which sees all blocks,
4. a line in `mmkv/retrieval/registry.py`, and the name in `mmkv/cli/options.py`,
5. its formula in float64 in `tests/retrieval/test_retrieval_scores.py`; `benchmarks/needles.py`
   then measures it along with the others.
"""
