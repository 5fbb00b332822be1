"""Draw the bundled sample video and its notes: `python -m mmkv.models.tiny.sample`.

150 scenes of 1 second, 256 x 256 pixels, 10 frames per second. Scenes change between whole seconds,
so that the default sampling of 1 fps sees every scene once, in its middle. Some objects ("needles")
appear in one scene only; the notes list the scenes and questions about them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np

from mmkv.models.tiny import SAMPLE_NOTES, SAMPLE_VIDEO
from mmkv.models.tiny.questions import Clip, Question, ask, shapes_of
from mmkv.models.tiny.world import (
    COLOURS,
    EMPTY,
    N_OBJECTS,
    PLACES,
    QUADRANT,
    SHAPES,
    Scene,
    object_name,
    object_number,
    random_placement,
    shape_mask,
)

SEED = 7
SCENES, SECONDS, LEAD, RATE, SCALE = 150, 1.0, 0.5, 10, 4
# Scene -> the object seen there and nowhere else; the first tenth ends with scene 14.
NEEDLES = {
    3: "red circle",
    8: "purple star",
    12: "white ring",
    44: "green cross",
    82: "yellow triangle",
    126: "blue square",
    147: "cyan star",
}
ABSENT = ("orange ring", "white cross")
# Questions about the needle of a scene; the demo uses the first one.
ASKED = (
    ("place", 12), ("with", 3), ("place", 3), ("count", 3), ("exists", 3), ("before", 3),
    ("after", 3), ("place", 8), ("with", 8), ("after", 8), ("colour", 8), ("shape", 12),
    ("place", 44), ("with", 44), ("place", 82), ("before", 82), ("after", 82),
    ("place", 126), ("with", 126), ("place", 147), ("count", 147),
)  # fmt: skip


def start_of(scene: int) -> float:
    """Return when a scene begins, in seconds."""
    return max(0.0, scene * SECONDS - LEAD)


def sample_clip() -> Clip:
    """Make up the scenes of the video; scenes next to a needle's hold one shape."""
    rng = Random(SEED)
    reserved = {object_number(n) for n in (*NEEDLES.values(), *ABSENT)}
    fill = [o for o in range(N_OBJECTS) if o not in reserved]
    scenes: list[Scene] = []
    for t in range(SCENES):
        count = rng.choices((1, 2, 3, 4), (3, 4, 3, 2))[0]
        if t - 1 in NEEDLES or t + 1 in NEEDLES:
            count = 1
        if t in NEEDLES:
            count = 3
        chosen = rng.sample(fill, count)
        if t in NEEDLES:
            chosen[0] = object_number(NEEDLES[t])
        scene = [EMPTY] * 4
        for place, number in zip(rng.sample(range(4), count), chosen, strict=True):
            scene[place] = number
        scenes.append((scene[0], scene[1], scene[2], scene[3]))
    return Clip(tuple(scenes))


def sample_questions(clip: Clip) -> list[Question]:
    """Ask a question for each entry of `ASKED`, two about objects that never appear, one of now."""
    rng = Random(SEED)
    asked = []
    for kind, scene in ASKED:
        while True:
            q = ask(kind, clip, rng)
            wanted = q is not None and q.scenes and q.scenes[0] == scene
            if (
                q is not None
                and wanted
                and f"the {NEEDLES[scene]}" in q.text.replace(" a ", " the ")
            ):
                break
        asked.append(q)
    for name in ABSENT:
        asked.append(Question("exists", f"was there a {name}?", "no", ()))
    last = len(clip.scenes) - 1
    place = next(p for p in range(4) if clip.scenes[last][p] != EMPTY)
    now = f"what is at the {PLACES[place]} now?"
    asked.append(Question("now", now, object_name(clip.scenes[last][place]), (last,)))
    return asked


def notes(clip: Clip) -> dict[str, Any]:
    """Collect what `sample.json` holds."""
    scenes = [
        {
            "start": start_of(t),
            "end": start_of(t + 1),
            "objects": {PLACES[p]: object_name(o) for p, o in enumerate(scene) if o != EMPTY},
        }
        for t, scene in enumerate(clip.scenes)
    ]
    questions = [
        {
            "question": q.text[0].upper() + q.text[1:],
            "kind": q.kind,
            "answer": q.answer,
            "seconds": [start_of(q.scenes[-1]), start_of(q.scenes[-1] + 1)] if q.scenes else None,
            "about": [start_of(q.scenes[0]), start_of(q.scenes[0] + 1)] if q.scenes else None,
        }
        for q in sample_questions(clip)
    ]
    return {
        "video": SAMPLE_VIDEO.name,
        "duration": start_of(len(clip.scenes)),
        "fps": 1.0,
        "scenes": scenes,
        "questions": questions,
    }


def draw_scene(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw a scene as a uint8 RGB picture `[256, 256, 3]`."""
    side = QUADRANT * SCALE
    picture = np.full((2 * side, 2 * side, 3), rng.uniform(16, 50, size=3) * 0.2 + 24)
    for place, number in enumerate(scene):
        if number == EMPTY:
            continue
        size, x, y = random_placement(rng)
        alpha = shape_mask(number % len(SHAPES), size, x, y, scale=SCALE, sub=3)[..., None]
        paint = np.array(list(COLOURS.values())[number // len(SHAPES)])
        row, column = place // 2 * side, place % 2 * side
        part = picture[row : row + side, column : column + side]
        part += alpha * (paint - part)
    return picture.round().astype(np.uint8)


def write_video(clip: Clip, path: Path) -> None:
    """Draw the clip's scenes and encode them with H.264."""
    rng = np.random.default_rng(SEED)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width = stream.height = 2 * QUADRANT * SCALE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "medium", "threads": "1"}
        for t, scene in enumerate(clip.scenes):
            picture = draw_scene(scene, rng)
            for _ in range(round((start_of(t + 1) - start_of(t)) * RATE)):
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def main() -> None:
    """Write the video and its notes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--video", type=Path, default=SAMPLE_VIDEO)
    parser.add_argument("--notes", type=Path, default=SAMPLE_NOTES)
    args = parser.parse_args()
    clip = sample_clip()
    for scene in NEEDLES:
        assert len(shapes_of(clip.scenes[scene])) == 3
    write_video(clip, args.video)
    args.notes.write_text(json.dumps(notes(clip), indent=1) + "\n")


if __name__ == "__main__":
    main()
