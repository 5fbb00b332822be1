"""The default at 1.5, 1.58, 2 and 4 bits: levels fitted to least squares."""

from __future__ import annotations

from typing import ClassVar

from mmkv.codecs.packed import PackedCodec
from mmkv.codecs.packer import ChannelPacker
from mmkv.codecs.settings import Settings


class Fitted(PackedCodec):
    """Equally spaced levels per channel, placed by a few of Lloyd's steps.

    Four levels or more then move a little towards the least and the largest value, so that the
    few tokens unlike the others are not cut off: it costs squared error, but answers stay likelier.
    Groups of more than 256 tokens are fitted to 256 of them, spread evenly (their ends to all).

    VidKV's bits (arXiv 2503.16257) with less error: every channel's mean is taken off first, so
    that large key biases cost nothing, and step and centre minimise the squared error.
    """

    name: ClassVar[str] = "fitted"
    defaults: ClassVar[Settings] = Settings(key_bits=1.5, value_bits=2)

    def key_packer(self, bits: float) -> ChannelPacker:
        return ChannelPacker(self.form(bits, fitted=True), self.settings.group_size)

    def value_packer(self, bits: float) -> ChannelPacker:
        return self.key_packer(bits)
