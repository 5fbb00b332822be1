"""The demo in a real browser: headless Chromium, driven by Playwright.

`MMKV_SCREENSHOTS=DIR` writes what the pages look like to a folder, for looking at.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_browser import CHROMIUM, Page, Running, chromium
from demo_visitors import tiny
from waiting import PATIENCE, until

import mmkv
from mmkv.demos.app.visit import Key
from mmkv.models.tiny import SAMPLE_VIDEO

pytest.importorskip("gradio", reason="needs Gradio: pip install 'mmkv-video[demo]'")
pytest.importorskip("playwright", reason="needs Playwright: pip install 'mmkv-video[dev]'")
if CHROMIUM is None:
    pytest.skip(
        "needs Chromium, which is not here: apt-get install chromium (Debian, Ubuntu)",
        allow_module_level=True,
    )

EARLY = ("In which corner was the white ring?", "bottom left", 12.0)
LATE = ("Where did the blue square appear?", "bottom left", 126.0)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    one = Running(tiny(), tmp_path_factory.mktemp("demo"), sessions=2, leave_seconds=60)
    yield one
    one.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture
def context(browser: Any, running: Running) -> Iterator[Any]:
    yield browser.new_context()
    for one in browser.contexts:  # also those that a test opened besides
        one.close()
    running.empty()


def moment(page: Page, question: str) -> float:
    """Seconds of the best thumbnail of a question's answer, once all of it is shown."""
    found = page.raw.wait_for_function(
        "([caption]) => document.querySelector('#mm-line').innerText.includes(caption)"
        " && document.querySelector('.mm-found img')?.naturalWidth > 20"
        " && document.querySelector('.mm-found.mm-best').dataset.seek",
        arg=[f"Where “{question}” was found"],
    )
    return float(found.json_value())


def test_upload_the_sample_and_ask_about_early_and_late_scenes(
    context: Any, running: Running
) -> None:
    page = Page(context, running).ready().fast()
    page.upload(SAMPLE_VIDEO)
    page.see("2:29 encoded")
    for question, answer, seconds in (EARLY, LATE):
        assert page.answered(question).startswith(answer)
        best = moment(page, question)
        assert abs(best - seconds) <= 2.0
        page.raw.click(".mm-found.mm-best")
        assert abs(page.time() - best) < 0.1
    units = {"window": "MB", "host": "MB", "disk": "MB", "first": "s", "behind": "s"}
    for name, unit in units.items():
        page.reads(name, unit)
    assert page.gauge("dropped") == "0"
    assert page.gauge("bits") == "32"
    heights = page.raw.evaluate(
        "document.querySelector('.mm-line-window').getAttribute('points').split(' ')"
        ".map(point => point.split(',')[1])"
    )
    assert len(set(heights)) == 1  # the window's line is flat
    assert all(url.startswith((running.url, "data:", "blob:")) for url in page.asked)


def test_two_visitors_stay_apart(browser: Any, context: Any, running: Running) -> None:
    page = Page(context, running).ready().fast()
    page.raw.click("#mm-sample")
    page.see("2:29 encoded")
    mine = "Where did you see the red circle?"  # none that the page offers to everybody
    page.answered(mine)
    other_context = browser.new_context()
    other = Page(other_context, running).ready()
    assert other.raw.locator("#mm-chat .user").count() == 0
    assert other.raw.locator("#mm-video").count() == 0
    other.raw.click("#mm-camera")
    other.raw.wait_for_selector(".mm-state")
    other.begun()
    address = page.raw.evaluate("document.querySelector('#mm-video source').src")
    for asking, status in ((context, 200), (other_context, 404)):
        assert asking.request.get(address, timeout=1000 * PATIENCE).status == status
    other.answered("How many shapes are there now?")
    assert mine not in other.raw.content()
    assert "How many shapes are there now?" not in page.raw.inner_text("#mm-chat")
    assert other.raw.locator(".mm-found").count() < 6


def test_a_reload_in_the_middle_finds_everything_again(context: Any, running: Running) -> None:
    page = Page(context, running).ready()
    page.raw.click("#mm-sample")
    page.raw.wait_for_function("() => document.getElementById('mm-video')?.currentTime > 3")
    page.begun().answered("Was there a red circle?")
    before = page.time()
    page.raw.reload()
    page.ready()
    page.see("Was there a red circle?")
    page.raw.wait_for_function(
        "([before]) => document.getElementById('mm-video')?.currentTime > before + 1",
        arg=[before - 2],
    )
    visit = running.watching
    frames = visit.session.watch.stream.stats().frames
    until(lambda: visit.session.watch.stream.stats().frames > frames)  # it goes on


def test_a_script_that_comes_late_is_waited_for(context: Any, running: Running) -> None:
    def late(route: Any) -> None:
        time.sleep(2.0)
        route.continue_()

    context.route("**/mmkv/page.js", late)
    page = Page(context, running).ready()
    page.raw.click("#mm-sample")
    page.raw.wait_for_selector("#mm-video")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holiday.mp4: the file is empty (0 bytes)."),
        (b"words, not pictures. " * 99, "its data is damaged, cut off or not a video at all."),
    ],
)
def test_what_is_no_video_is_said_and_the_page_goes_on(
    context: Any, running: Running, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "holiday.mp4"
    path.write_bytes(content)
    page = Page(context, running).ready()
    page.upload(path)
    page.see(words)
    page.raw.click("#mm-sample")
    page.raw.wait_for_selector("#mm-video")
    page.raw.wait_for_function(
        "([words]) => !document.querySelector('#mm-banner').innerText.includes(words)", arg=[words]
    )


def test_the_camera_is_watched_live(context: Any, running: Running) -> None:
    page = Page(context, running).ready()
    page.raw.click("#mm-camera")
    page.raw.wait_for_selector("#mm-video[data-camera]")
    until(lambda: (running.watching.session.watch.encoded or 0.0) >= 1.0)
    seen = int(running.watching.session.watch.encoded)
    answer = page.answered("How many shapes are there now?")
    minutes, seconds = re.findall(r"as\sof\s(\d+):(\d\d)", answer)[-1]
    assert 60 * int(minutes) + int(seconds) >= seen
    page.reads("behind", " s")
    page.see("click a picture to enlarge it")
    page.raw.click(".mm-found.mm-best")
    page.raw.wait_for_selector("#mm-large[open] img")


def test_stop_ends_a_long_answer(browser: Any, tmp_path: Path) -> None:
    talkative = mmkv.load("mmkv-tiny")

    def slowly(module: Any, given: Any, logits: Any) -> Any:
        time.sleep(0.1)
        logits[..., list(talkative.stop_tokens)] = -float("inf")  # never says that it is done
        return logits

    talkative.adapter.lm_head.register_forward_hook(slowly)
    running = Running(talkative, tmp_path, answer_tokens=2000)
    context = browser.new_context()
    page = Page(context, running).ready()
    page.raw.click("#mm-sample")
    page.raw.wait_for_selector("#mm-video")
    page.begun().ask("What is there now?")
    page.raw.wait_for_function(
        "() => document.querySelector('#mm-chat .bot')?.innerText.split(/\\s+/).length > 4"
    )
    page.raw.click("#mm-stop")
    page.raw.wait_for_selector("#mm-go:visible")
    page.see("stopped")
    (exchange,) = running.watching.session.exchanges
    assert exchange.state == "stopped"
    assert exchange.join(PATIENCE)
    context.close()
    running.close()
    assert not list(tmp_path.glob("*/*"))


def test_busy_visitors_see_their_position_and_start_by_themselves(
    context: Any, running: Running
) -> None:
    others = [running.registry.enter(Key(f"v{i}", f"t{i}"), f"page {i}") for i in range(2)]
    for other in others:
        running.registry.place(other)
    page = Page(context, running).ready()
    page.raw.click("#mm-sample")
    page.see("Busy, position 1: all 2 places are taken.")
    running.registry.release(others[0])
    page.raw.wait_for_selector("#mm-video")
    page.raw.wait_for_function("() => !document.querySelector('.mm-banner')")


def test_deleting_everything_empties_page_and_disk(context: Any, running: Running) -> None:
    page = Page(context, running).ready()
    page.upload(SAMPLE_VIDEO)
    page.raw.wait_for_selector("#mm-video")
    visit = running.watching
    assert list(visit.session.folder.iterdir())
    page.raw.click("#mm-settings button >> nth=0")
    page.raw.click("#mm-delete")
    page.see("Choose a video to begin")  # the player is gone before the files are
    until(lambda: not list(visit.session.folder.iterdir()))


def test_closing_the_page_deletes_everything(browser: Any, running: Running) -> None:
    context = browser.new_context()
    page = Page(context, running).ready()
    page.raw.click("#mm-sample")
    page.raw.wait_for_selector("#mm-video")
    visit = running.watching
    context.close()
    until(lambda: visit.left is not None)  # the server noticed, and waits for a reload
    visit.left -= 61
    until(lambda: not visit.session.folder.exists())


def test_a_password_is_asked_for(browser: Any, tmp_path: Path) -> None:
    running = Running(tiny(), tmp_path, users=[("me", "secret")])
    context = browser.new_context()
    page = Page(context, running)
    page.raw.get_by_label("username").fill("me")
    page.raw.get_by_label("password").fill("secret")
    page.raw.get_by_role("button", name="Login").click()
    page.ready()
    page.raw.click("#mm-sample")
    page.raw.wait_for_selector("#mm-video")
    context.close()
    running.close()


def test_the_page_says_that_the_camera_needs_https(context: Any, running: Running) -> None:
    page = Page(context, running, f"http://demo.test:{running.port}").ready()
    page.raw.get_by_text("The camera needs https or localhost").wait_for(state="visible")
    page.raw.click("#mm-camera")
    page.see("Browsers allow the camera only on pages over https, or on localhost.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
def test_nothing_overflows_on_desktop_or_phone(
    browser: Any, running: Running, width: int, scheme: str
) -> None:
    folder = os.environ.get("MMKV_SCREENSHOTS")
    context = browser.new_context(
        viewport={"width": width, "height": 860}, color_scheme=scheme, has_touch=width < 400
    )
    page = Page(context, running).ready()
    name = f"{'desktop' if width > 400 else 'phone'}-{scheme}"
    if folder:
        page.raw.screenshot(path=f"{folder}/{name}-start.png", full_page=True)
    page.fits(width)
    page.fast()
    page.raw.click("#mm-sample")
    page.see("2:29 encoded")
    page.answered(LATE[0])
    page.answered(EARLY[0])
    page.raw.click(".mm-found.mm-best")
    page.fits(width)
    assert page.raw.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    if folder:
        page.raw.screenshot(path=f"{folder}/{name}.png", full_page=True)
    context.close()
    running.empty()
