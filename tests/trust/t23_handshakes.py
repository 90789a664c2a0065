"""T23TLS: as T23, with challenges that are answered in handshakes (tls-alpn-01), and nothing that listens on port 80.

Beside the watcher of T23 there are strangers who offer protocols of every kind, the authority's among them: who does
not offer that one alone sees the valid certificate, whatever is pending.  Three nodes on one PostgreSQL database make
one order, whichever of them the authority asks, and renew it.

Controls: challenges chosen by the name alone; an authority that is told to look before all have seen the challenge.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.tls.pebble import PROGRAMS, Pebble
from tests.tls.site import Site
from tests.tls.test_many_nodes import SECRET_KEY, spread
from tests.trust.postgres import Database, versions
from tests.trust.registry import Control, Result, Size, need_tools, trust_test
from tests.trust.server import clean_environment, free_port, wait_until
from tests.trust.t23_acme import (
    IN_HANDSHAKES,
    NAME,
    STEPS,
    Seen,
    Watcher,
    killed_at,
    pebble_and_site,
    try_all,
    wait_first,
)

_LIFE_S = 60
"""Of certificates that are to be renewed while we look: after 40 s, and a renewal takes 3 s longer than over HTTP."""

_OFFERS = (("http/1.1",), ("h2",), ("acme-tls/1", "http/1.1"), ("h2", "acme-tls/1"))


class Strangers(threading.Thread):
    """Offer protocols of every kind, and are content with a valid certificate only."""

    def __init__(self, port: int, trust: Path) -> None:
        super().__init__(daemon=True)
        self._port, self._trust = port, trust
        self._ending = threading.Event()
        self.seen = Seen()

    def run(self) -> None:
        turn = 0
        while not self._ending.wait(0.01):
            turn += 1
            self.seen.handshakes += 1
            context = ssl.create_default_context(cafile=str(self._trust))  # which grows with each start
            context.set_alpn_protocols(list(_OFFERS[turn % len(_OFFERS)]))
            try:
                with (
                    socket.create_connection(("127.0.0.1", self._port), 20) as plain,
                    context.wrap_socket(plain, server_hostname=NAME) as secure,
                ):
                    secure.sendall(b"GET /healthz HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
                    if not secure.recv(1000).startswith(b"HTTP/1.1 200"):
                        self.seen.bad.append("not 200")
            except OSError as error:
                self.seen.bad.append(str(error))

    def __enter__(self) -> Strangers:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self.join()


@trust_test("T23TLS", "ACME by handshakes: a valid certificate in every one of the others")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    need_tools(*PROGRAMS)
    version = versions()[-1]
    rounds = size.pick(ci=1, nightly=3, release=10)
    steps = [step.replace("challenges.json", "tls-challenges.json") for step in STEPS]
    cases: list[Callable[[Path], Seen]] = [
        renewed, renewed_with_the_authority_down, port_taken, _on_nodes_of(version),
        *(killed_at(step, in_handshakes=True) for step in steps),
    ]  # fmt: skip
    seen = try_all(cases, rounds, work_dir)
    return seen.judge(_by_name_alone(work_dir / "name"), _without_a_pause(work_dir / "pause"))


# --- cases --------------------------------------------------------------------------------------------------------


def renewed(directory: Path) -> Seen:
    """Short certificates, renewed under the eyes of watcher and strangers."""
    with pebble_and_site(directory, life_s=_LIFE_S, in_handshakes=True) as (pebble, site):
        site.start()
        wait_first(site)
        with Watcher(site, pebble.roots) as watcher, Strangers(site.https_port, pebble.roots) as strangers:
            wait_until(lambda: len(watcher.shown) >= 3, 5 * _LIFE_S, "two renewals")
        modes = {path.name: path.stat().st_mode & 0o777 for path in (site.data_dir / "tls").iterdir()}
        if set(modes.values()) != {0o600}:
            watcher.seen.notes.append(f"modes {modes}")
        watcher.seen.add(strangers.seen)
        return watcher.seen


def renewed_with_the_authority_down(directory: Path) -> Seen:
    """Down at the first start, and down again when it is time to renew; what it knew is lost both times."""
    with pebble_and_site(directory, life_s=2 * _LIFE_S, in_handshakes=True) as (pebble, site):
        pebble.stop()
        site.start()
        site.wait_said("cannot reach localhost", 30)
        pebble.start()
        wait_first(site)
        with Watcher(site, pebble.roots) as watcher, Strangers(site.https_port, pebble.roots) as strangers:
            pebble.stop()
            said = site.errors.count("cannot reach localhost")
            wait_until(
                lambda: site.errors.count("cannot reach localhost") > said, 2 * _LIFE_S, "a failed renewal"
            )
            pebble.start()
            wait_until(lambda: len(watcher.shown) >= 2, 2 * _LIFE_S, "a renewal after it")
        watcher.seen.add(strangers.seen)
        return watcher.seen


def port_taken(directory: Path) -> Seen:
    """The port for https is another program's: one line says so, and nothing is asked of the authority."""
    seen = Seen()
    with pebble_and_site(directory, in_handshakes=True) as (pebble, site):
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", site.https_port))
            other.listen()
            site.launch()
            wait_until(lambda: not site.running, 20, "the end of the start")
            if "choose another --https-listen" not in site.errors or pebble.count("POST "):
                seen.notes.append(f"said {site.errors[-200:]!r}")
        site.start()
        wait_first(site)
    return seen


def _on_nodes_of(version: int) -> Callable[[Path], Seen]:
    def nodes_of_one_database(directory: Path) -> Seen:
        """Three nodes behind a balancer of bytes; one of them is started anew in between."""
        directory.mkdir()
        with ExitStack() as stack:
            database = stack.enter_context(Database(version))
            env = {"POSTBACKD_STORE": database.address, "POSTBACKD_SECRET_KEY": SECRET_KEY}
            nodes = [
                Site(directory / f"node{number}", [], env=env, role="ingest", plain=False)
                for number in range(3)
            ]
            tls_port, used = stack.enter_context(spread([node.https_port for node in nodes]))
            pebble = stack.enter_context(
                Pebble(directory / "pebble", free_port(), life_s=_LIFE_S, tls_port=tls_port)
            )
            for node in nodes:
                stack.callback(node.kill)
                node.options = ["--domain", NAME, *pebble.options, *IN_HANDSHAKES]
                node.start()
            for node in nodes:
                wait_first(node)
            watchers = [stack.enter_context(Watcher(node, pebble.roots)) for node in nodes[:2]]
            strangers = stack.enter_context(Strangers(nodes[0].https_port, pebble.roots))
            nodes[2].restart()
            wait_until(lambda: all(len(one.shown) >= 3 for one in watchers), 5 * _LIFE_S, "two renewals")
            orders = pebble.orders
        seen = Seen(notes=[] if orders == 3 else [f"{orders} orders"])
        if len(set(used)) < 2:
            seen.notes.append("one node was asked only")
        for found in (*(watcher.seen for watcher in watchers), strangers.seen):
            seen.add(found)
        return seen

    return nodes_of_one_database


# --- controls ------------------------------------------------------------------------------------------------------

_BY_NAME_ALONE = """
from postbackd.tls.handshake import Observed
Observed._look = lambda self, incoming: setattr(self, "asks", True)
"""

_WITHOUT_A_PAUSE = """
from postbackd.tls import issuance
issuance.SEEN_S = 0.0
"""


def _with_fault(site: Site, directory: Path, fault: str) -> None:
    """Let every process of the server begin by executing this."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(fault)
    site.env = {"PYTHONPATH": f"{directory}:{clean_environment()['PYTHONPATH']}"}


def _by_name_alone(directory: Path) -> Control:
    """Whoever names the domain is taken for the authority while a challenge is pending: the watcher must notice."""
    with pebble_and_site(directory, life_s=_LIFE_S, in_handshakes=True) as (pebble, site):
        _with_fault(site, directory / "fault", _BY_NAME_ALONE)
        site.start()
        wait_until(lambda: pebble.count("Issued certificate"), 60, "a first certificate")
        wait_first(site)
        with Strangers(site.https_port, pebble.roots) as strangers:
            wait_until(lambda: strangers.seen.bad, 2 * _LIFE_S, "what strangers miss")
    bad = len(strangers.seen.bad)
    return Control("a challenge for whoever names the domain", bad > 0, {"bad handshakes": bad})


def _without_a_pause(directory: Path) -> Control:
    """The authority looks at once, and the process that is asked has not seen the challenge yet."""
    with pebble_and_site(directory, in_handshakes=True) as (_, site):
        _with_fault(site, directory / "fault", _WITHOUT_A_PAUSE)
        site.start()
        wait_until(
            lambda: site.shown() or "no new certificate for" in site.errors, 60, "a certificate or a failure"
        )
        refused = "no new certificate for" in site.errors
    return Control("an authority that looks at once", refused)
