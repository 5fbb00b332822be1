"""Takes the screenshot of the demo page that the README shows.

python tests/support/make_screenshot.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from demo_browser import Page, Running, chromium
from demo_visitors import tiny
from waiting import until

PICTURE = Path(__file__).parents[2] / "docs" / "img" / "demo.png"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        running = Running(tiny(), Path(folder))
        page = Page(browser.new_context(viewport={"width": 1280, "height": 800}), running)
        page.ready().fast()
        page.raw.click("#mm-settings button >> nth=0")  # close the settings again
        page.raw.click("#mm-sample")
        page.begun()
        until(lambda: all(not watch.feed.running for watch in running.watches))
        page.answered("In which corner was the white ring?")
        page.raw.wait_for_timeout(2000)  # the next tick of the gauges and the plot
        page.raw.screenshot(path=str(PICTURE), full_page=True)
        running.empty()
        running.close()


if __name__ == "__main__":
    main()
