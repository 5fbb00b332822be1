"""What thinning is told is checked before a frame is seen."""

from __future__ import annotations

from typing import Any

import pytest
from small_models import small_vlm

import mmkv


@pytest.mark.parametrize("focus", ["", "  \n", 3])
def test_an_empty_standing_instruction_is_refused(focus: Any) -> None:
    with pytest.raises(ValueError, match=r"focus=.*says nothing.*leave it out"):
        mmkv.CacheConfig(focus=focus)


def test_a_store_knows_the_standing_instruction(tmp_path: Any) -> None:
    vlm = small_vlm("llava_onevision")
    with vlm.stream(mmkv.CacheConfig(focus="watch the door"), store=tmp_path / "kv"):
        pass
    with vlm.open(tmp_path / "kv") as again:
        assert again.config.focus == "watch the door"
