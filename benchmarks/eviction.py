"""What is lost when frames of the past keep only some of their visual tokens?

    python -m benchmarks.eviction --save                everything; writes results/eviction.*
    python -m benchmarks.eviction --cells main --worlds 4      a first look, printed
    python -m benchmarks.eviction --work run.jsonl      continues an earlier run

Streams of 50 drawn scenes (`needle_world.py`), one frame each, seeds that training never uses;
window 16 frames, 8 retrieved and the newest 4 besides, which are whole. Every configuration (a
policy, how much it keeps, how the rest is merged) encodes the same streams and is asked the same
questions, about scenes seen 8 to 35 frames ago; the stream is flushed first, so that every frame of
the past is thinned. "exact" is the share of answers that are right to the letter. "random" is the
control: a set of questions on which it does well measures nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import mmkv
from benchmarks.batched import exact_answers
from benchmarks.common import save
from benchmarks.eviction_asked import Asked, read_work, to_dict
from benchmarks.eviction_cells import FOCUS, SETS, WHOLE, Cell, main_cells
from benchmarks.eviction_report import write_report
from benchmarks.needle_world import KINDS, World, make_world, pictures
from mmkv.archive import Archive, CachedBlock, PageSize
from mmkv.config.policies import make_thinning
from mmkv.models.tiny.world import make_bank

FRAMES, DELAYS = 50, (8, 20, 35)
_SEED = 90_000  # far from those of training


def run(
    vlm: mmkv.VideoLM,
    cells: Sequence[Cell],
    worlds: Sequence[int],
    work: Path | None = None,
    seed: int = _SEED,
) -> list[Asked]:
    """Ask every configuration about every stream, except where `work` already has the answers."""
    done = {(a.cell, a.world): a for a in read_work(work)}
    bank = make_bank(64, seed=10_000 + seed)
    started = time.perf_counter()
    for world in worlds:
        made: World | None = None
        recorded: dict[tuple[int, bool], Recorded] = {}
        for cell in cells:
            if (cell, world) in done:
                continue
            if made is None:
                made = make_world(seed + world, FRAMES, DELAYS)
                frames = pictures(made.scenes, bank, seed + world)
            if cell.packed:
                asked = ask_stored(vlm, cell, world, made, frames)
            else:
                how = cell.observed
                if how not in recorded:
                    recorded[how] = Recorded.of(vlm, cell, frames)
                asked = ask(vlm, cell, world, made, recorded[how])
            done[cell, world] = asked
            if work is not None:
                with work.open("a") as file:
                    file.write(json.dumps(to_dict(asked)) + "\n")
        for record in recorded.values():
            record.stream.close()
        if made is not None:
            print(f"stream {world}: {time.perf_counter() - started:.0f} s", flush=True)
    return [done[cell, world] for cell in cells for world in worlds]


@dataclass
class Recorded:
    """A stream encoded once, with every frame's keys, values and mass, to be thinned repeatedly.

    What is thinned and packed is the engine's own archive.
    """

    stream: mmkv.Stream
    blocks: list[CachedBlock]
    summaries: list[torch.Tensor]

    @classmethod
    def of(cls, vlm: mmkv.VideoLM, cell: Cell, frames: torch.Tensor) -> Recorded:
        """Encode, observed as the cell's policy wants it."""
        config = replace(cell.config(), page_tokens=1 << 30, page_seconds=1e9)
        stream = vlm.stream(config)
        stream.feed(frames, np.arange(len(frames), dtype=float))
        past = stream._state.archive.snapshot()
        layers = range(vlm.adapter.shape.layers)
        summaries = [past.summaries(layer, 0, len(past.blocks)) for layer in layers]
        return cls(stream, past.blocks, summaries)

    def thinned(self, cell: Cell) -> None:
        """Give the stream the past that a stream with this cell's configuration has."""
        stream, vlm = self.stream, self.stream._runtime
        sizes = cell.config().resolve(4096, vlm.tokens_per_frame())
        archive = Archive(
            stream._state.archive.codec, vlm.adapter.shape, vlm.dtype,
            page=PageSize(sizes.page_tokens, sizes.page_seconds), thinning=make_thinning(sizes),
        )  # fmt: skip
        archive.append(self.blocks, self.summaries)
        archive.flush()
        stream._state.archive = archive


def ask(vlm: mmkv.VideoLM, cell: Cell, number: int, world: World, recorded: Recorded) -> Asked:
    """Thin a recorded stream and ask about it."""
    recorded.thinned(cell)
    questions = [case.question for case in world.cases if case.question.kind in KINDS]
    return _asked(cell, number, recorded.stream, exact_answers(recorded.stream, questions))


def ask_stored(
    vlm: mmkv.VideoLM, cell: Cell, number: int, world: World, frames: torch.Tensor
) -> Asked:
    """Encode into a store, reopen it, and ask about it."""
    questions = [case.question for case in world.cases if case.question.kind in KINDS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kv"
        with vlm.stream(cell.config(), store=path) as stream:
            stream.feed(frames, np.arange(len(frames), dtype=float))
        with vlm.open(path) as stream:
            return _asked(cell, number, stream, exact_answers(stream, questions))


def _asked(cell: Cell, number: int, stream: mmkv.Stream, exact: list[int]) -> Asked:
    stats, vlm = stream.stats(), stream._runtime
    assert stats.keep_ratio is not None
    assert stats.bits_per_element is not None
    elements = vlm.bytes_per_token / torch.empty((), dtype=vlm.dtype).element_size()
    nbytes = stats.tokens_per_frame * stats.keep_ratio * elements * stats.bits_per_element / 8
    return Asked(cell, number, exact, stats.keep_ratio, nbytes)


def cases_of(asked: Sequence[Asked], seed: int = _SEED) -> list[list[tuple[str, int]]]:
    """Kind and delay of every question of each stream, in the order they are asked."""
    worlds = range(max(a.world for a in asked) + 1)
    return [
        [
            (case.question.kind, case.delay)
            for case in make_world(seed + world, FRAMES, DELAYS).cases
            if case.question.kind in KINDS
        ]
        for world in worlds
    ]


def short(vlm: mmkv.VideoLM) -> None:
    """The short form of `make bench`: the bars' cells on a few streams, and the time it takes."""
    from benchmarks.eviction_time import run as time_it

    asked = run(vlm, main_cells(), range(4))
    write_report(asked, cases_of(asked), None)
    save("eviction_time", time_it(vlm))


def main() -> None:
    """Run the chosen cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="weights other than the bundled ones")
    parser.add_argument("--cells", choices=SETS, nargs="+", default=["all"])
    parser.add_argument("--policy", nargs="+", help="only these policies")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 24],
                        help="streams, from and to; 98 questions each")  # fmt: skip
    parser.add_argument("--work", type=Path, help="a file of what was asked; read and added to")
    parser.add_argument("--save", action="store_true", help="write results/eviction.*")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    vlm = mmkv.load(str(chosen.checkpoint) if chosen.checkpoint else "mmkv-tiny")
    cells = list(dict.fromkeys(cell for name in chosen.cells for cell in SETS[name]()))
    if chosen.policy:
        cells = [c for c in cells if c.policy in chosen.policy or c == WHOLE]
    first, stop = chosen.worlds if len(chosen.worlds) == 2 else (0, chosen.worlds[0])
    asked = run(vlm, cells, range(first, stop), chosen.work)
    if chosen.work is not None:
        asked = list(read_work(chosen.work))
    name = "eviction" if chosen.save else None
    write_report(asked, cases_of(asked), name, seed=_SEED, frames=FRAMES, focus=FOCUS)


if __name__ == "__main__":
    main()
