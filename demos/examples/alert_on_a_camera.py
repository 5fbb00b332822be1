"""Watch a camera for an event, and do something about it:

python alert_on_a_camera.py rtsp://user:password@10.0.0.7/live "Is someone at the door?" yes \
    Qwen/Qwen3-VL-2B-Instruct
"""

import sys
import time

import mmkv

EVERY = 5.0  # seconds between two questions; each answer looks back this far
QUIET = 30.0  # seconds without another alert


def alert(seconds: float, text: str) -> None:
    """Put here what should happen: an e-mail, a message, a light."""
    print(f"ALERT at {time.strftime('%H:%M:%S')} ({seconds:.0f} s into the stream): {text}")


def main(
    source: str,
    question: str = "Was there a red circle?",
    wanted: str = "yes",
    model: str = "mmkv-tiny",
) -> None:
    """Ask a source `question` every few seconds; alert where the answer contains `wanted`."""
    vlm = mmkv.load(model)
    last = -QUIET
    with vlm.stream() as stream:
        stream.start(source, fps=1.0)
        asking = stream.ask_every(question, EVERY, span=EVERY, max_new_tokens=16)
        for answer in asking:  # until the camera is gone; Ctrl-C ends it
            if wanted.lower() in answer.text.lower() and answer.as_of - last >= QUIET:
                alert(answer.as_of, answer.text)
                last = answer.as_of
        print(f"the source has ended; {asking.skipped} moments were skipped")


if __name__ == "__main__":
    main(*sys.argv[1:])
