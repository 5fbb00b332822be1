"""The contract between a Hugging Face video LLM and the engine: frames in, blocks of tokens out.

Not here: attention, caches and decoding (`mmkv/`), reading video (`video/`).

Adapters import torch only inside the functions that compute, since importing it takes seconds: what
a model costs is told by an adapter that has a configuration and no weights (`mmkv info`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from mmkv.models.block import Block, Layout
from mmkv.models.grid import Grid
from mmkv.models.layers import Layer, Shape, global_layers, read_layers, shape_of
from mmkv.models.preprocess import Preprocess
from mmkv.models.prompt import Template

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PIXELS_AT_ONCE = 1 << 24


class VideoModel(ABC):
    """One family of video LLMs. A new family is one file with one subclass and a registry line.

    A subclass sets the class variables and implements `grid`, `vision` and `layout`; families
    whose blocks do not simply follow each other also override `origin`.

    Args:
        model: the transformers model.
        tokenizer: its tokenizer.
        preprocess: how frames become pixels.
        max_pixels: most pixels of a resized frame; None: the family's choice.

    Attributes:
        family: the family's name.
        architectures: transformers classes that it serves.
        temporal_patch: frames per block.
        time: how the model receives the time of a frame: in "text" before it, by the "position"
            of its tokens, or not at all ("none": it only knows which frame came first).
        axes: position axes.
        advances: for each axis, whether blocks follow each other along it.
        video_tokens: texts that may stand for the video in a rendered prompt.
    """

    family: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]]
    time: ClassVar[Literal["text", "position", "none"]]
    temporal_patch: ClassVar[int] = 1
    axes: ClassVar[int] = 1
    advances: ClassVar[tuple[bool, ...]] = (True,)
    video_tokens: ClassVar[tuple[str, ...]] = ("<video>",)

    def __init__(
        self, model: Any, tokenizer: Any, preprocess: Preprocess, max_pixels: int | None
    ) -> None:
        # transformers' modules are untyped: Any once here rather than an ignore at every use
        self.model = model
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.max_pixels = max_pixels

    @property
    def config(self) -> Any:
        """The checkpoint's configuration."""
        return self.model.config

    @property
    def text_config(self) -> Any:
        """The language model's part of the configuration."""
        return self.config.get_text_config()

    @property
    def language_model(self) -> Any:
        """The decoder without its head."""
        return self.model.model.language_model

    @property
    def vision_tower(self) -> Any:
        """The module that turns pixels into features."""
        return self.model.model.visual

    @property
    def lm_head(self) -> Any:
        """The module that turns hidden states into logits."""
        return self.model.get_output_embeddings()

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The decoder's layers: what each keeps of the past."""
        return read_layers(self.text_config)

    @cached_property
    def global_layers(self) -> tuple[int, ...]:
        """Numbers of the layers whose keys and values are archived; others keep a state."""
        return tuple(global_layers(self.layers))

    @cached_property
    def ordinals(self) -> dict[int, int]:
        """The place of each global layer among them, by its number."""
        return {layer: at for at, layer in enumerate(self.global_layers)}

    @property
    def carries(self) -> bool:
        """Whether some layers carry a state instead of keys and values that are archived."""
        return any(layer.kind in ("carry", "local") for layer in self.layers)

    @property
    def one_tensor(self) -> bool:
        """Whether global layers' keys before RoPE are their values times a weight per channel."""
        return all(self.layers[index].keys_are_values for index in self.global_layers)

    @property
    def elements(self) -> int:
        """Elements that are archived of one token, if they are not packed."""
        return self.shape.elements // (2 if self.one_tensor else 1)

    @property
    def key_weights(self) -> Tensor | None:
        """These weights, float32 `[L, D]` on the CPU; None where there are none in memory."""
        return None

    @cached_property
    def shape(self) -> Shape:
        """How many global layers there are, their heads, key-value heads and head size."""
        return shape_of(self.layers)

    @property
    def dtype(self) -> torch.dtype:
        """Element type of embeddings, keys and values."""
        return self.language_model.embed_tokens.weight.dtype

    @property
    def bytes_per_embedding(self) -> int:
        """Bytes of one token's input embedding."""
        return int(self.text_config.hidden_size) * int(self.dtype.itemsize)

    @property
    def device(self) -> torch.device:
        """Where frames and embeddings enter the model."""
        import torch

        device = self.language_model.embed_tokens.weight.device
        if getattr(device, "type", "cpu") != "meta":
            return device
        hook = getattr(self.language_model.embed_tokens, "_hf_hook", None)
        return torch.device(getattr(hook, "execution_device", None) or "cpu")

    def embed_text(self, ids: Sequence[int]) -> Tensor:
        """Look up the input embeddings `[n, D]` of token ids."""
        import torch

        return self.language_model.embed_tokens(
            torch.tensor(list(ids), dtype=torch.long, device=self.device)
        )

    def template(self, system: str | None = None) -> Template:
        """Return what renders prompts: the checkpoint's own chat template.

        Args:
            system: a system message; None: the template's own.

        Raises:
            ValueError: there is no chat template, or it renders no video.
        """
        return Template(self.tokenizer, self.video_tokens, system)

    def token_inputs(self, ids: Sequence[int] | Tensor) -> dict[str, Any]:
        """Return what the language model takes of tokens besides their embeddings, by name.

        Args:
            ids: n token ids, or int64 `[n]` on the model's device; `filler` for visual tokens.
        """
        return {}

    @property
    def keys_only(self) -> dict[str, Any]:
        """What tells the language model that a forward's hidden states are not wanted, by name."""
        return {}

    @property
    def filler(self) -> int:
        """Token id that visual tokens count as, where the model looks at ids."""
        return 0

    @property
    def frames_see_ahead(self) -> bool:
        """Whether a frame's tokens see each other both ways in local layers."""
        return False

    def prompt_lead(self) -> Tensor | None:
        """Return embeddings `[n, D]` placed once between the last frame and the prompt, or None."""
        return None

    def frequency_axis(self, frequencies: int) -> Tensor:
        """Return which position axis each rotary frequency reads, int64 `[frequencies]`."""
        import torch

        return torch.zeros(frequencies, dtype=torch.long)

    def origin(
        self, previous: np.ndarray, advance: Sequence[int], first: np.ndarray, elapsed: float
    ) -> np.ndarray:
        """Place a block: after the one before it, unless the family goes by time.

        Args:
            previous: origin `[A]` of the block before.
            advance: that block's ordinary step.
            first: origin `[A]` of the stream's first block.
            elapsed: seconds since the stream's first frame.

        Returns:
            the block's origin, int64 `[A]`.
        """
        return previous + np.asarray(advance, dtype=np.int64)

    def blocks(
        self,
        frames: Sequence[Tensor],
        seconds: Sequence[float],
        grid: Grid,
        first: int = 0,
    ) -> list[Block]:
        """Encode frames into blocks.

        Args:
            frames: n frames, uint8 RGB `[H, W, 3]`; n is a multiple of `temporal_patch`.
            seconds: n presentation times.
            grid: the stream's grid.
            first: how many blocks the stream has before these.

        Returns:
            n / temporal_patch blocks, embeddings on the model's device.
        """
        import torch

        from mmkv.models.fit import fit_frames

        patch = self.temporal_patch
        fitted = []
        for shape, run in groupby(frames, key=lambda f: f.shape):
            # a few large frames at a time: in float32 they take four times their bytes
            for part in torch.stack(list(run)).split(max(1, _PIXELS_AT_ONCE // shape.numel())):
                stack = part.to(self.device, non_blocking=True)
                fitted.append(fit_frames(stack, grid, self.preprocess))
        pixels = torch.cat(fitted)  # [n, 3, h, w]
        features, deepstack = self.vision(pixels.to(self._vision_dtype), grid)  # [n/p, Tv, D]
        blocks = []
        for i in range(len(seconds) // patch):
            times = tuple(seconds[i * patch : (i + 1) * patch])
            layout = self.layout(grid, times, first + i)
            visual = features[i].to(device=self.device, dtype=self.dtype)
            parts = [visual]
            if layout.before:
                parts.insert(0, self.embed_text(layout.before))
            if layout.after:
                parts.append(self.embed_text(layout.after))
            kind = torch.zeros(layout.offsets.shape[1], dtype=torch.bool)
            kind[len(layout.before) : len(layout.before) + grid.tokens] = True
            blocks.append(
                Block(
                    embeds=torch.cat(parts),
                    visual=kind,
                    layout=layout,
                    seconds=(times[0], times[-1]),
                    frames=len(set(times)),
                    deepstack=tuple(level[i] for level in deepstack),
                )
            )
        return blocks

    @property
    def _vision_dtype(self) -> torch.dtype:
        return next(self.vision_tower.parameters()).dtype

    @abstractmethod
    def grid(self, height: int, width: int) -> Grid:
        """Choose the grid of a stream by the pixels of its first frame.

        Raises:
            ValueError: `max_pixels`, or the frame's shape, does not suit the family.
        """

    @abstractmethod
    def vision(self, pixels: Tensor, grid: Grid) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute the visual embeddings of normalised frames.

        Args:
            pixels: `[n, 3, grid.height, grid.width]`, n a multiple of `temporal_patch`.
            grid: the stream's grid.

        Returns:
            `[n / temporal_patch, grid.tokens, D]`, and one such tensor per deepstack layer.
        """

    @abstractmethod
    def layout(self, grid: Grid, seconds: Sequence[float], index: int = 0) -> Layout:
        """Lay out the text and positions of a block.

        Args:
            grid: the stream's grid.
            seconds: presentation times of the block's frames.
            index: how many blocks the stream has before it.
        """
