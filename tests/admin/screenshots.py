"""Pictures of every page at three widths in both themes, from a running server, to be looked at.

``python -m tests.admin.screenshots BASE OUT [--link LINK | --name NAME --password PASSWORD] [--data demo] [ROUTE ...]``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from playwright.sync_api import Browser

from tests.admin.browser import PASSWORD, Watched, follow_link, launched, sign_in

WIDTHS = (360, 800, 1440)
THEMES = ("light", "dark")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("out", type=Path)
    parser.add_argument("routes", nargs="*")
    parser.add_argument("--link")
    parser.add_argument("--name", default="olga")
    parser.add_argument("--password", default=PASSWORD)
    parser.add_argument("--data", default="real")
    parser.add_argument("--widths", type=lambda text: [int(one) for one in text.split(",")], default=WIDTHS)
    parser.add_argument("--themes", type=lambda text: text.split(","), default=THEMES)
    return parser.parse_args()


def main() -> None:
    given = read_arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    with launched() as browser:
        state = enter(browser, given)
        for theme in given.themes:
            take(browser, given, theme, state)


def enter(browser: Browser, given: argparse.Namespace) -> str:
    state = str(given.out / "state.json")
    context = browser.new_context()
    page = context.new_page()
    if given.link:
        follow_link(page, given.link, given.name, given.password)
    else:
        sign_in(page, given.base, given.name, given.password)
    context.storage_state(path=state)
    context.close()
    return state


def take(browser: Browser, given: argparse.Namespace, theme: str, state: str) -> None:
    context = browser.new_context(color_scheme="dark" if theme == "dark" else "light", storage_state=state)
    context.add_init_script(f"sessionStorage.setItem('data', '{given.data}')")
    watched = Watched(context)
    for width in given.widths:
        watched.page.set_viewport_size({"width": width, "height": 780 if width < 500 else 900})
        for route in given.routes or find_routes(watched, given.base):
            watched.open(given.base, route)
            watched.page.wait_for_timeout(300)  # charts are drawn in the next frames
            name = route.split("?")[0].replace("/", "_").replace(" ", "-")
            watched.page.screenshot(path=given.out / f"{name}-{width}-{theme}.png", full_page=width != 1440)
            if watched.scrolls_sideways():
                print(f"{route} scrolls sideways at {width}")
    for error in watched.errors:
        print(error)
    context.close()


def find_routes(watched: Watched, base: str) -> list[str]:
    """What the navigation leads to."""
    watched.open(base, "overview")
    found = watched.page.eval_on_selector_all(".nav a", "links => links.map(one => one.getAttribute('href'))")
    return [address.removeprefix("#/") for address in found]


if __name__ == "__main__":
    main()
