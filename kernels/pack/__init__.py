"""Keys or values to 1.x bits: fit, quantize, transform, bit-pack."""

from mmkv.kernels.pack.naive import Form, Params, pack, pack_bits

__all__ = ["Form", "Params", "pack", "pack_bits"]
