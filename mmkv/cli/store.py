"""Streams kept on disk: made or continued by `mmkv encode`, described, and removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkv.cli import options
from mmkv.cli.errors import CommandError
from mmkv.cli.messages import table
from mmkv.cli.source import Source
from mmkv.config.units import clock, counted, size

if TYPE_CHECKING:
    from mmkv import CacheConfig, Stream, VideoLM


def model_of(folder: str) -> str:
    """Return the model that made a store, by the name it was loaded by.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    from mmkv.store import meta
    from mmkv.store.facts import check_stream

    path = Path(folder).expanduser().absolute()
    found = meta.load(path)
    check_stream(found, path)
    return str(found["model"]["name"])


def stream_of(vlm: VideoLM, config: CacheConfig, folder: str, *, append: bool) -> Stream:
    """Make a stream kept in a folder, or open the one that is there.

    Args:
        vlm: the model.
        config: of the stream.
        folder: the store's folder.
        append: whether there may be a store already.

    Raises:
        CommandError: there is a store, and `append` is False.
    """
    from mmkv.store import meta

    path = Path(folder).expanduser().absolute()
    check_place(folder, append=append)
    if not meta.is_store(path):
        return vlm.stream(config, store=path)
    return vlm.open(path, mode="a", config=config)


def check_place(folder: str, *, append: bool) -> None:
    """Find out whether a stream can be kept in a folder, before a model is loaded for it.

    Args:
        folder: the store's folder.
        append: whether there may be a store already.

    Raises:
        CommandError: there is a store, and `append` is False; or something else.
    """
    from mmkv.store import meta

    path = Path(folder).expanduser().absolute()
    if meta.is_store(path):
        if append:
            return
        found = describe(folder)
        raise CommandError(
            f"there is a store at {folder} already, with {counted(found['frames'], 'frame')} to "
            f"{clock(found['until'] or 0)}; --append continues it (after the last frame, if it is "
            f"the same video), and `mmkv rm {folder}` removes it"
        )
    meta.check_free(path)


def rest_of(stream: Stream, source: Source, fps: float, reader: str) -> Any:
    """Work out what is left to watch of a source.

    Args:
        stream: with a store that is open for writing.
        source: the source.
        fps: frames per second of video.
        reader: what reads a file.

    Returns:
        what `Stream.encode` takes: the rest of the source, where the stream ended in the middle of
        it, else the source.
    """
    store = stream._state.store
    assert store is not None
    assert store.writer is not None
    name = str(Path(source.value).absolute()) if isinstance(source.value, str) else source.name
    before, last = store.meta.get("source"), stream.seconds
    if (
        before == {"name": name, "fps": fps, "begin": (before or {}).get("begin")}
        and not source.live
    ):
        from mmkv.video import FrameSource, open_source

        begin, inner = (
            float(before["begin"]),
            open_source(source.value, fps=fps, reader=reader, live=source.told),
        )

        class Rest(FrameSource):
            """Frames after the last one that is stored, in the stream's time."""

            name, duration = inner.name, inner.duration

            def __iter__(self) -> Iterator[tuple[float, Any]]:
                for seconds, frame in inner:
                    if last is None or seconds + begin > last + 1e-9:
                        yield seconds + begin, frame

            def close(self) -> None:
                super().close()
                inner.close()

        return Rest()
    begin = 0.0 if last is None else last + 1 / fps
    store.writer.note(source={"name": name, "fps": fps, "begin": begin})
    return source.value


def describe(folder: str, *, check: bool = False) -> dict[str, Any]:
    """Describe what a store holds.

    Args:
        folder: the store's folder.
        check: read every byte of it, to find damage.

    Returns:
        plain types, for JSON.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    from mmkv.store import Store
    from mmkv.store.facts import check_stream
    from mmkv.store.lock import written_by

    store = Store.follow(folder)
    frames, first, last, pages, damaged = 0, None, None, 0, []
    forgotten = packed = tokens = whole = held = 0
    beside: Counter[str] = Counter()
    for stored in store.pages():
        if first is None:
            first, forgotten = stored.blocks[0].seconds[0], stored.blocks[0].frame
        last, pages = stored.blocks[-1].seconds[1], pages + 1
        frames = stored.blocks[-1].frame + stored.blocks[-1].frames
        held += sum(block.frames for block in stored.blocks)
        packed, tokens = packed + stored.page.nbytes, tokens + sum(stored.page.lengths)
        whole += sum(stored.page.whole or stored.page.lengths)
        if stored.page.stored is not None:
            beside.update(stored.page.stored.side_sizes())
        if check:
            damaged += store.damage_of(stored)
    check_stream(store.meta, store.folder)
    meta, config = store.meta, store.meta["config"]
    lost = list(map(str, store.losses))
    elements = 2 * meta["layers"] * meta["kv_heads"] * meta["head_dim"] * tokens
    return {
        "store": str(store.folder),
        "model": meta["model"]["name"],
        "made": f"{meta['created']} by mmkv {meta['mmkv']}, format version {meta['version']}",
        "frames": frames,
        "forgotten": forgotten,
        "readable": held,
        "lost": lost,
        "since": first,
        "until": last,
        "bytes": store.nbytes,
        "bytes_per_frame": store.nbytes / held if held else None,
        "beside_bytes": dict(beside),
        "codec": meta["codec"],
        "bits_per_element": 8 * packed / elements if elements else None,
        "keep_ratio": tokens / whole if whole else None,
        "eviction": config.get("eviction") if config.get("keep_ratio", 1) != 1 else None,
        "window_frames": config["window_frames"],
        "pages": pages,
        "written_by": written_by(store.folder),
        "damaged": lost + damaged if check else None,
    }


def lines(found: dict[str, Any]) -> str:
    """Format the result of `describe` for people to read."""
    until = "nothing yet" if found["until"] is None else clock(found["until"])
    span = "" if found["since"] is None else f", {clock(found['since'])} to {until}"
    gone = (
        f", {counted(found['forgotten'], 'earlier one')} left the store"
        if found["forgotten"]
        else ""
    )
    each = f", {size(found['bytes_per_frame'])} per frame" if found["bytes_per_frame"] else ""
    codec = dict(found["codec"])
    name = codec.pop("name")
    bits = found["bits_per_element"]
    taken = f", {bits:.2f} bits per element of keys and values" if bits else ""
    how = ", ".join(f"{k} {v}" for k, v in codec.items() if v not in (None, [], ()))
    kept = []
    if found["keep_ratio"] not in (None, 1):
        by = f", by {found['eviction']}" if found["eviction"] else ""
        kept = [("kept", f"{100 * found['keep_ratio']:.1f}% of the tokens{by}")]
    rows = [
        ("store", found["store"]),
        ("model", found["model"]),
        ("made", found["made"]),
        ("frames", f"{found['readable']}{span}{gone}"),
        ("size", f"{size(found['bytes'])} in {counted(found['pages'], 'page')}{each}"),
        ("codec", (f"{name} ({how})" if how else name) + taken),
        *kept,
        *_beside(found["beside_bytes"], found["readable"]),
        ("window", counted(found["window_frames"], "frame")),
    ]
    if found["written_by"]:
        rows.append(("being written", f"by process {found['written_by']}"))
    if found["lost"] and found["damaged"] is None:
        rows.append(("lost", "; ".join(found["lost"])))
    if found["damaged"] is not None:
        checked = "; ".join(found["damaged"]) or "every byte is as it was written"
        rows.append(("checked", checked))
    return table(rows)


def _beside(sizes: dict[str, int], frames: int) -> list[tuple[str, str]]:
    """Say what a store keeps beside keys and values."""
    from mmkv.archive.blocks import EMBEDS, STATE

    rows = [
        (f"{name}s", f"{size(sizes[name])}, {size(sizes[name] / frames)} per frame")
        for name in sizes
        if name not in (STATE, EMBEDS)
    ]
    if EMBEDS in sizes:
        both, state = sizes.get(STATE, 0) + sizes[EMBEDS], sizes.get(STATE, 0)
        what = f"{size(both)}, {size(both / frames)} per frame; snapshots are {size(state)} of it"
        rows.append(("state", what))
    return rows


def rm(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A store made by `mmkv encode`.")],
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Remove a store and all it holds of a video; a folder that is not a store is left alone.

    \b
    Example:
      mmkv rm lecture.kv
    """
    from mmkv.store import remove

    freed, left = remove(folder)
    if not quiet:
        rest = f"; {counted(left, 'other file')} in it stayed" if left else ""
        typer.echo(f"removed {folder}: {size(freed)}{rest}")
