"""T9: a PostgreSQL server whose acknowledgements could be lost, or that is not ours to use: refused with one line.

Nothing in the database is changed by a refusal.  Commits that by the server's default do not wait for the disk wait all
the same in our sessions: the processes of the server are killed right after an acknowledgement, and nothing is missing.
Controls: a sound server must not be refused, and sessions that do not wait must be seen losing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.trust.corpus.pooler import pgbouncer
from tests.trust.ledger import Ledger
from tests.trust.link import Link
from tests.trust.load import Load, Mix
from tests.trust.oracle import Tally
from tests.trust.postgres import NAME, USER, Database, versions
from tests.trust.refusals import Findings
from tests.trust.registry import Control, Figure, Result, Size, need_tools, trust_test
from tests.trust.server import Server, make_catalog, run_cli

_ASLEEP = {"wal_buffers": "16MB", "autovacuum": "off"}
"""What no commit waits for has room in memory."""

Case = Callable[[Database], Iterator[str]]
CASES: dict[str, tuple[Case, str]] = {}
"""Each makes something unsafe, yields the address under which it is met, and mends it; and what the line must name."""


def _case(name: str, word: str) -> Callable[[Case], Case]:
    def register(case: Case) -> Case:
        CASES[name] = case, word
        return case

    return register


# --- the server does not keep what it acknowledges -------------------------------------------------------------


def _restarted(database: Database, setting: str) -> Iterator[str]:
    database.server.stop()
    database.start(**{setting: "off"})
    yield database.address
    database.server.stop()
    database.start()


@_case("fsync=off", "fsync=off")
def _without_fsync(database: Database) -> Iterator[str]:
    return _restarted(database, "fsync")


@_case("full_page_writes=off", "full_page_writes=off")
def _without_whole_pages(database: Database) -> Iterator[str]:
    return _restarted(database, "full_page_writes")


# --- it is the wrong server, or the wrong database -------------------------------------------------------------


@_case("a standby", "standby")
def _standby(database: Database) -> Iterator[str]:
    """The same data, started as a server that follows another one."""
    sign = database.server.cluster / "standby.signal"
    database.server.stop()
    sign.touch()
    database.start(hot_standby="on")
    yield database.address
    database.server.stop()
    sign.unlink()
    database.start()


@_case("version 14", "14.22")
def _old_version(database: Database) -> Iterator[str]:
    """No such server is here: a link changes the question for the version, so that the answer is an old one's."""
    asked = (b"current_setting('server_version_num')::integer", b"current_setting('server_version') ")
    told = (b"140022::integer", b"'14.22'")

    def rewrite(message: bytes) -> bytes:
        for ours, theirs in zip(asked, told, strict=True):
            message = message.replace(ours, theirs.ljust(len(ours)))
        return message

    with Link(database.socket, rewrite) as link:
        yield link.address(USER, NAME)


def _in_encoding(database: Database, encoding: str) -> Iterator[str]:
    name = f"in_{encoding.lower()}"
    database.server.execute(
        f"CREATE DATABASE {name} OWNER {USER} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    )
    yield database.address_of(name)
    database.server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@_case("LATIN1", "LATIN1")
def _latin1(database: Database) -> Iterator[str]:
    return _in_encoding(database, "LATIN1")


@_case("SQL_ASCII", "SQL_ASCII")
def _any_bytes(database: Database) -> Iterator[str]:
    return _in_encoding(database, "SQL_ASCII")


@_case("tables of another program", "another program")
def _foreign(database: Database) -> Iterator[str]:
    database.server.execute(f"CREATE DATABASE foreign_one OWNER {USER}")
    database.server.execute(
        "CREATE TABLE notes (text text); INSERT INTO notes VALUES ('mine')", "foreign_one"
    )
    yield database.address_of("foreign_one")
    database.server.execute("DROP DATABASE foreign_one WITH (FORCE)")


@_case("a newer schema", "newer postbackd")
def _newer(database: Database) -> Iterator[str]:
    database.execute(
        "INSERT INTO schema_migrations (number, name, checksum, needs) VALUES (900, 'later', '', 900)"
    )
    yield database.address
    database.execute("DELETE FROM schema_migrations WHERE number = 900")


@_case("a changed checksum", "another text")
def _other_text(database: Database) -> Iterator[str]:
    database.execute("UPDATE schema_migrations SET checksum = reverse(checksum) WHERE number = 1")
    yield database.address
    database.execute("UPDATE schema_migrations SET checksum = reverse(checksum) WHERE number = 1")


@_case("a user without rights", "permission denied")
def _no_rights(database: Database) -> Iterator[str]:
    database.execute("CREATE ROLE stranger LOGIN")
    yield database.address.replace(f"{USER}@", "stranger@", 1)
    database.execute("DROP ROLE stranger")


# --- something stands between ----------------------------------------------------------------------------------


@_case("a pooler by transaction", "pooler")
def _pooler(database: Database) -> Iterator[str]:
    with pgbouncer(database, tolerant=True) as address:
        yield address


@_case("a pooler by transaction that refuses our settings", "pooler")
def _strict_pooler(database: Database) -> Iterator[str]:
    with pgbouncer(database, tolerant=False) as address:
        yield address


# --- the test --------------------------------------------------------------------------------------------------


@trust_test("T9", "PostgreSQL with unsafe settings, or not ours to use")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Each refused with one line and nothing changed; a commit waits for the disk whatever the default is."""
    need_tools("pgbouncer")
    findings, tally = Findings(), Tally()
    rounds = size.pick(1, 3, 20)
    found_versions = versions()
    for number in range(rounds):
        version = found_versions[number % len(found_versions)]
        with Database(version) as database:
            place = work_dir / f"round{number}"
            make_catalog(place / "catalog", env={"POSTBACKD_STORE": database.address})
            for name in CASES:
                _expect_refusal(findings, name, database, place)
            control = _sound(database, place)
        for name, (before, during) in SWITCHES.items():
            findings.cases += 1
            found = _crash_after_load(place / f"case{findings.cases}", version, seed + number, before, during)
            found.details = [f"{name}: {detail}" for detail in found.details]
            tally.add(found)
    figures: dict[str, Figure] = tally.figures | {"cases": findings.cases, "faults": len(findings.faults)}
    note = "; ".join([*findings.faults, *tally.details[:3]])
    controls = (control, _unsafe(work_dir / "unsafe", found_versions[-1], seed))
    return Result(tally.clean and not findings.faults, figures, controls, note)


def _expect_refusal(findings: Findings, name: str, database: Database, place: Path) -> None:
    """Both roles and a catalog command say one line and exit 1, and the database stays as it is."""
    findings.cases += 1
    case, word = CASES[name]
    with contextmanager(case)(database) as address:
        at = place / f"case{findings.cases}"
        at.mkdir(parents=True)
        before = _contents(database)
        for role in ("serve", "ingest"):
            server = Server(
                at / role, env={"POSTBACKD_STORE": address}, role=role, stderr_path=at / f"{role}.err"
            )
            findings.expect_refused_start(name, server)
        done = run_cli(at / "cli", "network", "list", env={"POSTBACKD_STORE": address})
        findings.expect_one_line(name, "network list", done.returncode, done.stderr)
        findings.expect(
            word in findings.lines[name], name, f"the line does not name it: {findings.lines[name]}"
        )
        findings.expect(_contents(database) == before, name, "the database was changed")


def _contents(database: Database) -> dict[str, str]:
    """Every database of the server as text."""
    names = database.server.ask("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1").split()
    return {name: _dump(database, name) for name in names}


def _dump(database: Database, name: str) -> str:
    at = ("-h", str(database.server.directory), "-U", "postbackd")
    lines = database.server.run("pg_dump", *at, name).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("\\restrict", "\\unrestrict")))


def _sound(database: Database, place: Path) -> Control:
    """A sound server must not be refused: the checks above can tell the difference."""
    with Server(place / "sound", env={"POSTBACKD_STORE": database.address}, role="ingest") as node:
        accepted = node.status("/readyz") == 200
    return Control("a sound server is refused", accepted, {"accepted": int(accepted)})


# --- commits that do not wait ----------------------------------------------------------------------------------


def _switch_off(database: Database) -> None:
    """As the server's default, for sessions that run already, too."""
    database.execute("ALTER SYSTEM SET synchronous_commit = off")
    database.execute("SELECT pg_reload_conf()")


def _switch_off_everywhere(database: Database) -> None:
    """As the default of the server, of the database and of the role."""
    _switch_off(database)
    database.execute(f"ALTER DATABASE {NAME} SET synchronous_commit = off")
    database.execute(f"ALTER ROLE {USER} SET synchronous_commit = off")


def _leave(database: Database) -> None:
    """Nothing is switched."""


SWITCHES: dict[str, tuple[Callable[[Database], None], Callable[[Database], None]]] = {
    "synchronous_commit=off before the start": (_switch_off_everywhere, _leave),
    "synchronous_commit=off while serving": (_leave, _switch_off),
}
"""What happens before the node starts, and under load."""


def _crash_after_load(
    place: Path,
    version: int,
    seed: int,
    before: Callable[[Database], None],
    during: Callable[[Database], None],
    env: dict[str, str] | None = None,
) -> Tally:
    """All processes of the server are killed right after an acknowledgement; then the oracle."""
    place.mkdir(parents=True)
    with Database(version, _ASLEEP) as database, Ledger(place / "ledger") as ledger:
        before(database)
        settings = {"POSTBACKD_STORE": database.address}
        # The tables are there, whatever the node leaves out.
        catalog = make_catalog(place / "catalog", env=settings)
        with Server(place / "node", env=settings | dict(env or {}), role="ingest") as node:
            with Load(
                node, catalog, ledger, seed=seed, mix=Mix(repeats=0.0, retried=0.0), pause_s=0.01
            ) as load:
                load.wait_acknowledged(100)
                during(database)
                _stop_wal_writer(database)
                load.wait_acknowledged(300)
                database.crash()
            database.start()
            node.wait_drained()
            return database.check(ledger)


def _stop_wal_writer(database: Database) -> None:
    """From here on nothing is written but what a commit waits for, however slow this machine is."""
    (writer,) = database.server.ask(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
    ).split()
    os.kill(int(writer), signal.SIGSTOP)


def _unsafe(place: Path, version: int, seed: int) -> Control:
    """Sessions that do not wait for the disk must be seen losing."""
    tally = _crash_after_load(place, version, seed, _leave, _leave, {"POSTBACKD_UNSAFE_SYNC": "off"})
    return Control("POSTBACKD_UNSAFE_SYNC=off", tally.lost > 0, tally.figures)
