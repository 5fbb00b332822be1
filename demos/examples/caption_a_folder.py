"""Caption every video of a folder: `python caption_a_folder.py videos/ captions.jsonl MODEL`.

`mmkv caption` does the same with more options. Run it again to resume where it was stopped.
"""

import json
import sys
from pathlib import Path

from mmkv.demos.captioning import Captioning, caption_videos
from mmkv.demos.captioning.job import Job
from mmkv.demos.captioning.listing import listed
from mmkv.demos.captioning.output import Output


def main(folder: str, out: str = "captions.jsonl", model: str = "mmkv-tiny") -> None:
    """Caption the videos of `folder` that `out` does not have yet, and print all captions."""
    job = Job(Captioning(max_new_tokens=64), model=model)
    with Output(Path(out)) as output:
        tally = caption_videos(listed([folder], None), job, output, timeout=3600)
    print(f"{tally.done} captioned, {tally.before} were there, {tally.failed} failed")
    for line in Path(out).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        print(row["path"])
        for segment in row["segments"]:
            print(f"  {segment['start']:.0f}-{segment['end']:.0f} s: {segment['caption']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
