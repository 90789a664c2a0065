"""T23: certificates by ACME against Debian's pebble, which refuses half of all good nonces, and against worse.

From the first certificate on, every handshake is shown a valid one, and no connection that is open is dropped: through
renewals, with the authority down, with limits, with a full disk, with a wrong clock, and with the keeper killed at each
of its steps.  A watcher makes verified connections all the while.

Controls: a client that does not try again with another nonce; a new certificate that is shown by starting again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from unittest import mock

from postbackd.store.shelf import FileShelf
from postbackd.tls import authority
from postbackd.tls.authority import Refused
from postbackd.tls.call import Caller
from postbackd.tls.documents import Plan
from postbackd.tls.issuance import Issuance
from tests.tls.pebble import PROGRAMS, Pebble
from tests.tls.scripted import problem, running
from tests.tls.site import Site, Visitor
from tests.trust.disks import small_disk
from tests.trust.registry import Control, Figure, Result, Size, need_root, need_tools, trust_test
from tests.trust.server import free_port, run_cli, wait_until

NAME = "a.example"

DOCUMENTS = ("account", "order.json", "order.json:2", "challenges.json", "certificate.pem")

STEPS = (
    *(f"shelf_{when}_{document}" for document in DOCUMENTS for when in ("before", "after")),
    *("acme_registered", "acme_ordered", "acme_accepted", "acme_finalized", "acme_fetched"),
)
"""Where the keeper is killed.  The second time that the order is kept, its address is known."""

_LOST_ORDER = ("acme_ordered", "shelf_before_order.json:2", "acme_accepted")
"""Another order is made: killed between the authority's answer and the note of it, which is the one gap; or while the
authority looked for our answer to its challenge."""

IN_HANDSHAKES = ("--acme-challenge", "tls-alpn-01")

_FIRST_S = 60.0
"""What a first certificate may take on a machine that others use too."""

_LIFE_S = 45
"""Of certificates that are to be renewed while we look: after 30 s."""


@dataclass
class Seen:
    """What the watchers of one case saw."""

    handshakes: int = 0
    bad: list[str] = field(default_factory=list)
    dropped: int = 0
    renewals: int = 0
    kills: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        self.handshakes += other.handshakes
        self.bad += other.bad
        self.dropped += other.dropped
        self.renewals += other.renewals
        self.kills += other.kills
        self.notes += other.notes

    def judge(self, *controls: Control) -> Result:
        """What all of it says."""
        figures: dict[str, Figure] = {
            "n": self.handshakes,
            "bad handshakes": len(self.bad),
            "dropped": self.dropped,
            "renewals": self.renewals,
            "kills": self.kills,
        }
        passed = not (self.bad or self.dropped or self.notes) and self.renewals > 0 and self.handshakes > 0
        return Result(passed, figures, controls, "; ".join([*self.bad[:3], *self.notes[:8]]))


class Watcher(threading.Thread):
    """Makes verified connections without end, and keeps one of them open."""

    def __init__(self, site: Site, trust: Path) -> None:
        super().__init__(daemon=True)
        self._port, self._trust = site.https_port, trust
        self._ending = threading.Event()
        self.seen = Seen()
        self.shown: list[str] = []
        """The certificates, in the order in which they were first shown."""

    def run(self) -> None:
        with Visitor(self._port, NAME, self._trust) as old:
            while not self._ending.wait(0.005):
                self._look()
                self._ask(old)

    def _look(self) -> None:
        self.seen.handshakes += 1
        try:
            with Visitor(self._port, NAME, self._trust) as visitor:
                if visitor.ask()[0] != 200:
                    self.seen.bad.append("not 200")
                if visitor.fingerprint not in self.shown:
                    self.shown.append(visitor.fingerprint)
        except OSError as error:
            self.seen.bad.append(str(error))

    def _ask(self, old: Visitor) -> None:
        if self.seen.dropped:
            return
        try:
            old.ask()
        except OSError:
            self.seen.dropped += 1

    def __enter__(self) -> Watcher:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self.join()
        self.seen.renewals = max(0, len(self.shown) - 1)


@contextmanager
def pebble_and_site(
    directory: Path, *, life_s: int = 90 * 86_400, in_handshakes: bool = False
) -> Iterator[tuple[Pebble, Site]]:
    """An authority that runs, and a server that was not started yet.

    ``in_handshakes``: challenges are answered there, and nothing listens for plain http.
    """
    directory.mkdir(parents=True)
    site = Site(directory / "data", ["--domain", NAME], plain=not in_handshakes)
    pebble = Pebble(directory / "pebble", site.http_port, life_s=life_s, tls_port=site.https_port)
    site.options += [*pebble.options, *(IN_HANDSHAKES if in_handshakes else ())]
    pebble.start()
    try:
        yield pebble, site
    finally:
        site.kill()
        pebble.stop()


def wait_first(site: Site) -> None:
    wait_until(site.shown, _FIRST_S, f"a first certificate ({site.stderr_tail(3)})")


@trust_test("T23", "ACME: a valid certificate in every handshake")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    need_tools(*PROGRAMS, "faketime")
    need_root("fills a small file system")
    rounds = size.pick(ci=1, nightly=5, release=20)
    cases: list[Callable[[Path], Seen]] = [
        renewed, renewed_with_the_authority_down, limited, port_taken, disk_full, clock_wrong, suggested,
        *(killed_at(step) for step in STEPS),
    ]  # fmt: skip
    seen = try_all(cases, rounds, work_dir)
    return seen.judge(_without_another_nonce(work_dir / "nonce"), _by_starting_again(work_dir / "again"))


def try_all(cases: Sequence[Callable[[Path], Seen]], rounds: int, work_dir: Path) -> Seen:
    """Every case so many times, three of them at a time."""
    seen = Seen()
    for number in range(rounds):
        with ThreadPoolExecutor(3) as pool:
            places = [work_dir / f"{number}-{index}" for index in range(len(cases))]
            for found in pool.map(noted, cases, places):
                seen.add(found)
    return seen


def noted(case: Callable[[Path], Seen], place: Path) -> Seen:
    name = getattr(case, "__name__", str(case))
    try:
        found = case(place)
    except (TimeoutError, OSError) as error:
        return Seen(notes=[f"{name}: {error}"])
    found.notes = [f"{name}: {note}" for note in found.notes]
    if not (found.bad or found.dropped or found.notes):
        shutil.rmtree(place, ignore_errors=True)
    return found


# --- cases --------------------------------------------------------------------------------------------------------


def renewed(directory: Path) -> Seen:
    """Short certificates, renewed under the eyes of the watcher."""
    with pebble_and_site(directory, life_s=_LIFE_S) as (pebble, site):
        site.start()
        wait_first(site)
        with Watcher(site, pebble.roots) as watcher:
            wait_until(lambda: len(watcher.shown) >= 3, 5 * _LIFE_S, "two renewals")
        modes = {path.name: path.stat().st_mode & 0o777 for path in (site.data_dir / "tls").iterdir()}
        if set(modes.values()) != {0o600}:
            watcher.seen.notes.append(f"modes {modes}")
        return watcher.seen


def renewed_with_the_authority_down(directory: Path) -> Seen:
    """Down at the first start, and down again when it is time to renew; what it knew is lost both times."""
    with pebble_and_site(directory, life_s=2 * _LIFE_S) as (pebble, site):
        pebble.stop()
        site.start()
        site.wait_said("cannot reach localhost", 30)
        seen = Seen()
        if site.shown():
            seen.notes.append("a certificate without an authority")
        if site.ask_plain("/healthz")[0] != 200:
            seen.notes.append("port 80 did not answer")
        pebble.start()
        wait_first(site)
        with Watcher(site, pebble.roots) as watcher:
            pebble.stop()
            said = site.errors.count("cannot reach localhost")
            wait_until(
                lambda: site.errors.count("cannot reach localhost") > said, 2 * _LIFE_S, "a failed renewal"
            )
            pebble.start()
            wait_until(lambda: len(watcher.shown) >= 2, 2 * _LIFE_S, "a renewal after it")
        seen.add(watcher.seen)
        return seen


def limited(directory: Path) -> Seen:
    """429 with Retry-After: nothing is asked until then, nor after a restart; the operator can try at once."""
    seen = Seen()
    with running(directory / "authority") as (scripted, root):
        scripted.faults["new"] = lambda: problem("rateLimited", 429, Retry_After="3600")
        options = ["--domain", NAME, "--acme-directory", f"{scripted.base}/dir", "--acme-ca-file", str(root)]
        with Site(directory / "data", options) as site:
            site.wait_said("rateLimited", 30)
            asked = scripted.asked.total()
            site.restart()
            doctor = run_cli(site.data_dir, "doctor").stdout
            if "rateLimited" not in doctor or "--acme-directory staging" not in doctor:
                seen.notes.append("the doctor does not tell")
            threading.Event().wait(3)  # a time in which nothing shall happen
            if scripted.asked.total() != asked:
                seen.notes.append(f"asked {scripted.asked.total() - asked} times more")
            scripted.faults.clear()
            run_cli(site.data_dir, "certificates", "--try-now", "--domain", NAME)
            wait_first(site)
            with Watcher(site, root) as watcher:
                wait_until(lambda: watcher.seen.handshakes > 20, 30, "handshakes")
        seen.add(watcher.seen)
    return seen


def port_taken(directory: Path) -> Seen:
    """Port 80 is another program's: one line says so, and nothing is asked of the authority."""
    seen = Seen()
    with pebble_and_site(directory) as (pebble, site):
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", site.http_port))
            other.listen()
            site.launch()
            wait_until(lambda: not site.running, 20, "the end of the start")
            if "choose another --http-listen" not in site.errors or pebble.count("POST "):
                seen.notes.append(f"said {site.errors[-200:]!r}")
        site.start()
        wait_first(site)
        with Watcher(site, pebble.roots) as watcher:
            wait_until(lambda: watcher.seen.handshakes > 20, 30, "handshakes")
        seen.add(watcher.seen)
    return seen


def disk_full(directory: Path) -> Seen:
    """No room for a certificate's documents: nothing is ordered whose key could not be kept; then there is room."""
    seen = Seen()
    with pebble_and_site(directory) as (pebble, site), small_disk(directory / "small", 1) as disk:
        site.data_dir.mkdir(mode=0o700)
        (site.data_dir / "tls").symlink_to(disk)
        _fill(disk / "filler")
        site.start()
        site.wait_said("No space left", 30)
        if pebble.orders:
            seen.notes.append("ordered without room for the key")
        (disk / "filler").unlink()
        wait_first(site)
        _fill(disk / "filler")
        with Watcher(site, pebble.roots) as watcher:
            wait_until(lambda: watcher.seen.handshakes > 20, 30, "handshakes")
        seen.add(watcher.seen)
        site.kill()
    return seen


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def clock_wrong(directory: Path) -> Seen:
    """Our clock is ten years ahead: one certificate, shown, and no second one a moment later."""
    seen = Seen()
    with running(directory / "authority") as (scripted, root):
        options = ["--domain", NAME, "--acme-directory", f"{scripted.base}/dir", "--acme-ca-file", str(root)]
        site = Site(directory / "data", options, prefix=["faketime", "-f", "+3650d"],
                    env={"FAKETIME_DONT_FAKE_MONOTONIC": "1"})  # fmt: skip
        try:
            site.start()
            wait_first(site)
            site.wait_said("set the clock", 30)
            with Watcher(site, root) as watcher:
                wait_until(lambda: watcher.seen.handshakes > 100, 30, "handshakes")
            seen.add(watcher.seen)
        finally:
            site.kill()
        if len(scripted.orders) != 1:
            seen.notes.append(f"{len(scripted.orders)} orders")
    return seen


def suggested(directory: Path) -> Seen:
    """The authority suggests to renew at once, as before it revokes."""
    seen = Seen()
    with running(directory / "authority") as (scripted, root):
        scripted.suggests = True
        scripted.window = (time.time() - 7200, time.time() - 3600)
        renewed_once = iter([True])

        def look() -> None:
            """The first certificate is to go, the second may stay."""
            if next(renewed_once, False):
                return
            scripted.window = (time.time() + 86_400, time.time() + 90_000)

        scripted.faults["ari"] = look
        options = ["--domain", NAME, "--acme-directory", f"{scripted.base}/dir", "--acme-ca-file", str(root)]
        with Site(directory / "data", options) as site:
            wait_first(site)
            with Watcher(site, root) as watcher:
                wait_until(lambda: len(scripted.orders) >= 2, 60, "a second order")
                wait_until(
                    lambda: watcher.shown and watcher.shown[-1] == site.shown(), 30, "the new certificate"
                )
            seen.add(watcher.seen)
        if "replaces" not in scripted.orders[1]:
            seen.notes.append("the order does not say what it replaces")
    return seen


def killed_at(step: str, *, in_handshakes: bool = False) -> Callable[[Path], Seen]:
    """Everything is killed when the keeper has killed itself at the step; the next start goes on."""

    def killed(directory: Path) -> Seen:
        seen = Seen()
        with pebble_and_site(directory, in_handshakes=in_handshakes) as (pebble, site):
            point = step.replace("_account", f"_{Plan(pebble.url, [NAME]).account_name}")
            site.env = {"POSTBACKD_FAILPOINT": point}
            site.start()
            (first,) = _wait_keeper(site)
            wait_until(lambda: first not in site.role_pids("certificates"), 30, "the death of the keeper")
            seen.kills += 1
            site.kill()
            site.env = {}
            before = pebble.orders
            site.start()
            wait_first(site)
            with Watcher(site, pebble.roots) as watcher:
                wait_until(lambda: watcher.seen.handshakes > 20, 30, "handshakes")
            seen.add(watcher.seen)
            most = before + (1 if before == 0 or step in _LOST_ORDER else 0)
            if pebble.orders > most:
                seen.notes.append(f"{pebble.orders} orders")
            left = {path.name.removesuffix(".new") for path in (site.data_dir / "tls").iterdir()}
            left -= {"certificate.pem", "renewal.json", "lock"}
            if any(not name.startswith("account-") for name in left) and "after_certificate" not in step:
                seen.notes.append(f"left {left}")
        return seen

    killed.__name__ = f"killed at {step}"
    return killed


def _wait_keeper(site: Site) -> list[int]:
    """The process of the certificates role, which may be dead already and started again."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = site.role_pids("certificates")
        return len(found) == 1

    wait_until(is_there, 20, "the certificates role")
    return found


# --- controls ------------------------------------------------------------------------------------------------------


def _without_another_nonce(directory: Path) -> Control:
    """The same client with one try for each request: an authority that refuses half of the nonces defeats it."""
    directory.mkdir()
    refused = 0
    with Pebble(directory / "pebble", free_port(), env={"PEBBLE_VA_ALWAYS_VALID": "1"}) as pebble:

        async def ask(place: Path) -> None:
            shelf = FileShelf(place)
            await shelf.hold()
            try:
                await Issuance(shelf, Plan(pebble.url, [NAME]), Caller(str(pebble.ca_file))).run()
            finally:
                await shelf.close()

        with mock.patch.object(authority, "MOST_NONCES_TRIED", 1):
            for number in range(3):
                try:
                    asyncio.run(ask(directory / str(number)))
                except Refused as error:
                    refused += error.problem.type == "badNonce"
    # Now and then all the nonces of an order are lucky ones.
    return Control("a client that does not try another nonce", refused > 0, {"refused of 3": refused})


def _by_starting_again(directory: Path) -> Control:
    """A server that shows a new certificate by being stopped and started: the watcher must notice."""
    with pebble_and_site(directory) as (pebble, site):
        site.start()
        wait_first(site)
        with Watcher(site, pebble.roots) as watcher:
            wait_until(lambda: watcher.seen.handshakes > 20, 30, "handshakes")
            os.killpg(site.pid, signal.SIGKILL)
            wait_until(lambda: watcher.seen.dropped and watcher.seen.bad, 30, "what the watcher misses")
            site.restart()
    figures: dict[str, Figure] = {"bad handshakes": len(watcher.seen.bad), "dropped": watcher.seen.dropped}
    return Control(
        "a new certificate by starting again", bool(watcher.seen.bad and watcher.seen.dropped), figures
    )
