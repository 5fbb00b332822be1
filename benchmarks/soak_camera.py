"""A camera that goes wrong in every way a cable knows, in a process of its own.

    python -m benchmarks.soak_camera            prints its port, and runs until its input is closed

It sends MJPEG over HTTP, one picture after another in a loop, and after a while stalls, breaks off
in the middle of a picture, ends, or refuses the next connections. What happens when is drawn from
a seed.
"""

from __future__ import annotations

import io
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmkv.models.tiny.world import EMPTY, draw, make_bank, object_number

OBJECTS = (
    "red circle",
    "green square",
    "white ring",
    "blue star",
    "yellow cross",
    "white triangle",
)
HOLD = 5  # frames for which a picture is shown
FPS = 5.0
STALL = 4.0  # seconds, longer than the reader waits
FAULTS = ("stall", "cut", "end", "refuse")


def pictures() -> list[np.ndarray]:
    """One frame uint8 `[64, 64, 3]` for every one of `OBJECTS`, which is at its top left."""
    bank = make_bank(8)
    scenes = torch.tensor([[object_number(name), EMPTY, EMPTY, EMPTY] for name in OBJECTS])
    variants = torch.zeros_like(scenes)
    drawn = draw(scenes, variants, bank, torch.Generator().manual_seed(3))
    return list(drawn.permute(0, 2, 3, 1).contiguous().numpy())


def shown(frame: np.ndarray, known: list[np.ndarray]) -> str | None:
    """Name the object that a received frame shows; None where it is none of the pictures."""
    off = [float(np.abs(frame.astype(np.int16) - one).mean()) for one in known]
    best = int(np.argmin(off))
    return OBJECTS[best] if off[best] < 4 else None


def jpeg(frame: np.ndarray) -> bytes:
    """A frame as JPEG, its colours at full resolution."""
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=95, subsampling=0)
    return data.getvalue()


@contextmanager
def camera(every: float, seed: int = 0) -> Iterator[str]:
    """Run the camera in another process.

    Args:
        every: seconds between two faults, on average.
        seed: of the faults.

    Yields:
        its address.
    """
    command = [sys.executable, "-m", "benchmarks.soak_camera", str(every), str(seed)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/"
        finally:
            server.kill()


class _Show:
    """What all connections share: where the loop is, and when the next fault comes."""

    def __init__(self, every: float, seed: int) -> None:
        self.images = [jpeg(frame) for frame in pictures()]
        self.index = 0
        self.refuse_until = 0.0
        self._rng, self._every = random.Random(seed), every
        self._due = time.monotonic() + every

    def fault(self) -> str | None:
        """Return what goes wrong now, if anything does."""
        if time.monotonic() < self._due:
            return None
        self._due = time.monotonic() + self._rng.uniform(0.5, 1.5) * self._every
        return self._rng.choice(FAULTS)

    def answer(self, handler: Any) -> None:
        """Answer one connection until something goes wrong."""
        if time.monotonic() < self.refuse_until:
            handler.send_error(503)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        while True:
            image = self.images[self.index // HOLD % len(self.images)]
            self.index += 1
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
            fault = self.fault()
            if fault == "cut":
                handler.wfile.write(head.encode() + image[: len(image) // 2])
                return
            handler.wfile.write(head.encode() + image + b"\r\n")
            if fault == "refuse":
                self.refuse_until = time.monotonic() + 2
            if fault in ("end", "refuse"):
                return
            time.sleep(STALL if fault == "stall" else 1 / FPS)


def main() -> None:
    """Serve until the standard input is closed."""
    show = _Show(float(sys.argv[1]), int(sys.argv[2]))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            try:
                show.answer(self)
            except OSError:
                return

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()  # until whoever started this has ended, however that came about


if __name__ == "__main__":
    main()
