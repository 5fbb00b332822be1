"""Arrays that come to a device in one piece are what they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmkv.kernels.common.naive import staged


def test_every_array_has_its_numbers_kind_and_shape() -> None:
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(-9, 9, (4, 7)),
        rng.integers(-9, 9, (3, 5), dtype=np.int16),
        rng.random((2, 3)) < 0.5,
        np.float32(rng.random((1,))),
        np.zeros((0, 3), dtype=np.float32),
        rng.random((6, 5)).astype(np.float32).T,
    ]
    found = staged(arrays, torch.device("cpu"))
    for tensor, array in zip(found, arrays, strict=True):
        assert tensor.dtype == torch.from_numpy(np.ascontiguousarray(array)).dtype
        assert np.array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("count", [1, 3])
def test_they_share_one_piece_of_memory(count: int) -> None:
    found = staged([np.arange(5, dtype=np.int16)] * count, torch.device("cpu"))
    assert len({tensor.untyped_storage().data_ptr() for tensor in found}) == 1
    assert all(tensor.data_ptr() % 16 == 0 for tensor in found)
