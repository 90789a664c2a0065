"""A real server over https, with a network that signs beside one that does not."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from postbackd.cli.main import root
from tests.tls.issuer import Issuer
from tests.tls.site import Site

NAME = "localhost"


@dataclass(frozen=True)
class Tracker:
    """What whoever sends to it has to know, and what it says of itself."""

    site: Site
    slug: str
    trust: Path
    """The file of the authority that signed its certificate."""
    url: str
    signed_url: str
    secret: str

    @property
    def stranger(self) -> str:
        """A postback URL with a key that nobody has."""
        return f"{self.url[:-1]}{'0' if self.url[-1] != '0' else '1'}"

    @property
    def plain_url(self) -> str:
        """The same network's URL without TLS."""
        return f"http://127.0.0.1:{self.site.port}/p/{self.url.rpartition('/')[2]}"

    def click(self) -> str:
        """A new click id."""
        connection = http.client.HTTPConnection("127.0.0.1", self.site.port, timeout=20)
        connection.request("GET", f"/c/{self.slug}")
        location = connection.getresponse().getheader("Location") or ""
        connection.close()
        return location.rpartition("=")[2]

    def logged(self, click_id: str) -> list[str]:
        """The verdicts of the requests that named a click, the oldest first."""
        rows = ask(self.site.data_dir, "log", "--click", click_id)
        return [row["verdict"] for row in reversed(rows)]


def ask(data: Path, *words: str) -> Any:
    """What a command says in JSON; run in this process, because a test asks often."""
    done = CliRunner().invoke(root, [*words, "--json", "--data", str(data)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@contextmanager
def tracker(directory: Path) -> Iterator[Tracker]:
    """The server, running."""
    data = directory / "data"
    network = ask(data, "network", "add", "Shop")
    signs = ask(data, "network", "add", "Signs", "--signature", "hmac", "--enforce", "signature")
    ask(data, "source", "add", "Ads")
    url = "https://shop.example/?sub1={click_id}"
    ask(data, "offer", "add", "Shoes", "--network", "Shop", "--url", url)
    campaign = ask(data, "campaign", "add", "Spring", "--source", "Ads", "--offer", "Shoes")
    issuer = Issuer()
    certificate, key = issuer.make(NAME)
    files = {"cert.pem": certificate, "key.pem": key, "root.pem": issuer.root}
    for name, text in files.items():
        (directory / name).write_bytes(text)
    options = ["--cert", str(directory / "cert.pem"), "--key", str(directory / "key.pem")]
    site = Site(data, options, role="ingest")
    try:
        site.start()
        base = f"https://{NAME}:{site.https_port}/p/"
        trust = directory / "root.pem"
        urls = f"{base}{network['key']}", f"{base}{signs['key']}"
        yield Tracker(site, campaign["slug"], trust, *urls, signs["signing_secret"])
    finally:
        site.kill()
