"""People whose traces are searched for: marker strings in every field that a sender can fill, and the search."""

from __future__ import annotations

import http.server
import json
import random
import string
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.trust.server import Catalog, Server, run_cli

_SAID = "source={source_click_id}&click={click_id}&a={sub1}&b={sub2}&tx={transaction_id}"


@contextmanager
def echo() -> Iterator[int]:
    """A target on a port of its own that answers with what it is told, so that attempts hold it too."""

    class Echo(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = urllib.parse.unquote(self.path).encode()[:4000]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def add_target(data_dir: Path, env: Mapping[str, str], port: int) -> None:
    """A rule by which the echo is told of every approved conversion."""
    url = f"http://127.0.0.1:{port}/?{_SAID}"
    for words in (
        ("target", "add", "Echo", "--url", url),
        ("rule", "add", "Tell", "--target", "Echo", "--source", "Ads"),
    ):
        done = run_cli(data_dir, *words, env=env)
        if done.returncode:
            raise RuntimeError(f"postbackd {' '.join(words[:2])}: {done.stderr.strip()}")


_LONGEST = 255
"""Characters of a click's parameter."""


@dataclass
class Person:
    """One visitor, and what was told of them."""

    mark: str
    wordy: bool
    """Whether the parameters of their clicks are as long as they may be: such a row goes on in overflow pages."""
    ids: list[str] = field(default_factory=list)
    """``--click-id`` of their clicks."""
    conversions: list[tuple[str, str]] = field(default_factory=list)
    """(parameters of the postback, id of the conversion)."""

    @property
    def pattern(self) -> bytes:
        return self.mark.encode()

    def say(self, name: str) -> str:
        """What stands in one parameter: the mark, again and again where there is room, so that any part tells."""
        return f"{self.mark}{name}" + (f"{'語' * 60}{self.mark}" * 4)[: _LONGEST - 20] * self.wordy


def make_person(draw: random.Random) -> Person:
    """Every second one has much to say."""
    return Person("Zz" + "".join(draw.choices(string.ascii_letters, k=14)), draw.random() < 0.5)


def visit(server: Server, catalog: Catalog, person: Person) -> None:
    """A visit, a click registered under an own id, sales, changes, and requests that cannot be used."""
    mark = person.mark
    subs = "&".join(f"sub{number}={mark}s{number}" for number in range(1, 11))
    click_id = _redirect(server, f"/c/{catalog.slug}?source_click_id={mark}src&{subs}").partition("sub1=")[2][
        :26
    ]
    own_id = f"{mark}own"
    told = {"click_id": own_id, "source_click_id": person.say("osrc")}
    told |= {f"sub{number}": person.say(f"o{number}") for number in range(1, 11)}
    body = json.dumps(told)
    _post(server, f"/c/{catalog.slug}", body)
    person.ids += [click_id, own_id]
    for click, name in ((click_id, "tx"), (own_id, "otx")):
        said = f"click_id={click}&txid={mark}{name}&value=5&time=1600000000"
        person.conversions.append((said, postback(server, catalog, f"{said}&status=pending")["conversion"]))
        postback(server, catalog, f"{said}&status=approved")
        postback(server, catalog, f"click_id={click}&txid={mark}bad&value={mark}val&status={mark}st")
    postback(server, catalog, f"click_id={mark}unknown&txid={mark}utx&value=1")


def postback(server: Server, catalog: Catalog, query: str) -> dict[str, str]:
    document: dict[str, str] = json.loads(_get(server, f"/p/{catalog.key}?{query}"))
    return document


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _redirect(server: Server, path: str) -> str:
    opener = urllib.request.build_opener(_Stay)
    try:
        opener.open(f"http://{server.host}:{server.port}{path}", timeout=10)
    except urllib.error.HTTPError as answer:
        return str(answer.headers["location"])
    raise RuntimeError("no redirect")


def _get(server: Server, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{server.host}:{server.port}{path}", timeout=10) as answer:
        return bytes(answer.read())


def _post(server: Server, path: str, body: str) -> None:
    request = urllib.request.Request(
        f"http://{server.host}:{server.port}{path}", body.encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()


def hits(directory: Path, person: Person, without: tuple[str, ...] = ()) -> dict[str, int]:
    """File -> how often the mark stands in it, byte by byte, in either case."""
    found = {}
    wanted = person.pattern.lower()
    for path in sorted(directory.rglob("*")):
        if not path.is_file() or any(part in without for part in path.relative_to(directory).parts):
            continue
        try:
            count = path.read_bytes().lower().count(wanted)
        except OSError:
            continue  # it has just gone
        if count:
            found[str(path.relative_to(directory))] = count
    return found
