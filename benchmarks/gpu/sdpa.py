"""The fastest of PyTorch's fused attentions over the same keys, to compare our kernels with.

Which of them takes grouped heads, or a mask, differs by release and GPU; where none does, PyTorch
falls back to plain products, which are easy to beat. So every way is tried, also with keys and
values repeated for every query head beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.setup import Sizes, rmse_ratio, seconds

_BACKENDS = (
    SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)  # fmt: skip
_ROWS = 4  # queries whose result is compared
Attend = Callable[[Tensor, Tensor], Tensor]


def fastest(
    sizes: Sizes,
    query: Tensor,
    pairs: Sequence[tuple[Tensor, Tensor]],
    scale: float,
    mask: Tensor | None = None,
) -> tuple[float, str]:
    """Seconds of attention over one of these pairs, and by which way.

    Args:
        query: `[1, H, n, D]`.
        pairs: keys and values `[1, H_kv, m, D]`, used in turn.
        mask: bool `[n, m]`, what is seen; None for everything.

    Raises:
        RuntimeError: no way is right.
    """
    want = _reference(query[:, :, :_ROWS], *pairs[0], scale, mask)
    found: dict[str, float] = {}
    group = query.shape[1] // pairs[0][0].shape[1]
    for repeated in (False, True):
        if repeated:
            pairs = [
                (key.repeat_interleave(group, 1), value.repeat_interleave(group, 1))
                for key, value in pairs
            ]
        for name, attend in _ways(query, scale, mask, grouped=not repeated):
            try:
                if rmse_ratio(attend(*pairs[0])[:, :, :_ROWS], want) > 2e-2:
                    continue
                found[name] = seconds(sizes, [lambda p=p, a=attend: a(*p) for p in pairs])
            except RuntimeError:  # not here, or not with these arguments
                continue
    if not found:
        raise RuntimeError("no attention of PyTorch's is right here")
    name = min(found, key=lambda way: found[way])
    return found[name], name


def _ways(
    query: Tensor, scale: float, mask: Tensor | None, *, grouped: bool
) -> Iterator[tuple[str, Attend]]:
    for which in _BACKENDS:

        def attend(key: Tensor, value: Tensor, which: SDPBackend = which) -> Tensor:
            with sdpa_kernel(which):
                return F.scaled_dot_product_attention(
                    query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped
                )

        yield f"{which.name.lower()}{'' if grouped else ', heads repeated'}", attend


def _reference(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None
) -> Tensor:
    grouped = query.float().unflatten(1, (key.shape[1], -1))
    scores = grouped @ key.float()[:, :, None].transpose(3, 4) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask[: query.shape[2]], float("-inf"))
    return (scores.softmax(-1) @ value.float()[:, :, None]).flatten(1, 2)
