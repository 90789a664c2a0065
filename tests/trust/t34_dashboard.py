"""T34: scripts in everything that a visitor or a network can send, looked at in the dashboard by a real Chromium.

Every payload goes through real clicks and postbacks (ids, transaction ids, statuses, types, currencies, sub ids), then
the pages that show them are opened: the live log, the story of each kind of row, the overview, the network's page.  No
script may run, no element may come to be out of a payload, and nothing may even try to break the policy.  Control: a
page that puts the same texts into its markup, on which the same detector must find scripts that ran.
"""

from __future__ import annotations

import http.client
import http.server
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Browser, Page

from tests.admin.browser import follow_link, launched
from tests.admin.dashboard import Dashboard
from tests.trust.registry import Control, Figure, Result, Size, need_tools, trust_test
from tests.trust.server import Catalog, make_catalog

_CALL = "globalThis.__ran=(globalThis.__ran||0)+1"

_SEEDS = (
    "<script>{call}</script>", "<img src=x onerror={call}>", "<svg onload={call}>", "<svg/onload={call}>",
    "\"><img src=x onerror={call}>", "'><svg onload={call}>", "</td><img src=x onerror={call}>",
    "<iframe srcdoc='<script>parent.{call}</script>'>", "<details open ontoggle={call}>", "javascript:{call}",
    "<a href=javascript:{call}>x</a>", "<body onload={call}>", "<input autofocus onfocus={call}>",
    "<style onload={call}></style>", "<math><mi xlink:href=javascript:{call}>", "${{{call}}}", "{{{{{call}}}}}",
    "`;{call}//", "</script><script>{call}</script>", "<!--<img src=x onerror={call}>-->",
    "<object data=x onerror={call}>",
    "<video><source onerror={call}></video>", "<marquee onstart={call}>x</marquee>", "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>", "<meta http-equiv=refresh content=0;url=//evil.example/>",
    "__proto__", "constructor", "[object Object]", "<template><script>{call}</script></template>",
)  # fmt: skip

_TWISTS = (
    lambda text: text,
    lambda text: text.swapcase() if "=" not in text else text.upper().replace(_CALL.upper(), _CALL),
    lambda text: text.replace("<", "&lt;"),
    lambda text: text.replace("<", "\u003c").replace(" ", "/"),
    lambda text: text.replace(" ", "\t"),
    lambda text: f"T-1{text}",
    lambda text: f"{text}\u2028{text}"[:200],
    lambda text: text.replace("<", "<\u0000"),
    lambda text: text.replace("<", "＜"),
    lambda text: f"\u202e{text}",
)

_FIELDS = ("txid", "status", "type", "click_id", "currency", "value", "time")

_WATCH = """
globalThis.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => __violations.push(event.violatedDirective));
"""


_NOTHING = ("scripts run", "violations", "elements made", "pages that show some")


def payloads(count: int, seed: int) -> list[str]:
    """Texts that would run if they became markup, each with a number of its own."""
    made = [twist(text.format(call=_CALL)) for text in _SEEDS for twist in _TWISTS]
    chosen = random.Random(seed)
    return [made[n] if n < len(made) else f"{n}{chosen.choice(made)}" for n in range(count)]


@trust_test("T34", "scripts in everything that is shown: none runs in the dashboard")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Every payload through the front door, then in front of a browser."""
    need_tools("chromium")

    texts = payloads(size.pick(ci=1000, nightly=5000, release=20_000), seed)
    with launched() as browser, Dashboard(work_dir / "data") as server:
        catalog = make_catalog(server.data_dir)
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.add_init_script(_WATCH)
        page = context.new_page()
        follow_link(page, server.link())
        page.goto(f"{server.base}/#/live")
        page.get_by_text("live", exact=True).wait_for()
        requests = _send(server.port, catalog, texts)
        figures: dict[str, Figure] = {"n": len(texts), **dict.fromkeys(_NOTHING, 0)}
        for route in _routes(requests, size.pick(ci=6, nightly=100, release=400)):
            page.goto(f"{server.base}/#/{route}")
            page.wait_for_timeout(250)
            _look(page, figures)
        control = _control(browser, texts)
    bad = [figures[name] for name in ("scripts run", "violations", "elements made")]
    passed = not any(bad) and int(figures["pages that show some"]) > 0
    return Result(passed, figures, (control,))


def _send(port: int, catalog: Catalog, texts: Sequence[str]) -> list[str]:
    """Clicks and postbacks that carry the texts; the ids of the rows."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    requests: list[str] = []
    for at, text in enumerate(texts):
        names = {"sub1": text, "sub2": text, "source_click_id": text, "country": text[:2]}
        location = _get(connection, f"/c/{catalog.slug}?{urlencode(names)}").getheader("location", "")
        sent = {"click_id": location.rpartition("=")[2], "txid": f"{at}{text}", "value": "1.00"}
        sent[_FIELDS[at % len(_FIELDS)]] = text
        answer = _get(connection, f"/p/{catalog.key}?{urlencode(sent)}")
        requests.append(answer.getheader("x-request-id", ""))
    connection.close()
    return [request for request in requests if request]


def _get(connection: http.client.HTTPConnection, path: str) -> http.client.HTTPResponse:
    connection.request("GET", path, headers={"Host": "127.0.0.1"})
    response = connection.getresponse()
    response.read()
    return response


def _routes(requests: Sequence[str], stories: int) -> Iterator[str]:
    yield from ("live", "overview", "networks/Shop", "campaigns/spring", "settings/audit")
    for verdict in ("accepted", "unmatched", "rejected", "held"):
        yield f"live?verdict={verdict}"
    step = max(1, len(requests) // stories)
    for request in requests[::step]:
        yield f"live?why={request}"


def _look(page: Page, figures: dict[str, Figure]) -> None:
    """Add up what one page shows of payloads, and what became of them."""
    found = page.evaluate(
        """(made) => ({ran: globalThis.__ran || 0, violations: __violations.length,
        shown: document.body.innerText.includes("__ran"), made: document.querySelectorAll(made).length})""",
        "iframe, object, embed, base, marquee, video, math, img, [onerror], [onload]",
    )
    figures["scripts run"] = int(figures["scripts run"]) + found["ran"]
    figures["violations"] = int(figures["violations"]) + found["violations"]
    figures["elements made"] = int(figures["elements made"]) + found["made"]
    figures["pages that show some"] = int(figures["pages that show some"]) + bool(found["shown"])


def _control(browser: Browser, texts: Sequence[str]) -> Control:
    """The same texts in the markup of a page without a policy."""
    with _careless(texts) as base:
        context = browser.new_context()
        context.add_init_script(_WATCH)
        page = context.new_page()
        page.goto(base)
        page.wait_for_timeout(500)
        figures: dict[str, Figure] = dict.fromkeys(_NOTHING, 0)
        _look(page, figures)
        context.close()
    return Control("a page that puts the texts into its markup", int(figures["scripts run"]) > 0, figures)


@contextmanager
def _careless(texts: Sequence[str]) -> Iterator[str]:
    safe = [text for text in texts if not text.startswith(("<base", "<meta", "<!--"))]
    body = f"<!doctype html><meta charset=utf-8><body>{'<p>'.join(safe[:300])}".encode("utf-8", "replace")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
