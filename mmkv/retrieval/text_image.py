"""Frames and texts as vectors in one space, by a text-image model (CLIP, SigLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkv.models.block import Block
from mmkv.models.fit import fit_frames
from mmkv.models.grid import Grid
from mmkv.models.preprocess import Preprocess, read_preprocess

_AT_ONCE = 32  # frames
SIDE = "embedding"  # the name under which a block keeps its vector


class TextImage:
    """A loaded text-image model, for `CacheConfig(score="external", encoder=...)`.

    Args:
        model: a `CLIPModel`, `SiglipModel`, or another with `get_image_features` and
            `get_text_features`.
        tokenizer: its tokenizer.
        preprocess: its preprocessor configuration, as a dict or `Preprocess`.
        name: what it was loaded by, if by a name.

    Raises:
        ValueError: the model is of another kind.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        preprocess: Preprocess | dict[str, Any],
        name: str | None = None,
    ) -> None:
        if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
            raise ValueError(
                f"{type(model).__name__} is not a text-image model; use one with "
                "get_image_features and get_text_features, such as CLIPModel or SiglipModel"
            )
        if isinstance(preprocess, dict):
            preprocess = Preprocess.from_dict(preprocess)
        self.name = name
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._preprocess = preprocess
        side = model.config.vision_config.image_size
        self._size = (preprocess.height or side, preprocess.width or side)

    def __repr__(self) -> str:
        return f"<TextImage {self.name or type(self._model).__name__}>"

    @classmethod
    def load(cls, name: str, device: torch.device | str = "cpu") -> TextImage:
        """Load a checkpoint by its Hub id or its local folder.

        Raises:
            ValueError: it is not a text-image model.
            OSError: there is no such checkpoint.
        """
        import transformers

        model = transformers.AutoModel.from_pretrained(name, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        return cls(model.to(device), tokenizer, read_preprocess(name), name)

    @torch.inference_mode()
    def images(self, frames: Sequence[Tensor]) -> Tensor:
        """Unit vectors float32 `[n, E]` on the CPU, for frames uint8 RGB `[H, W, 3]`."""
        parameter = next(self._model.parameters())
        rows = []
        for at in range(0, len(frames), _AT_ONCE):
            pixels = torch.cat(
                [self._fitted(f.to(parameter.device)) for f in frames[at : at + _AT_ONCE]]
            )
            rows.append(_features(self._model.get_image_features(pixels.to(parameter.dtype))))
        return torch.cat(rows)

    @torch.inference_mode()
    def text(self, text: str) -> Tensor:
        """Unit vector float32 `[E]` on the CPU; of a long text, only the beginning is used."""
        config = self._model.config.text_config
        # SigLIP was trained only on texts padded to its full length; CLIP does not mind
        ids = self._tokenizer(
            text,
            padding="max_length",
            truncation=True,
            max_length=config.max_position_embeddings,
            return_tensors="pt",
        )
        device = next(self._model.parameters()).device
        given = {"input_ids": ids["input_ids"].to(device)}
        if config.model_type != "siglip_text_model":
            given["attention_mask"] = ids["attention_mask"].to(device)
        return _features(self._model.get_text_features(**given))[0]

    def _fitted(self, frame: Tensor) -> Tensor:
        height, width = frame.shape[:2]
        grid = Grid(*self._size, 1, 1, height, width)
        return fit_frames(frame[None], grid, self._preprocess)


def embed(encoder: TextImage, blocks: Sequence[Block], frames: Sequence[Tensor]) -> None:
    """Give each block the mean vector of its frames, `len(frames) / len(blocks)` each."""
    vectors = encoder.images(frames).unflatten(0, (len(blocks), -1)).mean(dim=1)
    for block, vector in zip(blocks, vectors.half().numpy(), strict=True):
        block.sides[SIDE] = vector.astype("<f2").tobytes()


def _features(output: Any) -> Tensor:
    vectors: Tensor = getattr(output, "pooler_output", output)
    return F.normalize(vectors.float(), dim=-1).cpu()
