#!/usr/bin/env bash
# decord 0.6.0: the first pictures of an MPEG transport stream are never given, and the count hides it.
#
# A transport stream of 100 numbered pictures (H.264 with B-frames, made with PyAV 18.1.0) has a
# length of 100, and every index gives a picture without an error. Index 0 gives picture 16, all
# later ones are shifted alike, and the last picture fills the indices that are left over. In MP4
# the same pictures are right. Reading in order is no help, and nothing warns.
#
# Seen: MP4 0 1 2 ... 98 99; transport stream 16 17 18 ... 99 99, 84 different pictures of 100.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet av==18.1.0 decord==0.6.0 numpy==2.3.5
cd "$folder"
env/bin/python - <<'PYTHON'
import av
import numpy as np
from decord import VideoReader

BITS = 8


def write(path):
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.codec_context.gop_size = 20
        for number in range(100):  # eight bars, the number's bits
            bars = np.repeat([255 * (number >> bit & 1) for bit in range(BITS)], 160 // BITS)
            picture = np.broadcast_to(bars[None, :, None], (96, 160, 3)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def numbers(path):
    reader = VideoReader(path)
    for index in range(len(reader)):
        row = reader[index].asnumpy()[48].mean(axis=-1).reshape(BITS, -1).mean(axis=1)
        yield sum(int(value > 128) << bit for bit, value in enumerate(row))


found = {}
for path in ("film.mp4", "film.ts"):
    write(path)
    found[path] = list(numbers(path))
    print(path, *found[path][:3], "...", *found[path][-2:], len(set(found[path])), "different")
assert found["film.mp4"] == list(range(100))
missing = found["film.ts"][0]
assert missing == 16
assert found["film.ts"] == [*range(missing, 100), *[99] * missing]
PYTHON
