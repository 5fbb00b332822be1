"""The same captioning on a Ray cluster, or on several devices of this machine: one actor each.

Ray Data hands out the videos and restarts what is lost with a machine; each actor supervises a
process as a run on one machine does. Rows come back here and are appended here, so that a rerun
resumes like any other. The videos have to be readable by the same paths on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from mmkv.config.units import counted
from mmkv.demos.captioning.job import CaptioningError, Failure, Job
from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.output import Output
from mmkv.demos.captioning.progress import Tally
from mmkv.demos.captioning.run import Result, Tell, resumed, written
from mmkv.demos.captioning.supervisor import STALL, Supervisor

LOCAL = "local"
_MOST_BLOCKS = 10_000


class Captioner:
    """What an actor runs: it keeps a process with the model, and never raises for a video.

    Args:
        job, timeout, stall: see `Supervisor`.
    """

    def __init__(self, job: Job, timeout: float | None, stall: float) -> None:
        self._supervisor = Supervisor(job, timeout=timeout, stall=stall)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Turn columns id and path into columns id, path, kind and found (JSON, or a reason)."""
        found: dict[str, list[str]] = {"id": [], "path": [], "kind": [], "found": []}
        for id, path in zip(batch["id"], batch["path"], strict=True):
            kind, text = self._one(Video(str(id), str(path)))
            for name, value in (("id", id), ("path", path), ("kind", kind), ("found", text)):
                found[name].append(str(value))
        return found

    def _one(self, video: Video) -> tuple[str, str]:
        try:
            result = self._supervisor.caption(video)
        except CaptioningError as error:
            return "unfit", str(error)
        if isinstance(result, Failure):
            return result.kind, result.reason
        return "row", json.dumps(result)


def caption_on_ray(
    videos: Sequence[Video],
    job: Job,
    output: Output,
    *,
    address: str = LOCAL,
    actors: int | None = None,
    options: dict[str, Any] | None = None,
    formats: Sequence[str] = (),
    old: str = "refuse",
    timeout: float | None = None,
    stall: float = STALL,
    tell: Tell | None = None,
) -> Tally:
    """Caption what the output does not have yet, as `caption_videos` does, on Ray.

    Args:
        videos, job, output, formats, old, timeout, stall, tell: see `caption_videos`.
        address: of a cluster ("auto": the one this machine belongs to), or "local".
        actors: how many models work at once; None: one per GPU of the cluster, or one.
        options: further arguments of `ray.init`.

    Returns:
        the counts.

    Raises:
        OutputError: as `caption_videos`.
        CaptioningError: as `caption_videos`; or Ray is not installed, or cannot be reached.
    """
    todo = resumed(videos, job, output, old)

    def results(tally: Tally) -> Iterator[Result]:
        if not todo:
            return
        try:
            import ray.data
        except ImportError:
            raise CaptioningError("Ray is not installed: pip install 'mmkv-video[ray]'") from None
        ours = not ray.is_initialized()
        if ours:
            _connect(address, actors, options or {})
        try:
            yield from _results(todo, job, actors, timeout, stall)
        finally:
            if ours:
                ray.shutdown()

    return written(results, videos, todo, job, output, formats, tell)


def _connect(address: str, actors: int | None, options: dict[str, Any]) -> None:
    import logging

    import ray

    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING, **options}
    if address == LOCAL:
        given = {"include_dashboard": False, **given}
        if actors is not None:
            given = {"num_cpus": actors + 1, **given}
    try:
        ray.init(address=address, **given)
    except Exception as error:  # Ray raises bare ones too
        ray.shutdown()
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CaptioningError(
            f"no Ray at {address!r} ({reason}); `ray start --head` starts a cluster on this "
            "machine, and --ray local uses this machine alone"
        ) from None


def _results(
    todo: Sequence[Video], job: Job, actors: int | None, timeout: float | None, stall: float
) -> Iterator[Result]:
    import ray
    from ray.data import ActorPoolStrategy

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    gpus = int(ray.cluster_resources().get("GPU", 0))
    size = min(actors or gpus or 1, len(todo))
    needs: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
    known = {video.id: video for video in todo}
    items = ray.data.from_items(
        [{"id": video.id, "path": video.path} for video in todo],
        override_num_blocks=min(len(todo), _MOST_BLOCKS),
    )
    captioned = items.map_batches(
        Captioner,
        fn_constructor_args=(job, timeout, stall),
        batch_size=1,
        compute=ActorPoolStrategy(size=size),
        **needs,
    )
    try:
        for batch in captioned.iter_batches(
            batch_size=None, prefetch_batches=0, batch_format="numpy"
        ):
            for id, kind, found in zip(batch["id"], batch["kind"], batch["found"], strict=True):
                if kind == "unfit":
                    raise CaptioningError(str(found))
                video = known.pop(str(id), None)
                if video is None:  # it was made again with something else that was lost
                    continue
                row = json.loads(str(found)) if kind == "row" else Failure(str(kind), str(found))
                yield video, row
    except ray.exceptions.RayError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CaptioningError(
            f"Ray gave up with {counted(len(known), 'video')} to go ({reason}); run the same "
            "command to resume"
        ) from error
    for video in known.values():
        yield video, Failure("died", "Ray returned nothing for it")
