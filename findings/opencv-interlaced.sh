#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93: read() says True for pictures of interlaced H.264 that it cannot convert.
#
# An MP4 of 40 numbered pictures, H.264 coded as interlaced (made with PyAV 18.1.0): each call of
# VideoCapture.read returns True and an array of the right shape, and grab, the count and the times
# are right. But the array is not the film's picture: the scaler inside refuses the conversion, which
# only a line on stderr tells. The same pictures coded as progressive are right. Interlaced film is
# what broadcasts and older cameras give.
#
# Seen: progressive 40 of 40 numbers right; interlaced 40 times True, at most 2 numbers right.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet av==18.1.0 opencv-python-headless==5.0.0.93 numpy==2.3.5
cd "$folder"
env/bin/python - 2>stderr <<'PYTHON'
import av
import cv2
import numpy as np

COUNT, BITS = 40, 8


def write(path, options):
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(COUNT):  # eight bars, the number's bits
            bars = np.repeat([255 * (number >> bit & 1) for bit in range(BITS)], 160 // BITS)
            picture = np.broadcast_to(bars[None, :, None], (96, 160, 3)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def number_of(picture):
    row = picture[48].mean(axis=-1).reshape(BITS, -1).mean(axis=1)
    return sum(int(value > 128) << bit for bit, value in enumerate(row))


def read(path):
    capture, found = cv2.VideoCapture(path), []
    while (answer := capture.read())[0]:
        found.append(number_of(answer[1]))
    return found


write("progressive.mp4", {})
write("interlaced.mp4", {"x264-params": "interlaced=1:tff=1"})
for path, least, most in (("progressive.mp4", COUNT, COUNT), ("interlaced.mp4", 0, 2)):
    by_pyav = [number_of(f.to_ndarray(format="rgb24")) for f in av.open(path).decode(video=0)]
    assert by_pyav == list(range(COUNT)), path
    found = read(path)
    right = sum(a == b for a, b in zip(found, range(COUNT)))
    print(f"{path}: read() was True {len(found)} times, {right} pictures right")
    assert len(found) == COUNT and least <= right <= most
PYTHON
