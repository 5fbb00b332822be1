"""Ask a video file: `python ask_a_file.py my.mp4 "Who comes in?" Qwen/Qwen3-VL-2B-Instruct`."""

import sys

import mmkv
from mmkv.models.tiny import SAMPLE_VIDEO


def main(
    video: str = str(SAMPLE_VIDEO),
    question: str = "In which corner was the white ring?",
    model: str = "mmkv-tiny",
) -> None:
    """Print the answer to a question about a video, and the frames it was found in."""
    vlm = mmkv.load(model)
    with vlm.stream(mmkv.CacheConfig(thumbnails=True)) as stream:
        stream.encode(video, fps=1.0)
        answer = stream.ask(question, max_new_tokens=64)
    print(answer)
    for frame in answer.frames[:3]:
        print(f"  from {frame.seconds:.1f} s, score {frame.score:.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
