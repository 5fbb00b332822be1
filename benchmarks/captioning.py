"""Captioning many files: `mmkv caption` against a plain transformers loop on the same files.

The files are clips of drawn scenes, one a second, in several sizes; noise makes them as heavy to
decode as filmed video. Both ways look at one frame per second, caption the same segments with the
same questions, and then ask for a summary. The plain loop decodes a file, and calls `generate` on
each segment's frames, and on up to 16 frames of the whole for the summary. Both have their model
loaded before the clock starts; mmkv writes its rows. A caption is exact if it is what the scene
shows, in the model's words.

The two take turns, in an order that changes, so that a busy machine slows both alike; a ratio is
taken of each pair of turns, and the middle one counts. Processor time is told beside the clock's.

    python -m benchmarks.captioning --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import torch

import mmkv
from benchmarks.common import median, save, show
from mmkv.demos.captioning.job import Job
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.output import Output
from mmkv.demos.captioning.settings import Captioning
from mmkv.demos.captioning.supervisor import Supervisor
from mmkv.models.fit import fit_frames
from mmkv.models.tiny.questions import Clip, listing
from mmkv.models.tiny.sample import draw_scene, sample_clip

SUMMARY = 16  # frames of a summary


@dataclass(frozen=True, slots=True)
class Kind:
    """Files of one kind: how many, their seconds, pixels, frames per second, and noise of 255."""

    files: int
    seconds: int
    width: int
    height: int
    rate: int
    noise: int


KINDS = (
    Kind(files=2, seconds=30, width=640, height=360, rate=30, noise=12),
    Kind(files=3, seconds=12, width=256, height=256, rate=10, noise=0),
    Kind(files=2, seconds=30, width=1280, height=720, rate=30, noise=12),
)


def run(vlm: mmkv.VideoLM, rounds: int = 3) -> dict[str, Any]:
    """Measure and print."""
    settings = Captioning(max_new_tokens=64).for_model(vlm.name)
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)  # as the captioning process has with this model
    result: dict[str, Any] = {
        "rounds": rounds,
        "settings": json.loads(json.dumps(settings.to_dict())),
        "kinds": [],
    }
    try:
        with tempfile.TemporaryDirectory() as name, Supervisor(Job(settings, vlm.name)) as ours:
            ours.start()
            for number, kind in enumerate(KINDS):
                folder = Path(name) / str(number)
                folder.mkdir()
                clips = [
                    Clip(sample_clip().scenes[i * kind.seconds : (i + 1) * kind.seconds])
                    for i in range(kind.files)
                ]
                paths = [write(folder / f"{i}.mp4", c, kind) for i, c in enumerate(clips)]
                for count in range(min(2, len(cores)), 0, -1):
                    use(ours, sorted(cores)[:count])
                    found = compare(vlm, ours, paths, clips, settings, rounds)
                    result["kinds"].append({**asdict(kind), "cores": count, **found})
                    tell(result["kinds"][-1], vlm.name)
                    save("captioning", result)
    finally:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, cores)
    return result


def use(supervisor: Supervisor, cores: list[int]) -> None:
    """Let both ways run on these cores only."""
    os.sched_setaffinity(0, cores)
    assert supervisor._process is not None
    psutil.Process(supervisor._process.pid).cpu_affinity(cores)


def compare(
    vlm: mmkv.VideoLM,
    supervisor: Supervisor,
    paths: list[Path],
    clips: list[Clip],
    settings: Captioning,
    rounds: int,
) -> dict[str, Any]:
    """Take turns: seconds of the clock and of processors, and exact captions, of both ways."""
    spent: dict[str, list[float]] = {"mmkv": [], "plain": []}
    busy: dict[str, list[float]] = {"mmkv": [], "plain": []}
    exact, waited = {"mmkv": 0, "plain": 0}, 0.0
    wanted = [[listing(scene) for scene in clip.scenes] for clip in clips]
    with tempfile.TemporaryDirectory() as name, Output(Path(name) / "rows.jsonl") as output:
        supervisor.caption(Video.of(str(paths[0])))  # both warm
        plain(vlm, paths[0], settings)
        for turn in range(rounds):
            for way in ("mmkv", "plain") if turn % 2 == 0 else ("plain", "mmkv"):
                began, before = time.perf_counter(), processors(supervisor)
                if way == "mmkv":
                    rows = mmkv_loop(supervisor, paths, output)
                    waited += sum(row["timings"]["decode"] for row in rows)
                    told = [[s["caption"] for s in row["segments"]] for row in rows]
                else:
                    told = [plain(vlm, path, settings) for path in paths]
                spent[way].append(time.perf_counter() - began)
                busy[way].append(processors(supervisor) - before)
                exact[way] += sum(right(a, b) for a, b in zip(told, wanted, strict=True))
    captions = rounds * sum(map(len, wanted))
    pairs = list(zip(spent["plain"], spent["mmkv"], strict=True))
    return {
        "clock_seconds": spent,
        "processor_seconds": busy,
        "videos_per_hour": {way: 3600 * len(paths) / median(spent[way]) for way in spent},
        "exact": {way: exact[way] / captions for way in exact},
        "ratio": median([a / b for a, b in pairs]),
        "ratios": [a / b for a, b in pairs],
        "processor_ratio": sum(busy["plain"]) / sum(busy["mmkv"]),
        "waited_for_decoding": waited / sum(spent["mmkv"]),
    }


def processors(supervisor: Supervisor) -> float:
    """Seconds that processors have spent on this process and the captioning one."""
    assert supervisor._process is not None
    both = psutil.Process().cpu_times(), psutil.Process(supervisor._process.pid).cpu_times()
    return sum(times.user + times.system for times in both)


def tell(kind: dict[str, Any], model: str) -> None:
    """Print one comparison."""
    rates = kind["videos_per_hour"]
    show(
        f"{kind['files']} files of {kind['seconds']} s, {kind['width']}x{kind['height']} at "
        f"{kind['rate']} frames/s, {kind['cores']} of the cores ({model})",
        [
            ("", "videos/h", "exact captions"),
            *((way, f"{rates[way]:.0f}", f"{kind['exact'][way]:.0%}") for way in rates),
            (
                "mmkv over plain, by the clock",
                f"{kind['ratio']:.2f}",
                ", ".join(f"{ratio:.2f}" for ratio in kind["ratios"]),
            ),
            ("mmkv over plain, by processor time", f"{kind['processor_ratio']:.2f}", ""),
            ("mmkv's time spent waiting for frames", f"{kind['waited_for_decoding']:.1%}", ""),
        ],
    )


def right(found: list[str], wanted: list[str]) -> int:
    """How many captions are what the scenes show."""
    return sum(a == b for a, b in zip(found, wanted, strict=False))


def write(path: Path, clip: Clip, kind: Kind) -> Path:
    """A file of the scenes, one a second."""
    rng = np.random.default_rng(len(path.stem))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=kind.rate)
        stream.width, stream.height = kind.width, kind.height
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "threads": "1", "preset": "ultrafast"}
        if kind.noise:  # as cameras' and cameramen's files are: CABAC, B frames, a second per GOP
            stream.options |= {"preset": "superfast", "crf": "23", "g": str(kind.rate)}
        for scene in clip.scenes:
            drawn = draw_scene(scene, rng)
            rows = np.arange(kind.height) * drawn.shape[0] // kind.height
            columns = np.arange(kind.width) * drawn.shape[1] // kind.width
            picture = drawn[rows][:, columns].astype(np.int16)
            grain = rng.integers(-kind.noise, kind.noise + 1, picture.shape, dtype=np.int16)
            noisy = [
                (picture + np.roll(grain, 37 * shift, axis=(0, 1))).clip(0, 255).astype(np.uint8)
                for shift in range(min(kind.rate, 7 if kind.noise else 1))
            ]
            for place in range(kind.rate):
                frame = noisy[place % len(noisy)]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    run(mmkv.load("mmkv-tiny"), parser.parse_args().rounds)
