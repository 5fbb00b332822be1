"""Videos per hour: `mmkv caption` against a plain transformers loop on the same files.

The files are clips of drawn scenes, one a second, 256 x 256 pixels at 10 frames per second. Both
look at one frame per second, caption the same segments with the same questions, and then
ask for a summary. The plain loop decodes a file, and calls `generate` on each segment's frames,
and on up to 16 frames of the whole for the summary. Both have their model loaded before the clock
starts, and take turns, a part of the files each, so that a noisy machine slows both alike. A
caption is exact if it is what the scene shows, in the model's words.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

import mmkv
from benchmarks.common import save, show
from mmkv.demos.captioning.job import Job
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.output import Output
from mmkv.demos.captioning.settings import Captioning
from mmkv.demos.captioning.supervisor import Supervisor
from mmkv.models.fit import fit_frames
from mmkv.models.tiny.questions import Clip, listing
from mmkv.models.tiny.sample import draw_scene, sample_clip

RATE, SUMMARY = 10, 16  # frames per second of the files, frames of a summary


def run(vlm: mmkv.VideoLM, files: int = 12, seconds: int = 12, rounds: int = 3) -> dict[str, Any]:
    """Measure and print."""
    clips = [Clip(sample_clip().scenes[i * seconds : (i + 1) * seconds]) for i in range(files)]
    settings = Captioning(max_new_tokens=64).for_model(vlm.name)
    spent = {"mmkv": 0.0, "plain": 0.0}
    exact = {"mmkv": 0, "plain": 0}
    waited, threads = 0.0, torch.get_num_threads()
    torch.set_num_threads(1)  # as the captioning process has with this model
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [write(folder / f"{i}.mp4", clip) for i, clip in enumerate(clips)]
        job = Job(settings, model=vlm.name)
        with Supervisor(job) as supervisor, Output(folder / "captions.jsonl") as output:
            supervisor.start()
            supervisor.caption(Video.of(str(paths[0])))  # both warm
            plain(vlm, paths[0], settings)
            for part in range(rounds):
                mine = paths[part::rounds]
                started = time.perf_counter()
                rows = mmkv_loop(supervisor, mine, output)
                spent["mmkv"] += time.perf_counter() - started
                waited += sum(row["timings"]["decode"] for row in rows)
                started = time.perf_counter()
                found = [plain(vlm, path, settings) for path in mine]
                spent["plain"] += time.perf_counter() - started
                for place, path in enumerate(mine):
                    wanted = [listing(scene) for scene in clips[int(path.stem)].scenes]
                    ours = [segment["caption"] for segment in rows[place]["segments"]]
                    exact["mmkv"] += right(ours, wanted)
                    exact["plain"] += right(found[place], wanted)
    torch.set_num_threads(threads)
    captions = files * seconds
    result = {
        "files": files,
        "seconds_each": seconds,
        "settings": json.loads(json.dumps(settings.to_dict())),
        "videos_per_hour": {way: 3600 * files / spent[way] for way in spent},
        "exact": {way: exact[way] / captions for way in exact},
        "ratio": spent["plain"] / spent["mmkv"],
        "waited_for_decoding": waited / spent["mmkv"],
    }
    rates = result["videos_per_hour"]
    show(
        f"captioning {files} videos of {seconds} s, segments of {settings.every:g} s ({vlm.name})",
        [
            ("", "videos/h", "exact captions"),
            *((way, f"{rates[way]:.0f}", f"{result['exact'][way]:.0%}") for way in spent),
            ("mmkv over plain", f"{result['ratio']:.2f}", ""),
            ("share of mmkv's time spent waiting for frames", f"{waited / spent['mmkv']:.1%}", ""),
        ],
    )
    save("captioning", result)
    return result


def right(found: list[str], wanted: list[str]) -> int:
    """How many captions are what the scenes show."""
    return sum(a == b for a, b in zip(found, wanted, strict=True))


def write(path: Path, clip: Clip) -> Path:
    """A file of the scenes, one a second."""
    rng = np.random.default_rng(len(path.stem))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width = stream.height = 256
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "threads": "1"}
        for scene in clip.scenes:
            picture = draw_scene(scene, rng)
            for _ in range(RATE):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def mmkv_loop(supervisor: Supervisor, paths: list[Path], output: Output) -> list[dict[str, Any]]:
    """As `mmkv caption` does it, rows written."""
    videos, rows = [Video.of(str(path)) for path in paths], []
    for place, video in enumerate(videos):
        following = videos[place + 1] if place + 1 < len(videos) else None
        found = supervisor.caption(video, following)
        assert isinstance(found, dict), found
        output.add(found)
        rows.append(found)
    return rows


def plain(vlm: mmkv.VideoLM, path: Path, settings: Captioning) -> list[str]:
    """The segments' captions, as one would write the loop with transformers alone."""
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= len(frames) / settings.fps:
                frames.append(frame.to_ndarray(format="rgb24"))
    assert settings.every is not None
    each = max(1, round(settings.every * settings.fps))
    stack = torch.from_numpy(np.stack(frames))
    captions = [
        generate(vlm, stack[at : at + each], settings.prompt or "", settings.max_new_tokens)
        for at in range(0, len(stack), each)
    ]
    places = np.linspace(0, len(stack) - 1, min(SUMMARY, len(stack))).round().astype(int)
    generate(vlm, stack[places], settings.summary or "", settings.max_new_tokens)
    return captions


def generate(vlm: mmkv.VideoLM, frames: torch.Tensor, question: str, tokens: int) -> str:
    """Stock `generate` on a clip, uint8 `[N, H, W, 3]`."""
    content = [{"type": "video"}, {"type": "text", "text": question}]
    text = vlm.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    before, after = text.split("<video>")
    grid = vlm.adapter.grid(*frames.shape[1:3])
    video = [vlm.model.config.video_token_id] * (len(frames) * grid.tokens + 1)
    encode = vlm.tokenizer
    ids = [
        *encode(before, add_special_tokens=False).input_ids,
        *video,
        *encode(after, add_special_tokens=False).input_ids,
    ]
    with torch.inference_mode():
        generated = vlm.model.generate(
            input_ids=torch.tensor([ids]),
            pixel_values_videos=fit_frames(frames, grid, vlm.adapter.preprocess)[None],
            max_new_tokens=tokens,
            do_sample=False,
        )
    return str(vlm.tokenizer.decode(generated[0, len(ids) :], skip_special_tokens=True)).strip()
