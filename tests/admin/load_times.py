"""How long each page takes to load in a real browser that has nothing cached, and what it transfers.

``python -m tests.admin.load_times BASE [--link LINK | --name NAME --password PASSWORD] [--times N] [ROUTE ...]``

A page is there when its heading is, and loaded when nothing of it is on its way any more and its charts are drawn; the
sign-in is not part of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from playwright.sync_api import Browser

from tests.admin.browser import PASSWORD, Watched, launched
from tests.admin.screenshots import enter, find_routes

_TRANSFERRED = """() => {
    const all = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    const files = all.filter((one) => !new URL(one.name).pathname.startsWith("/api/"));
    const sum = (list) => list.reduce((bytes, one) => bytes + one.encodedBodySize, 0);
    return [files.length, sum(files), sum(all)];
}"""


class Loaded(NamedTuple):
    there_ms: float
    loaded_ms: float
    files: int
    file_bytes: int
    """Of the dashboard's files, as they were transferred."""
    all_bytes: int
    """With the answers of the API."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("routes", nargs="*")
    parser.add_argument("--link")
    parser.add_argument("--name", default="olga")
    parser.add_argument("--password", default=PASSWORD)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    with launched() as browser, tempfile.TemporaryDirectory() as directory:
        given.out = Path(directory)
        state = enter(browser, given)
        for route in given.routes or find_routes(
            Watched(browser.new_context(storage_state=state)), given.base
        ):
            loads = [load(browser, given.base, route, state) for _ in range(given.times)]
            last = loads[-1]
            there, loaded = (sorted(one[at] for one in loads) for at in (0, 1))
            print(
                f"{route:12} there {median(there):4.0f} ms, loaded {median(loaded):5.0f} ms "
                f"({loaded[0]:.0f} to {loaded[-1]:.0f}); "
                f"{last.files} files {last.file_bytes / 1000:.1f} kB, with answers {last.all_bytes / 1000:.1f} kB"
            )


def load(browser: Browser, base: str, route: str, state: Any) -> Loaded:
    """One load, in a context of its own: nothing is cached in it."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, storage_state=state)
    watched = Watched(context)
    began = time.monotonic()
    watched.page.goto(f"{base}/#/{route}", wait_until="commit")
    watched.page.wait_for_selector("#main h1:not(.unseen)")
    there_ms = (time.monotonic() - began) * 1000
    watched.settle()
    watched.page.wait_for_function("!document.querySelector('.chart > div:empty')")
    loaded_ms = (time.monotonic() - began) * 1000
    files, file_bytes, all_bytes = watched.page.evaluate(_TRANSFERRED)
    context.close()
    return Loaded(there_ms, loaded_ms, files, file_bytes, all_bytes)


if __name__ == "__main__":
    main()
