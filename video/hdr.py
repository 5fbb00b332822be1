"""High dynamic range (PQ, HLG) to the range and the colours of an ordinary picture.

Light is decoded as ITU-R BT.2100 says. What is brighter than 90 cd/m² is compressed by the curve
of ITU-R BT.2390 so that 1000 cd/m² become the white of an ordinary picture, 203 cd/m²; brighter
light is cut off. Colours go from BT.2020 to BT.709 (ITU-R BT.2087) and are encoded as sRGB.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkv.video.source import Frame

PQ, HLG = 16, 18  # transfer characteristics, ITU-T H.273
_WIDE = (2, 9)  # colour primaries: BT.2020, or not said
_PEAK, _WHITE = 1000.0, 203.0  # cd/m²
_PIXELS_AT_ONCE = 1 << 20
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)
_LUMA = np.array([[0.2627, 0.6780, 0.0593]], dtype=np.float32)


def is_hdr(transfer: int) -> bool:
    """Whether a transfer characteristic (ITU-T H.273) is PQ or HLG."""
    return transfer in (PQ, HLG)


def to_sdr(rgb: NDArray[Any], transfer: int, primaries: int = 9) -> Frame:
    """Map a picture of high dynamic range to an ordinary one.

    Args:
        rgb: `[H, W, 3]`, full range, 8 or 16 bits, still encoded in PQ or HLG.
        transfer: transfer characteristic of ITU-T H.273; other than PQ and HLG, an 8-bit picture
            comes back as it is.
        primaries: colour primaries of ITU-T H.273; all but BT.2020 are taken for BT.709.

    Returns:
        uint8 RGB `[H, W, 3]`.
    """
    if not is_hdr(transfer):
        return np.asarray(rgb if rgb.dtype == np.uint8 else rgb >> 8, dtype=np.uint8)
    shown = np.empty(rgb.shape, dtype=np.uint8)
    rows = max(1, _PIXELS_AT_ONCE // rgb.shape[1])
    for top in range(0, rgb.shape[0], rows):
        band = rgb[top : top + rows]
        shown[top : top + rows] = _mapped(band, transfer, primaries in _WIDE)
    return shown


def _mapped(rgb: NDArray[Any], transfer: int, wide: bool) -> Frame:
    import cv2

    light = _light(transfer, rgb.dtype.itemsize)[rgb]  # [h, W, 3], 1 is 1000 cd/m²
    if transfer == HLG:  # the system's gamma
        light *= np.maximum(cv2.transform(light, _LUMA), 1e-6).reshape(*light.shape[:2], 1) ** 0.2
    brightest = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])
    step = np.sqrt(np.minimum(brightest, 1)) * np.float32(len(_curve()) - 1)
    # beyond the peak, the brightest channel stays at white
    light *= (_curve()[step.astype(np.uint16)] / np.maximum(brightest, 1))[..., None]
    if wide:
        light = np.asarray(cv2.transform(light, _TO_709))
    np.clip(light, 0, 1, out=light)
    light *= 65535
    return np.asarray(_encoding()[light.astype(np.uint16)])


@lru_cache(maxsize=4)
def _light(transfer: int, itemsize: int) -> NDArray[np.float32]:
    """Light of each code value: of the display (PQ) or the scene (HLG)."""
    levels = 256**itemsize
    code = np.arange(levels) / (levels - 1)
    if transfer == PQ:
        return (pq_light(code) * (10000 / _PEAK)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    high = (np.exp((code - c) / a) + b) / 12
    return np.where(code <= 0.5, code**2 / 3, high).astype(np.float32)


def pq_light(code: NDArray[Any]) -> NDArray[Any]:
    """Decode PQ: light of code values in 0..1, where 1 is 10,000 cd/m²."""
    root = np.asarray(code, dtype=np.float64) ** (1 / 78.84375)
    return (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (
        1 / 0.1593017578125
    )


def _pq_code(light: NDArray[Any]) -> NDArray[Any]:
    power = np.asarray(light, dtype=np.float64) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


@lru_cache(maxsize=1)
def _curve() -> NDArray[np.float32]:
    """What light is multiplied by, by the square root of a pixel's brightest channel in 0..1."""
    light = np.maximum(np.linspace(0, 1, 8192) ** 2, 1e-9)
    top, white = (float(_pq_code(np.array(x / 10000))) for x in (_PEAK, _WHITE))
    code = _pq_code(light * (_PEAK / 10000)) / top
    most = white / top
    knee = 1.5 * most - 0.5
    t = np.maximum(code - knee, 0) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * most
    )
    shown = pq_light(np.where(code < knee, code, spline) * top) * (10000 / _WHITE)
    return (shown / light).astype(np.float32)


@lru_cache(maxsize=1)
def _encoding() -> NDArray[np.uint8]:
    """The sRGB code of each of 65,536 levels of light."""
    light = np.arange(65536) / 65535
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (code * 255 + 0.5).astype(np.uint8)
