"""The demo: places, the line for them, idle visitors, and what is left behind (nothing)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo_visitors import Server, until

from mmkv.demos.app.folders import Folders
from mmkv.demos.app.limits import Limits
from mmkv.demos.app.views.banner import banner
from mmkv.demos.app.visit import Busy, Key, Visit


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path, sessions=2, idle_seconds=60, leave_seconds=10)
    yield one
    one.close()
    assert not list(tmp_path.glob("*/*"))  # nothing is left of any visitor


def position(server: Server, visit: Visit) -> int:
    try:
        server.registry.place(visit)
    except Busy as busy:
        return busy.position
    return 0


def test_places_are_given_in_order_and_the_others_know_their_position(server: Server) -> None:
    a, b, c, d = (server.visit(name) for name in "abcd")
    assert [position(server, visit) for visit in (a, b, c, d)] == [0, 0, 1, 2]
    assert "Busy, position 2: all 2 places are taken." in banner(server.registry, d)
    server.registry.release(a)
    assert c.placed
    assert position(server, d) == 1
    assert position(server, a) == 2  # who comes back stands behind


def test_a_video_that_waited_starts_by_itself(server: Server) -> None:
    for name in "ab":
        position(server, server.visit(name))
    waiting = server.visit("c")
    with pytest.raises(Busy):
        server.registry.place(waiting, waiting.session.sample)
    assert waiting.session.watch is None
    server.registry.release(server.visit("a"))
    until(lambda: waiting.session.watch is not None)
    assert waiting.session.watch.video.kind == "sample"  # type: ignore[union-attr]


def test_who_leaves_the_line_is_not_waited_for(server: Server) -> None:
    for name in "abc":
        position(server, server.visit(name))
    last = server.visit("d")
    assert position(server, last) == 2
    server.registry.leave("page of c")
    server.clock.now = 11
    server.registry.round()
    assert position(server, last) == 1


def test_an_idle_session_is_deleted_and_its_visitor_told(server: Server) -> None:
    visit = server.visit("a")
    position(server, visit)
    visit.session.sample()
    assert list(visit.session.folder.iterdir())
    server.clock.now = 59
    server.registry.round()
    assert visit.session.watch is not None
    server.clock.now = 61
    visit.session.beat()  # the page is there, but nobody does anything
    server.registry.round()
    assert visit.session.watch is None
    assert not list(visit.session.folder.iterdir())
    assert not visit.placed
    assert "deleted after 60.0 s without" in banner(server.registry, visit)


def test_a_playing_video_is_no_idle_session(server: Server) -> None:
    visit = server.visit("a")
    position(server, visit)
    visit.session.sample()
    for server.clock.now in range(0, 200, 20):
        visit.session.play(1.0, 1.0, playing=True, rush=False)
        server.registry.round()
    assert visit.session.watch is not None


def test_a_reload_finds_everything_again_and_leaving_deletes_it(server: Server) -> None:
    visit = server.visit("a")
    visit.session.sample()
    folder = visit.session.folder
    server.registry.leave("page of a")
    server.clock.now = 5
    server.registry.round()
    again = server.registry.enter(visit.key, "the reloaded page")
    assert again.session is visit.session
    assert again.session.watch is not None
    server.registry.leave("the reloaded page")
    server.clock.now = 16
    server.registry.round()
    assert not folder.exists()
    assert visit.session.ended
    assert server.visit("a").session is not visit.session


def test_a_connection_lost_for_a_moment_loses_nothing(server: Server) -> None:
    visit = server.visit("a")
    server.registry.leave("page of a")
    server.registry.here("page of a")
    server.clock.now = 30
    server.registry.round()
    assert not visit.session.ended


def test_of_two_pages_of_a_tab_the_last_one_counts(server: Server) -> None:
    visit = server.visit("a")
    server.registry.enter(visit.key, "its copy")
    server.registry.leave("page of a")
    server.clock.now = 30
    server.registry.round()
    assert not visit.session.ended
    server.registry.leave("its copy")
    server.clock.now = 41
    server.registry.round()
    assert visit.session.ended


def test_a_page_that_went_silent_is_let_go(server: Server) -> None:
    visit = server.visit("a")
    server.clock.now = 200  # its connection was lost without a word
    server.registry.round()
    assert visit.session.ended


def test_pages_and_videos_answer_only_to_the_browser_that_made_them(server: Server) -> None:
    visit = server.visit("a")
    visit.session.sample()
    token = visit.session.watch.video.token  # type: ignore[union-attr]
    server.visit("b")
    registry = server.registry
    assert registry.of_page("page of a", "visitor a") is visit
    assert registry.of_video("visitor a", token) is visit
    assert registry.of_tab("visitor a", "tab of a") is visit
    assert registry.of_page("page of a", "visitor b") is None
    assert registry.of_video("visitor b", token) is None
    assert registry.of_tab("visitor b", "tab of a") is None


def test_one_browser_cannot_fill_the_server_with_pages(server: Server) -> None:
    first = server.registry.enter(Key("v", "tab 0"), "page 0")
    for number in range(1, 40):
        server.registry.enter(Key("v", f"tab {number}"), f"page {number}")
    assert first.session.ended
    assert len(list(server.folders.root.iterdir())) <= 22  # with the lock


def test_the_next_server_deletes_what_a_killed_one_left(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from mmkv.demos.app.folders import Folders;"
        "f = Folders(Path(sys.argv[1])); (f.new() / 'video').write_bytes(b'x');"
        "print(f.root, flush=True); time.sleep(600)"
    )
    victim = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout is not None
    root = Path(victim.stdout.readline().strip())
    beside = Folders(tmp_path)
    assert root.exists()  # its server still runs
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    after = Folders(tmp_path)
    assert not root.exists()
    assert beside.root.exists()
    assert (os.stat(after.root).st_mode & 0o777) == 0o700
    after.close()
    beside.close()
    assert not beside.root.exists()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"sessions": 0}, "sessions=0"),
        ({"upload_bytes": "many"}, "upload_bytes='many'"),
        ({"idle_seconds": -1}, "idle_seconds=-1"),
        ({"upload_bytes": "3GB", "disk_bytes": "2GB"}, "has to be more than upload_bytes"),
    ],
)
def test_limits_are_checked(limits: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Limits(**limits)  # type: ignore[arg-type]
