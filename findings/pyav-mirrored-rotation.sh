#!/usr/bin/env bash
# PyAV 18.1.0: VideoFrame.rotation tells nothing of mirroring, and gives mirrored videos a wrong angle.
#
# A display matrix can mirror as well as turn: front cameras of phones write such videos. `rotation`
# is one angle. For a video mirrored left to right it is -180, which turns it upside down; mirrored
# top to bottom it is 0; and for transposed it is the same as for turned clockwise. The
# matrix itself is among the frame's side data (DISPLAYMATRIX).
#
# Seen: left to right -180, top to bottom 0, transposed -90, clockwise -90.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet av==18.1.0 numpy==2.3.5
cd "$folder"
env/bin/python - <<'PYTHON'
import struct

import av
import numpy as np

with av.open("film.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=10)
    stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
    frame = av.VideoFrame.from_ndarray(np.zeros((96, 160, 3), np.uint8), format="rgb24")
    container.mux([*stream.encode(frame), *stream.encode()])
film = open("film.mp4", "rb").read()
place = film.index(b"tkhd") + 44  # of the matrix in the track's header

WANTED = {
    "upright": ((1, 0, 0, 1), 0),
    "mirrored left to right": ((-1, 0, 0, 1), -180),
    "mirrored top to bottom": ((1, 0, 0, -1), 0),
    "turned by 180 degrees": ((-1, 0, 0, -1), -180),
    "transposed": ((0, 1, 1, 0), -90),
    "turned clockwise": ((0, 1, -1, 0), -90),
}
for name, ((a, b, c, d), wanted) in WANTED.items():
    matrix = struct.pack(">5i", a << 16, b << 16, 0, c << 16, d << 16)
    with open("other.mp4", "wb") as file:
        file.write(film[:place] + matrix + film[place + len(matrix):])
    with av.open("other.mp4") as container:
        found = next(container.decode(video=0)).rotation
    print(f"{name}: {found}")
    assert found == wanted
PYTHON
