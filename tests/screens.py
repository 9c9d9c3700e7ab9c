"""The pictures of README and docs, from a real search of the digits: the live view, and the dashboard in a browser.

    make screens

Writes docs/live-view.svg, docs/dashboard.png and docs/trial.png.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from browsing import chrome
from rich.console import Console
from selenium import webdriver
from waiting import until

from affinity_search.search.view.snapshot import take
from affinity_search.search.view.terminal import panel
from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import load_study

DOCS = Path(__file__).parent.parent / "docs"
PICTURES_ARE_THERE = "return [...document.images].every(image => image.complete)"
DRAWN_S = 8.0  # the page's plots have no event that says that they are drawn


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="screens-", ignore_cleanup_errors=True) as name:
        url = f"sqlite:///{name}/screens.db"
        environment = os.environ | {"AFFINITY_SEARCH_STORAGE": url}
        command = [sys.executable, "-P", "-m", "affinity_search", "launch", "digits", "--workers", "2"]
        with subprocess.Popen(command, env=environment) as launch:
            take_live_view(url)
            assert launch.wait() == 0
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "affinity_search", "dashboard", "--port", "0"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as served:
            assert served.stderr is not None
            address = re.search(r"http://\S+/", served.stderr.readline())
            assert address
            try:
                take_dashboard(address[0], url, Path(name))
            finally:
                served.terminate()


def take_live_view(url: str) -> None:
    """In the middle of the search, as the terminal shows it."""
    while True:
        time.sleep(1)
        try:
            study = load_study(open_backend(url, create=False), "digits")
        except Exception:  # the launcher is still creating it
            continue
        counts = Places.of(study).counts()
        if counts.used >= 10 and counts.running == 2:
            break
    console = Console(record=True, width=110, file=io.StringIO())
    console.print(panel(take(study)))
    console.save_svg(str(DOCS / "live-view.svg"), title="affinity-search launch digits --workers 2")


def take_dashboard(address: str, url: str, folder: Path) -> None:
    best = load_study(open_backend(url, create=False), "digits").optuna.best_trial.number
    pages = {"dashboard": ("dashboard/studies/1", 2350), "trial": (f"dashboard/studies/1/trials?numbers={best}", 1900)}
    browser: webdriver.Chrome = chrome(folder / "profile")
    try:
        for name, (path, height) in pages.items():
            browser.set_window_size(1400, height)
            browser.get(address + path)
            time.sleep(DRAWN_S)
            until(lambda: browser.execute_script(PICTURES_ARE_THERE), "the trial's pictures", 60)
            browser.save_screenshot(str(DOCS / f"{name}.png"))
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
