"""Keep a stream on disk, and ask it later: `python reopen_a_store.py my.mp4 my.kv MODEL`."""

import sys
from pathlib import Path

import mmkv
from mmkv.models.tiny import SAMPLE_VIDEO


def main(
    video: str = str(SAMPLE_VIDEO), folder: str = "lecture.kv", model: str = "mmkv-tiny"
) -> None:
    """Keep a video's stream in a store, unless it is there, then reopen the store and ask it."""
    vlm = mmkv.load(model)
    if not Path(folder).exists():
        packed = mmkv.CacheConfig(key_bits=4, value_bits=4)
        with vlm.stream(packed, store=folder) as stream:
            stream.encode(video, fps=1.0)  # closing the stream puts everything on the disk
    with vlm.open(folder) as stream:  # here, or in another process, or next week
        stats = stream.stats()
        print(f"{stats.archived_frames} frames, {stats.disk_bytes / 1e6:.1f} MB on disk")
        print(stream.ask("In which corner was the white ring?"))


if __name__ == "__main__":
    main(*sys.argv[1:])
