"""A stream is kept by one process and asked by another, also while the first is still at it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmkv.cli import main
from mmkv.models.tiny import SAMPLE_VIDEO

ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "MMKV_MODEL": "mmkv-tiny", "OMP_NUM_THREADS": "1"}
RARE = ("sample", "--fps", "0.4")
MMKV = [sys.executable, "-m", "mmkv"]


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [*MMKV, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV
    )


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("MMKV_MODEL", "mmkv-tiny")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mmkv", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert "unexpected" not in err
        return int(end.value.code or 0), out, err

    return run


def test_one_process_encodes_while_another_asks(here, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    store = tmp_path / "s"
    missing, _, told = here("ask", "--store", store, "What is there?")
    assert (missing, "there is no store at" in told) == (1, True)
    videos = [SAMPLE_VIDEO] * 100  # far more than is waited for
    encoding = started("encode", *videos, "--store", store, "--fps", "10", "--quiet")
    seen: list[int] = []
    try:
        while encoding.poll() is None and len(seen) < 2:
            code, out, err = here("ask", "--store", store, "How many shapes?", "--json", "--quiet")
            if code:
                assert "there is no store at" in err or "no frames yet" in err
                time.sleep(0.2)
                continue
            frames = json.loads(out)["stats"]["frames"]
            if encoding.poll() is None:
                seen.append(frames)
                assert "by process" in here("info", store)[1]
                code, _, err = here("encode", "sample", "--store", store, "--append")
                assert (code, "is being written by process" in err) == (1, True)
        assert len(seen) == 2
        assert seen == sorted(seen)
    finally:
        encoding.kill()
        encoding.wait()
    code, out, _ = here("ask", "--store", store, "How many shapes?", "--json")
    assert code == 0
    assert json.loads(out)["stats"]["frames"] >= seen[-1]  # a kill took nothing that was seen


def test_an_encoding_that_was_killed_goes_on_where_it_was(here, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    store, whole = tmp_path / "s", tmp_path / "whole"
    assert here("encode", *RARE, "--store", whole, "--quiet")[0] == 0
    process = started("encode", *RARE, "--store", store, "--quiet")
    while not list(store.glob("*.index")) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.wait()
    code, _, err = here("encode", *RARE, "--store", store)
    assert (code, "--append continues it" in err, "mmkv rm" in err) == (1, True, True)
    assert here("encode", *RARE, "--store", store, "--append")[0] == 0
    told = [json.loads(here("info", path, "--json", "--check")[1]) for path in (store, whole)]
    assert all(t["damaged"] == [] for t in told)
    for name in ("frames", "since", "until", "codec", "window_frames"):
        assert told[0][name] == told[1][name]
    question = ("Where did you see the yellow triangle?", "--json")
    answers = [
        json.loads(here("ask", "--store", p, *question)[1])["answers"][0] for p in (store, whole)
    ]
    assert answers[0]["text"] == answers[1]["text"]


def test_another_video_continues_the_time(here, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    store = tmp_path / "s"
    code, out, _ = here("encode", "sample", "--store", store, "--fps", "0.2")
    assert (code, f"store      {store}, 30 frames" in out) == (0, True)
    code, out, _ = here("encode", SAMPLE_VIDEO, "--store", store, "--fps", "0.1", "--append")
    assert (code, f"{store}, 45 frames" in out) == (0, True)
    code, out, _ = here("info", store)
    assert "45, 0:00 to 4:55" in out


def test_info_finds_damage_and_rm_removes_only_stores(here, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    store = tmp_path / "s"
    assert here("encode", "sample", "--store", store, "--fps", "0.2", "--quiet")[0] == 0
    assert "every byte is as it was written" in here("info", store, "--check")[1]
    raw = bytearray((store / "000000.data").read_bytes())
    raw[len(raw) // 2] ^= 1
    (store / "000000.data").write_bytes(raw)
    code, out, _ = here("info", store, "--check")
    assert (code, "layer" in out, "damaged" in out) == (1, True, True)
    (store / "mine.txt").write_text("not the store's")
    code, out, _ = here("rm", store)
    assert (code, "1 other file in it stayed" in out) == (0, True)
    assert [f.name for f in store.iterdir()] == ["mine.txt"]
    code, _, err = here("rm", store)
    assert (code, "is not an mmkv store" in err) == (1, True)
    for wrong in (("encode", "sample", "--append"), ("info", "--check")):
        assert here(*wrong)[0] == 2


def test_info_names_frames_that_are_lost(here, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    store = tmp_path / "s"
    assert here("encode", "sample", "--store", store, "--fps", "0.2", "--quiet")[0] == 0
    data = bytearray((store / "000000.data").read_bytes())
    index = bytearray((store / "000000.index").read_bytes())
    data[data.index(b"page", len(data) // 2)] ^= 1
    for at in range(len(index) // 2, len(index) // 2 + 1200):
        index[at] ^= 1
    (store / "000000.data").write_bytes(data)
    (store / "000000.index").write_bytes(index)
    code, out, _ = here("info", store, "--check")
    assert (code, "checked" in out, "are both damaged there" in out) == (1, True, True)
    told = json.loads(here("info", store, "--json")[1])
    assert told["lost"][0].startswith("frames ")
    assert told["readable"] < told["frames"] == 30
    code, _, err = here("ask", "--store", store, "What is there?")
    assert (code, "has lost frames" in err) == (0, True)


@pytest.mark.parametrize("name", ["model", "codec", "config", "dtype", "system", "prefix", "mmkv"])
def test_a_missing_fact_of_an_unchecked_meta_is_named(here, tmp_path: Path, name: str) -> None:  # type: ignore[no-untyped-def]
    """Versions 1 and 2 have no checksum: a key that is gone is all that tells of damage."""
    store = tmp_path / "s"
    assert here("encode", "sample", "--store", store, "--fps", "0.1", "--quiet")[0] == 0
    meta = json.loads((store / "meta.json").read_text())
    del meta["check"], meta[name]
    (store / "meta.json").write_text(json.dumps(meta | {"version": 2}))
    (store / "meta.copy.json").unlink()
    asked = ("ask", "--store", store, "what?")
    for command in (("info", store), asked, (*asked, "--model", "mmkv-tiny")):
        code, _, err = here(*command)
        assert (code, f"meta.json is damaged at '{name}'" in err) == (1, True), err
