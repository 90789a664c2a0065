"""The requests of a market: a visitor's click, a network's postback, a browser's pixel."""

from __future__ import annotations

from collections.abc import Mapping

from postbackd import __version__
from postbackd.core.deliveries import Outgoing
from postbackd.core.model import Channel, ClickKind
from postbackd.core.money import write_micros
from postbackd.market.cast import NETWORKS
from postbackd.market.records import Call, Visit, write_query
from postbackd.presets import find_preset
from postbackd.simulating.catalog import Book, Link

_BROWSERS: Mapping[tuple[str, str], str] = {
    ("android", "chrome"): "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Mobile Safari/537.36",
    (
        "ios",
        "safari",
    ): "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.1 Mobile/15E148 Safari/604.1",
    ("desktop", "chrome"): "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Safari/537.36",
    ("desktop", "firefox"): "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
    (
        "tablet",
        "safari",
    ): "Mozilla/5.0 (iPad; CPU OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.1 Mobile/15E148 Safari/604.1",
}
_BOT = "Mozilla/5.0 (compatible; SimulatedBot/1.0)"
_NETWORK = ("User-Agent", f"postbackd-simulate/{__version__}")


def word_visit(visit: Visit, link: Link, server: str) -> Outgoing:
    """The request of one visit; the source has filled its macros.  ``server``: as in ``http://127.0.0.1:8080``."""
    path = _fill(link, visit)
    device, browser = visit.subs[2:4]
    agent = _BOT if visit.kind is ClickKind.BOT else _BROWSERS[device, browser]
    method = "HEAD" if visit.kind is ClickKind.HEAD else "GET"
    prefetch = (("Sec-Purpose", "prefetch"),) if visit.kind is ClickKind.PREFETCH else ()
    return Outgoing(method, f"{server}{path}", (("User-Agent", agent), *prefetch))


def _fill(link: Link, visit: Visit) -> str:
    values = {
        "source_click_id": visit.source_click_id,
        "cost": write_micros(visit.cost_micros),
        "country": visit.country,
        **{f"sub{number}": text for number, text in enumerate(visit.subs, 1)},
    }
    if link.preset is None:
        return f"{link.template}?{'&'.join(f'{name}={text}' for name, text in values.items())}"
    preset = find_preset("source", link.preset)
    path = link.template
    for field, macro in () if preset is None else preset.click_parameters().items():
        path = path.replace(f"={macro}", f"={values.get(field, '')}")
    return path


def word_call(call: Call, click_id: str, book: Book, server: str) -> Outgoing:
    """The request of one postback or pixel.  ``click_id``: as the visitor's landing page was given it."""
    # A macro that nobody filled goes out as HTTP clients send what a URL must not hold.
    query = write_query(call, click_id).replace("{", "%7B").replace("}", "%7D").replace("#", "%23")
    url = f"{server}/p/{book.keys[call.network]}"
    if call.channel is Channel.PIXEL:
        return Outgoing("GET", f"{url}/pixel.gif?{query}", (("User-Agent", _BROWSERS["desktop", "chrome"]),))
    if call.network in _POSTING:
        return Outgoing("POST", url, (_NETWORK, _FORM), query.encode("ascii"))
    return Outgoing("GET", f"{url}?{query}", (_NETWORK,))


_POSTING = frozenset(role.name for role in NETWORKS if role.posts)
_FORM = ("Content-Type", "application/x-www-form-urlencoded")


def read_landing(location: str, link: Link) -> str | None:
    """The click id that a landing page finds in its URL; ``None``: the visitor has come to another page."""
    return location[len(link.landing) :] if location.startswith(link.landing) else None
