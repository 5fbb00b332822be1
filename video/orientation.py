"""Which way up a picture is: display matrices of videos, Exif orientations of photos."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Where an Exif orientation takes the stored x and y axes, as (a, b, c, d) of a display matrix:
# x' = a x + c y and y' = b x + d y, with y pointing down.
_AXES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),  # mirrored left to right
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),  # mirrored top to bottom
    5: (0, 1, 1, 0),  # transposed
    6: (0, 1, -1, 0),  # turned clockwise
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),  # turned counterclockwise
}
_EXACT = 2.0  # degrees; players turn by right angles within about as much


def orientation_of(matrix: Sequence[int]) -> tuple[int, bool]:
    """Find the orientation that a display matrix comes nearest to.

    Args:
        matrix: nine numbers of a track header or of FFmpeg's side data, row by row, in any scale.

    Returns:
        an Exif orientation, 1 to 8, and whether the matrix is that one but for its scale; 1 and
        False for a matrix that shows nothing.
    """
    a, b, _, c, d = (float(value) for value in matrix[:5])
    across, down = math.hypot(a, c), math.hypot(b, d)  # what x' and y' are scaled by
    if not across or not down:
        return 1, False
    unit = (a / across, b / down, c / across, d / down)
    fits = {n: sum(x * y for x, y in zip(unit, axes, strict=True)) for n, axes in _AXES.items()}
    best = max(fits, key=lambda number: fits[number])
    return best, fits[best] >= 2 * math.cos(math.radians(_EXACT))


def upright(picture: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror a picture.

    Args:
        picture: `[H, W, ...]`.
        orientation: an Exif orientation, 1 to 8, as `orientation_of` returns it.

    Returns:
        a view where nothing has to be moved, else a contiguous array; `[W, H, ...]` for 5 to 8.
    """
    a, b, c, d = _AXES[orientation]
    if b or c:
        picture = picture.swapaxes(0, 1)
    if a < 0 or c < 0:
        picture = picture[:, ::-1]
    if b < 0 or d < 0:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)
