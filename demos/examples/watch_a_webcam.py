"""Ask about what a webcam sees: `python watch_a_webcam.py 0 30 Qwen/Qwen3-VL-2B-Instruct`.

It watches in the background for some seconds; questions may be asked meanwhile.
"""

import sys
import time

import mmkv


def main(source: str = "0", seconds: str = "30", model: str = "mmkv-tiny") -> None:
    """Watch a source for some seconds, asking every 5 what is there."""
    vlm = mmkv.load(model)
    with vlm.stream() as stream:
        feed = stream.start(source, fps=2.0)  # "0" is the first webcam
        end = time.monotonic() + float(seconds)
        chat = stream.chat()
        while feed.running and time.monotonic() < end:
            feed.wait(5.0)
            if stream.seconds is not None:
                print(f"{stream.seconds:6.1f} s  {chat.ask('What is there now?').text}")
        if stream.seconds is not None:
            print("at the end:", chat.ask("How many shapes are there now?").text)
        feed.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
