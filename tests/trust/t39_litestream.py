"""T39: the database is replicated by Litestream while Litestream, the server and the disk of the replica fail.

What was acknowledged before Litestream last said that its replica was in step must be in what is restored from it,
once; ``postbackd verify`` finds nothing there, and a server that starts on it gives no click id out again.  Meanwhile
the log stays short, and no sender is refused.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from postbackd.store.checkpoint import REPLICATED_PAGES
from tests.trust.corpus.flow import percentile
from tests.trust.disks import small_disk
from tests.trust.ledger import CLICK, Ledger
from tests.trust.litestream import Failed, Litestream, find_litestream, lose_a_segment, read_log
from tests.trust.load import Load, Mix
from tests.trust.oracle import DATABASE, Tally, check
from tests.trust.promised import Promised
from tests.trust.registry import Control, Figure, Result, Size, Skip, trust_test
from tests.trust.server import Catalog, Server, make_catalog, run_cli

_MIX = Mix(own_clicks=0.0)
"""An own click id that is acknowledged later would be needed to judge rows that are in the replica already."""

_PAUSE_S = 0.01
"""Of a connection after a group: about 2,000 requests a second."""

_SETTINGS = {"POSTBACKD_BUSY_TIMEOUT_MS": "5000", "POSTBACKD_CHECKPOINT_PAGES": "600"}
"""Litestream takes the write lock now and then; and the log starts over often, which is what it has to notice."""

_MEASURED = 2_000
_COPIES = 10
_ATTEMPTS = 10
"""Of the control: on a busy machine Litestream may come back when the new log is longer than the old, and notices."""

_REPLICA_MB = 256
_MOST_LOG_MB = 64
"""Litestream copies the log when a second has passed and 1,000 pages (4 MB) are in it."""


class _Site:
    """A server, a Litestream beside it, and what was promised."""

    def __init__(self, work_dir: Path, replica: Path, seed: int) -> None:
        self.work_dir, self.replica = work_dir, replica
        self.data = work_dir / "data"
        self.catalog = make_catalog(self.data)
        self.litestream = Litestream(self.data, replica / "postbackd", work_dir)
        self.server = Server(self.data, env=_SETTINGS)
        self.ledger = Ledger(work_dir / "ledger")
        self.draw = random.Random(seed)
        self.tally, self.figures, self.notes = Tally(), Counter[str](), list[str]()
        self.log_mb = 0.0
        self._restored: list[tuple[Promised, Path]] = []
        self._seed, self._loads = seed, 0

    def load(self, pause_s: float = _PAUSE_S, limit: int = 1_000_000_000) -> Load:
        self._loads += 1
        return Load(
            self.server, self.catalog, self.ledger,
            seed=self._seed + self._loads, mix=_MIX, pause_s=pause_s, prefix=f"n{self._loads}", limit=limit,
        )  # fmt: skip

    def restore(self, after: str) -> None:
        """Sync, and restore what that promises; judged by ``settle``, when no load runs."""
        promised = Promised(self.ledger)
        try:
            self.litestream.sync()
            directory = self.work_dir / f"restored{self.figures['restored']}_after_{after}"
            self.litestream.restore(directory / DATABASE)
        except Failed as error:
            self.notes.append(str(error))
            raise
        self.figures["restored"] += 1
        self._restored.append((promised, directory))

    def settle(self, purged_before_ms: int = 0) -> None:
        """Judge all that was restored since the last time."""
        for promised, directory in self._restored:
            if purged_before_ms:
                self.tally.add(check(self.ledger, directory / DATABASE, purged_before_ms))
            else:
                self.tally.add(promised.judge(self.ledger, directory / DATABASE, self.work_dir / "promised"))
            done = run_cli(directory, "verify")
            if done.returncode:
                self.notes.append(f"verify of {directory.name}: {(done.stdout + done.stderr)[-200:]}")
            shutil.rmtree(directory)
        self._restored.clear()


@trust_test("T39", "replicated by Litestream: it, the server and the disk of the replica fail", alone=True)
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """All that was promised by a sync is in what is restored; the log short, no sender refused but by a dead server."""
    find_litestream()
    with _place_for_the_replica(work_dir) as replica:
        site = _Site(work_dir, replica, seed)
        with site.server, site.ledger, _killed_at_the_end(site), _watched(site):
            figures: dict[str, Figure] = _measure(site)
            for _ in range(size.pick(2, 25, 150)):
                _play(site)
            copied = _copy_the_file(site)
            _purge(site)
            _start_from_the_replica(site)
            site.tally.add(check(site.ledger, site.data / DATABASE, int(time.time() * 1000)))
            refused = _without_a_segment(site)
            _erase(site)
        controls = (
            Control("cp of the database file, under load", not copied.clean, copied.figures),
            Control("a replica without one of its files", bool(refused), {"refused": refused}),
            _log_in_place(work_dir / "in_place", seed),
        )
    if site.log_mb > _MOST_LOG_MB:
        site.notes.append(f"the log grew to {site.log_mb:.0f} MB")
    figures |= site.tally.figures | dict(site.figures) | {"longest log MB": round(site.log_mb, 1)}
    note = "; ".join([*site.notes[:5], *([site.tally.note] if site.tally.note else [])])
    return Result(site.tally.clean and not site.notes, figures, controls, note)


# --- around it ---------------------------------------------------------------------------------------------------


@contextmanager
def _place_for_the_replica(work_dir: Path) -> Iterator[Path]:
    """A disk of its own, where this machine lets us mount one."""
    try:
        disk = small_disk(work_dir / "disk", _REPLICA_MB)
        path = disk.__enter__()
    except Skip:
        (work_dir / "disk").mkdir(exist_ok=True)
        yield work_dir / "disk"
        return
    try:
        yield path
    finally:
        disk.__exit__(None, None, None)


@contextmanager
def _killed_at_the_end(site: _Site) -> Iterator[None]:
    try:
        yield
    finally:
        site.litestream.kill()


@contextmanager
def _watched(site: _Site) -> Iterator[None]:
    """Notes how long the log gets."""
    log, ended = site.data / f"{DATABASE}-wal", threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            try:
                site.log_mb = max(site.log_mb, log.stat().st_size / 2**20)
            except OSError:  # a server that stopped has removed it
                continue

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


def _measure(site: _Site) -> dict[str, Figure]:
    """What a sender waits for a group of four, without Litestream and beside it."""
    figures: dict[str, Figure] = {}
    for name in ("without", "beside"):
        if name == "beside":
            site.litestream.start()
        with site.load() as load:
            load.wait_acknowledged(_MEASURED)
            load.waits.clear()
            load.wait_acknowledged(2 * _MEASURED)
        figures[f"p99 ms {name}"] = round(1000 * percentile(list(load.waits), 0.99), 1)
        if load.unanswered or load.statuses[503]:
            site.notes.append(f"{name}: {load.unanswered} unanswered, {load.statuses[503]} refused")
    return figures


# --- what goes wrong ---------------------------------------------------------------------------------------------


def _play(site: _Site) -> None:
    """Each trouble once, in some order, under load; after each of them a restore."""
    troubles: list[Callable[[_Site, Load], None]] = [
        _kill_litestream, _kill_server, _kill_both, _stop_both, _restart_server, _fill, _look_beside,
    ]  # fmt: skip
    site.draw.shuffle(troubles)
    with site.load() as load:
        for trouble in troubles:
            load.wait_acknowledged(site.draw.randrange(100, 600))
            load.must_answer = trouble in (_kill_litestream, _fill, _look_beside)
            trouble(site, load)
            name = trouble.__name__.lstrip("_")
            site.figures[name] += 1
            load.must_answer = True
            load.wait_acknowledged(100)
            site.restore(name)
    if load.unanswered:
        site.notes.append(f"{load.unanswered} requests were not answered by a server that was there")
    longest = site.log_mb
    let_the_log_start_over(
        site.server, site.litestream, lambda requests: site.load(0, requests), REPLICATED_PAGES
    )
    site.log_mb = longest
    site.figures["log_started_over"] += 1
    site.restore("log_started_over")
    site.settle()


def _kill_litestream(site: _Site, load: Load) -> None:
    site.litestream.kill()
    load.wait_acknowledged(site.draw.randrange(50, 1500))
    site.litestream.start()


def _kill_server(site: _Site, load: Load) -> None:
    site.server.kill()
    site.server.start()


def _kill_both(site: _Site, load: Load) -> None:
    ends = [site.litestream.kill, site.server.kill]
    site.draw.shuffle(ends)
    for end in ends:
        end()
    begins: list[Callable[[], object]] = [site.litestream.start, site.server.start]
    site.draw.shuffle(begins)
    for begin in begins:
        begin()


def _stop_both(site: _Site, load: Load) -> None:
    """As a machine does that is shut down: whoever is last closes the log, or not."""
    site.litestream.stop()
    site.server.stop()
    site.server.start()
    load.wait_acknowledged(site.draw.randrange(50, 600))
    site.litestream.start()


def _restart_server(site: _Site, load: Load) -> None:
    site.server.stop()
    site.server.start()


def _fill(site: _Site, load: Load) -> None:
    """The disk of the replica is full for a while."""
    if not site.replica.is_mount():
        site.figures["disk_not_mounted"] += 1
        return
    other = site.replica / "other"
    with suppress(OSError), other.open("wb") as file:
        while True:
            file.write(bytes(site.draw.randrange(1, 200_000)))
            file.flush()
    load.wait_acknowledged(site.draw.randrange(300, 900))
    try:
        site.litestream.sync(2)
        site.notes.append("a sync to a full disk was called done")
    except Failed:
        pass
    other.unlink()


def _look_beside(site: _Site, load: Load) -> None:
    """What an operator does at the same time."""
    target = site.work_dir / "backups"
    target.mkdir(exist_ok=True)
    for command in (["verify"], ["backup", "--backup-dir", str(target)]):
        done = run_cli(site.data, *command, timeout_s=120)
        if done.returncode:
            site.notes.append(f"{command[0]} beside Litestream: {done.stderr.strip()[-200:]}")
    shutil.rmtree(target)


def let_the_log_start_over(
    server: Server, litestream: Litestream, load: Callable[[int], Load], pages: int
) -> None:
    """While Litestream is down: rows behind what it has read, then a new log that is shorter than that was.

    ``load``: sends so many requests, and ends.  ``pages``: after how many the server starts the log over.
    """

    def send(requests: int) -> None:
        with load(requests) as sending:
            sending.wait_end(120)

    while read_log(litestream.database).frames < 450:
        send(100)
    litestream.sync()
    litestream.kill()
    before = read_log(litestream.database)
    while (log := read_log(litestream.database)).salts == before.salts:
        send(1_000 if log.frames < pages - 4_000 else 100)
    litestream.start()
    send(100)


# --- the end -----------------------------------------------------------------------------------------------------


def _copy_the_file(site: _Site) -> Tally:
    """The control: what somebody does who does not know of the log."""
    copied, copies = Tally(), []
    with site.load() as load:
        for number in range(_COPIES):
            load.wait_acknowledged(37)
            copies.append((Promised(site.ledger), site.work_dir / f"copied{number}.db"))
            shutil.copyfile(site.data / DATABASE, copies[-1][1])
    for promised, copy in copies:
        copied.add(promised.judge(site.ledger, copy, site.work_dir / "promised"))
        copy.unlink()
    return copied


def _purge(site: _Site) -> None:
    """Clicks and log rows go beside Litestream, and are gone in the replica."""
    done = run_cli(site.data, "purge", "--before", "1s", "--yes", timeout_s=120)
    if done.returncode:
        site.notes.append(f"purge: {done.stderr.strip()[-300:]}")
    site.restore("purge")
    site.settle(int(time.time() * 1000))


def _erase(site: _Site) -> None:
    """Erased while Litestream is stopped, as the guide says; what is restored afterwards does not hold it."""
    with site.load(limit=300) as load:
        load.wait_end(60)
    entry = next(entry for entry in reversed(site.ledger.entries.values()) if entry.order.kind == CLICK)
    click, ref = entry.acknowledged[0].click_id, entry.order.ref.encode()
    there = ref in (site.data / f"{DATABASE}-wal").read_bytes()
    site.litestream.stop()
    done = run_cli(site.data, "erase", "--click-id", click or "", "--yes", timeout_s=120)
    site.litestream.start()
    directory = site.work_dir / "erased"
    site.litestream.restore(directory / DATABASE)
    left = ref in (directory / DATABASE).read_bytes()
    if done.returncode or left or not there:
        site.notes.append(f"erase: {done.stderr.strip()[-300:]}; left {left}, there before {there}")


def _start_from_the_replica(site: _Site) -> None:
    """What was acknowledged since the last sync is lost with the machine; its click ids are not given out again."""
    directory = site.work_dir / "machine"
    with site.load(pause_s=0) as load:
        load.wait_acknowledged(500)
        site.litestream.sync()
        load.wait_acknowledged(500)
        site.litestream.kill()
        site.server.kill()
    site.litestream.restore(directory / DATABASE)
    shutil.copy(site.data / "secret.key", directory)
    given = _click_ids(site.ledger)
    with Server(directory, env=_SETTINGS) as server, Ledger(site.work_dir / "new") as ledger:
        with Load(
            server, site.catalog, ledger, seed=1, limit=1000, prefix="new", mix=Mix(clicks=0.5)
        ) as load:
            load.wait_end(60)
        again = given & _click_ids(ledger)
    site.figures["click ids given out since"] = len(_click_ids(ledger))
    if again or not given:
        site.notes.append(f"{len(again)} click ids were given out twice")
    site.server.start()
    site.litestream.start()


def _click_ids(ledger: Ledger) -> set[str]:
    return {
        answer.click_id
        for (kind, _), entry in ledger.entries.items()
        if kind == CLICK
        for answer in entry.acknowledged
        if answer.click_id
    }


def _without_a_segment(site: _Site) -> str:
    """The control: what Litestream says of a replica that lacks a file; empty when it restores it."""
    site.litestream.sync()
    lose_a_segment(site.litestream.replica, site.work_dir / "lacking")
    try:
        site.litestream.restore(site.work_dir / "from_lacking" / DATABASE, site.work_dir / "lacking")
    except Failed as error:
        return str(error)[-80:]
    return ""


def _log_in_place(work_dir: Path, seed: int) -> Control:
    """The control: the log starts over in place, as it did before."""
    work_dir.mkdir()
    data, tally = work_dir / "data", Tally()
    catalog: Catalog = make_catalog(data)
    litestream = Litestream(data, work_dir / "replica", work_dir)
    environment = _SETTINGS | {"POSTBACKD_UNSAFE_REPLICATION": "1"}
    with Ledger(work_dir / "ledger") as ledger, Server(data, env=environment) as server:
        loads = count()

        def load(requests: int) -> Load:
            number = next(loads)
            return Load(
                server, catalog, ledger, seed=seed + number, mix=_MIX, prefix=f"p{number}", limit=requests
            )

        with load(100) as first:
            first.wait_end(60)
        litestream.start()
        try:
            for attempt in range(_ATTEMPTS):
                let_the_log_start_over(server, litestream, load, 0)
                promised = Promised(ledger)
                litestream.sync()
                restored = work_dir / f"restored{attempt}" / DATABASE
                litestream.restore(restored)
                tally = promised.judge(ledger, restored, work_dir / "promised")
                if not tally.clean:
                    break
        except Failed as error:
            tally.find("wrong", str(error))
        finally:
            litestream.kill()
    return Control(
        "a server that copies the log beside Litestream, and starts it over in place",
        not tally.clean,
        tally.figures,
    )
