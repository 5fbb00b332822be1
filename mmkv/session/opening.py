"""How a stream begins: empty, empty with a store, or from a store."""

from __future__ import annotations

import os
import time
from dataclasses import fields, replace
from typing import Any

import torch

from mmkv.codecs import CODECS, Codec, from_spec
from mmkv.config.cache import CacheConfig
from mmkv.config.policies import CODEC_FIELDS, codec_of
from mmkv.config.resolved import ResolvedConfig
from mmkv.engine.runtime import ModelRuntime
from mmkv.retrieval.registry import EXTERNAL
from mmkv.retrieval.text_image import TextImage
from mmkv.session.stored_thinning import stored_thinning, thinning_facts
from mmkv.session.stream import Stream
from mmkv.store import Store, StoreMismatchError
from mmkv.store.facts import check_stream
from mmkv.store.identity import identity, refuse_other
from mmkv.store.retention import Limits
from mmkv.version import __version__


def new_stream(
    vlm: ModelRuntime, config: CacheConfig, system: str | None, path: str | os.PathLike[str] | None
) -> Stream:
    """Make an empty stream; `path` is the new folder that it is kept in, or None."""
    _check_config(config)
    resolved = _resolved(vlm, config)
    codec = codec_of(resolved, vlm.adapter.shape, vlm.dtype, vlm.adapter.key_weights)
    template = vlm.adapter.template(system)
    encoder = _encoder(vlm, config.encoder)
    if path is None:
        return Stream(vlm, resolved, template, codec, None, encoder)
    _check_snapshots(vlm, resolved)
    shape = vlm.adapter.shape
    facts = {
        "mmkv": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "model": {"name": vlm.name, **identity(vlm.adapter)},
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "layers": shape.layers,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "codec": codec.spec(),
        "config": {
            **{
                f.name: getattr(resolved, f.name)
                for f in fields(resolved)
                if f.name not in CODEC_FIELDS
            },
            **thinning_facts(resolved),
            "encoder": None if encoder is None else encoder.name,
        },
        "system": system,
        "prefix": list(template.prefix),
        "grid": None,
    }
    store = Store.create(path, facts, Limits(resolved.max_disk, resolved.max_age))
    return Stream(vlm, resolved, template, codec, store, encoder)


def open_stream(
    vlm: ModelRuntime, path: str | os.PathLike[str], mode: str, config: CacheConfig | None
) -> Stream:
    """Open the stream that a store holds; see `VideoLM.open`."""
    if mode not in ("r", "a"):
        raise ValueError(
            f"mode={mode!r} is not allowed; use 'r' to ask, 'a' to continue encoding, or "
            "stream(store=...) for a new store"
        )
    if config is not None:
        _check_config(config)
    store = Store.resume(path) if mode == "a" else Store.follow(path)
    try:
        meta, name = store.meta, str(store.folder)
        check_stream(meta, store.folder)
        refuse_other(meta["model"], identity(vlm.adapter), name)
        resolved = _stored_config(vlm, meta, config, writing=mode == "a")
        _check_snapshots(vlm, resolved)
        codec = _stored_codec(vlm, meta, config, name)
        template = vlm.adapter.template(meta["system"])
        if list(template.prefix) != meta["prefix"]:
            raise StoreMismatchError(
                f"the store {name} does not begin with the tokens that this model's chat template "
                "renders; open it with the tokenizer that made it"
            )
        given = meta["config"].get("encoder") if config is None else config.encoder
        encoder = _encoder(vlm, given if resolved.score == EXTERNAL else None)
        stream = Stream(vlm, resolved, template, codec, store, encoder)
    except BaseException:
        store.release()
        raise
    try:
        stream.begin(Limits(resolved.max_disk, resolved.max_age) if mode == "a" else None)
        if store.writer is not None:
            store.writer.note(config={**store.meta["config"], **thinning_facts(resolved)})
    except BaseException:
        store.release()
        stream.close()
        raise
    return stream


def _check_config(config: object) -> None:
    if not isinstance(config, CacheConfig):
        raise ValueError(f"config={config!r} is not a CacheConfig; pass mmkv.CacheConfig(...)")


def _check_snapshots(vlm: ModelRuntime, config: ResolvedConfig) -> None:
    if vlm.adapter.carries and config.snapshot_frames == 0:
        raise ValueError(
            f"snapshot_frames=0 keeps none of the state that layers of {vlm.name} carry, and "
            "without it nobody could ask or continue a store; leave it out, or use no store"
        )


def _resolved(vlm: ModelRuntime, config: CacheConfig) -> ResolvedConfig:
    trained = int(getattr(vlm.adapter.text_config, "max_position_embeddings", 32768))
    return config.resolve(trained, vlm.tokens_per_frame())


def _encoder(vlm: ModelRuntime, encoder: str | TextImage | None) -> TextImage | None:
    return TextImage.load(encoder, vlm.device) if isinstance(encoder, str) else encoder


def _stored_config(
    vlm: ModelRuntime, meta: dict[str, Any], config: CacheConfig | None, *, writing: bool
) -> ResolvedConfig:
    known = {field.name for field in fields(CacheConfig)}
    stored = {name: value for name, value in meta["config"].items() if name in known}
    stored |= stored_thinning(stored, config, writing=writing)
    if config is None:
        if meta["config"].get("resident"):
            stored["retrieve_frames"] = "all"
        return _resolved(vlm, CacheConfig(**stored))
    window = stored["window_frames"]
    # what a store keeps of its frames stays as it was at the start
    kept = {"landmarks": stored.get("landmarks", 0), "thumbnails": stored.get("thumbnails", False)}
    for name, began in {"window_frames": window, **kept}.items():
        named = getattr(config, name)
        if named not in (None, began):
            raise ValueError(
                f"{name}={named!r} is not what the store was encoded with, {began}; leave it out"
            )
    recent = config.recent_frames
    if recent is not None and recent > window:
        raise ValueError(f"recent_frames={recent} is more than the store's window of {window}")
    kept |= {name: stored[name] for name in ("keep_ratio", "eviction", "merging", "focus")}
    limits = {name: stored.get(name) for name in ("max_disk", "max_age")}
    given = {name: getattr(config, name) for name in limits if getattr(config, name) is not None}
    asked = replace(config, window_frames=window, **{**kept, **limits, **given})
    return _resolved(vlm, asked)


def _stored_codec(
    vlm: ModelRuntime, meta: dict[str, Any], config: CacheConfig | None, name: str
) -> Codec:
    spec = meta["codec"]
    given = None if config is None else config.codec
    if isinstance(given, Codec) and given.spec() == spec:
        return given
    codec = from_spec(spec, vlm.adapter.shape, vlm.adapter.key_weights)
    asked = config is not None and any(getattr(config, f) is not None for f in CODEC_FIELDS)
    if config is not None and asked:
        dtype = getattr(torch, meta["dtype"])
        wanted = codec_of(config, vlm.adapter.shape, dtype, vlm.adapter.key_weights)
        if wanted.spec() != spec:
            raise StoreMismatchError(
                f"the store {name} is packed by {codec!r}, not by {wanted!r}; leave the codec and "
                f"its bits out (codecs: {', '.join(CODECS)})"
            )
    return codec
