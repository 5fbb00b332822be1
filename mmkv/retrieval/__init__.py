"""Retrieval: which blocks of the past a question reads.

A `Score` compares a question with blocks, `choose` turns scores into blocks, and a `Retriever`
does both for one question. To add a score:

1. a file here, with one subclass of `Score` (`mmkv/retrieval/base.py` is the contract),
2. `name`, by which `CacheConfig(score=...)` knows it,
3. `rows`, what one block's summaries say, and `combine` if that needs all blocks,
4. a line in `mmkv/retrieval/registry.py`,
5. its formula in float64 in `tests/retrieval/test_retrieval_scores.py`; `benchmarks/needles.py`
   then measures it with the others.
"""
