"""VidKV (arXiv 2503.16257) by the paper's formulas, as a baseline for the fitted default.

Unlike in the released code, scales are applied and 1-bit codes decoded to plus and minus the scale;
and the transform is real, so that one number stays one code.
"""

from __future__ import annotations

from typing import ClassVar

from mmkv.codecs.packed import PackedCodec
from mmkv.codecs.packer import ChannelPacker
from mmkv.codecs.settings import Settings


class VidKV(PackedCodec):
    """2 bits from the least to the largest value, 1 bit at the mean size, ternary at half of it.

    At "1.5" the channels of the widest range have 2 bits, the same ones in every head, and the
    others 1 bit after a Fourier transform over them. The paper's groups have 32 tokens
    (`group_size=32`); without a setting they are a page's, as in the fitted default.
    """

    name: ClassVar[str] = "vidkv"
    defaults: ClassVar[Settings] = Settings(
        key_bits=1.5, value_bits=1.58, transform="fft", remove_mean=False
    )

    def key_packer(self, bits: float) -> ChannelPacker:
        return ChannelPacker(self.form(bits, fitted=False), self.settings.group_size)

    def value_packer(self, bits: float) -> ChannelPacker:
        return self.key_packer(bits)
