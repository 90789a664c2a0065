"""T27PG: the same on PostgreSQL, as far as its files let it: ``erase --rewrite``, then every table file searched.

Its write-ahead log keeps what was written until the server lets it go, and is left out, as the documentation says.
Control: erasing without ``--rewrite``, after which the free space of pages still holds the old rows.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from tests.trust.nodes import cluster
from tests.trust.persons import add_target, echo, hits, make_person, postback, visit
from tests.trust.postgres import Database, versions
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import run_cli, wait_until
from tests.trust.t27_erasure import LIMIT_S

_LEFT_OUT = ("pg_wal",)


@trust_test("T27PG", "erasure on PostgreSQL, its table files searched")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    people = size.pick(3, 20, 100)
    version = versions()[-1]
    figures: dict[str, Figure] = {"n": people, "version": version}
    found = _erase_all(work_dir / "run", version, seed, people, rewrite=True)
    figures |= {f"places {name}": count for name, count in found.items() if name != "notes"}
    plain = _erase_all(work_dir / "control", version, seed, 1, rewrite=False)
    passed = not found["after"] and not found["again"] and not found["wrong"] and found["slowest s"] < LIMIT_S
    control = Control("without --rewrite", plain["after"] > 0, {"hits": plain["after"]})
    return Result(bool(passed and found["before"]), figures, (control,))


def _erase_all(place: Path, version: int, seed: int, people: int, *, rewrite: bool) -> dict[str, float]:
    draw = random.Random(seed)
    persons = [make_person(draw) for _ in range(people)]
    found: dict[str, float] = {"before": 0, "after": 0, "again": 0, "wrong": 0, "slowest s": 0.0}
    with echo() as port, Database(version) as database:
        env = {
            "POSTBACKD_STORE": database.address,
            "POSTBACKD_DELIVER_RANGES": "127.0.0.1",
            "POSTBACKD_DELIVER_PORTS": str(port),
        }
        with cluster(place, database, 1, env, role="serve") as nodes:
            add_target(nodes.nodes[0].data_dir, env, port)
            server = nodes.nodes[0]
            wait_until(lambda: server.role_pids("deliver"), 30, "the deliver role that the rule asks for")
            for person in persons:
                visit(server, nodes.catalog, person)
            marks = [person.mark for person in persons]
            wait_until(lambda: _delivered(database, marks), 40, "the delivery of every sale")
            database.execute(
                "ANALYZE"
            )  # of its own accord the server notes values for its plans now and then
            database.execute("CHECKPOINT")
            files = database.server.cluster
            found["before"] = sum(sum(hits(files, person, _LEFT_OUT).values()) for person in persons)
            for person in persons:
                began = time.monotonic()
                for option, id_ in [("--click-id", id_) for id_ in person.ids] + [
                    ("--identity", f"{person.mark}unknown")
                ]:
                    words = ("erase", option, id_, "--yes", *(("--rewrite",) if rewrite else ()))
                    done = run_cli(server.data_dir, *words, env=env, timeout_s=LIMIT_S)
                    if done.returncode:
                        raise RuntimeError(done.stderr)
                database.execute("CHECKPOINT")
                found["after"] += sum(hits(files, person, _LEFT_OUT).values())
                found["slowest s"] = max(found["slowest s"], round(time.monotonic() - began, 2))
            for person in persons:
                for query, conversion in person.conversions:
                    found["wrong"] += postback(server, nodes.catalog, query).get("conversion") != conversion
            database.execute("CHECKPOINT")
            found["again"] = sum(sum(hits(files, person, _LEFT_OUT).values()) for person in persons)
    return found


def _delivered(database: Database, marks: list[str]) -> bool:
    return all(
        database.number(f"SELECT count(*) FROM attempts WHERE strpos(excerpt, '{mark}') > 0") >= 2
        for mark in marks
    )
