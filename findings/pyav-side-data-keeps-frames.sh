#!/usr/bin/env bash
# PyAV 18.1.0: a frame whose side_data was read once is not freed when it is dropped.
#
# The container of side data refers to the frame, and the frame keeps the container. Such a circle
# is only found by Python's garbage collector, which counts objects and not bytes: a few hundred
# frames of video may wait for it, hundreds of megabytes of pixels. Code that looks at every frame's
# display matrix or captions grows in steps. A SideDataContainer made for the frame by hand holds it
# in one direction only.
#
# Seen: 100 of 100 frames of 1280x720 alive after side_data, 0 without, 0 with an own container.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet av==18.1.0
"$folder/env/bin/python" - <<'PYTHON'
import gc

import av
from av.sidedata.sidedata import SideDataContainer

COUNT = 100
WAYS = {
    "not looked at": lambda frame: None,
    "frame.side_data": lambda frame: frame.side_data.get("DISPLAYMATRIX"),
    "SideDataContainer(frame)": lambda frame: SideDataContainer(frame).get("DISPLAYMATRIX"),
}
found = {}
for name, look in WAYS.items():
    gc.collect()
    gc.disable()
    for _ in range(COUNT):
        look(av.VideoFrame(1280, 720, "yuv420p"))
    found[name] = sum(isinstance(one, av.VideoFrame) for one in gc.get_objects())
    gc.enable()
    print(f"{name}: {found[name]} of {COUNT} dropped frames are alive")
assert list(found.values()) == [0, COUNT, 0]
PYTHON
