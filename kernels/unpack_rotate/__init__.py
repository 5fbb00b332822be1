"""Packed blocks back to full precision, rotated, into one contiguous buffer."""

from mmkv.kernels.unpack_rotate.naive import unpack_bits, unpack_rotate

__all__ = ["unpack_bits", "unpack_rotate"]
