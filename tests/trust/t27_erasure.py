"""T27: marker strings in clicks, postbacks and deliveries; erased beside the running server; every file searched.

Every file of the data directory is read byte by byte, the log and the shared memory of the database and the spool with
it.  Some erasures are killed in the middle and run again, some run twice at once; afterwards the same postbacks come
again, must be duplicates of the same conversions, and must leave nothing either.  Meanwhile other traffic goes on,
judged by the oracle.  Control: erasing rows only, without overwriting them or emptying the log.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import apsw

from tests.trust.ledger import Ledger
from tests.trust.load import Load
from tests.trust.oracle import DATABASE, Tally, check
from tests.trust.persons import Person, add_target, echo, hits, make_person, postback, visit
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import Catalog, Server, clean_environment, make_catalog, run_cli, wait_until

LIMIT_S = 60.0
"""From the request to the last byte."""

_DELIVERED_S = 30.0


@trust_test("T27", "erasure, searched for byte by byte")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    people = size.pick(6, 60, 600)
    found = _Run(work_dir / "run", seed, people, {})
    found.go()
    control = _Run(work_dir / "control", seed, 2, {"POSTBACKD_UNSAFE_ERASURE": "1"})
    control.go()
    figures: dict[str, Figure] = found.tally.figures | {
        "people": people,
        "places held before": found.before,
        "hits": found.hits,
        "hits after repeats": found.later,
        "wrong repeats": found.wrong,
        "killed": found.killed,
        "slowest s": round(found.slowest_s, 2),
    }
    passed = (
        found.tally.clean and not (found.hits or found.later or found.wrong) and found.slowest_s < LIMIT_S
    )
    return Result(
        passed and found.before > 0,
        figures,
        (Control("rows only", control.hits > 0, {"hits": control.hits}),),
        "; ".join([*found.notes, found.tally.note] if found.tally.note else found.notes),
    )


class _Run:
    """People among other traffic, and the erasure of each."""

    def __init__(self, place: Path, seed: int, people: int, env: dict[str, str]) -> None:
        place.mkdir(parents=True)
        self._place = place
        self._data = place / "data"
        self._draw = random.Random(seed)
        self._people = [make_person(self._draw) for _ in range(people)]
        self._env = env
        self._seed = seed
        self.before = self.hits = self.later = self.wrong = self.killed = 0
        self.slowest_s = 0.0
        self.notes: list[str] = []
        self.tally = Tally()

    def go(self) -> None:
        with echo() as port:
            env = self._env | {"POSTBACKD_DELIVER_RANGES": "127.0.0.1", "POSTBACKD_DELIVER_PORTS": str(port)}
            catalog = make_catalog(self._data, env=env)
            add_target(self._data, env, port)
            with (
                Ledger(self._place / "ledger") as ledger,
                Server(self._data, env=env, stderr_path=self._place / "stderr") as server,
            ):
                with Load(server, catalog, ledger, seed=self._seed, connections=4, pause_s=0.02) as load:
                    load.wait_acknowledged(200)
                    for person in self._people:
                        visit(server, catalog, person)
                        load.wait_acknowledged(20)
                    self._wait_delivered()
                    for number, person in enumerate(self._people):
                        self._erase(number, person)
                    self._send_again(server, catalog)
                self.later = sum(sum(hits(self._data, person).values()) for person in self._people)
                self.tally.add(check(ledger, self._without_people()))
        db = apsw.Connection(str(self._data / DATABASE))
        if (whole := db.pragma("integrity_check")) != "ok":
            self.notes.append(f"the database is damaged: {whole}")
            self.tally.find("wrong", "integrity")
        db.close()

    def _without_people(self) -> Path:
        """A copy of the database for the oracle, whose ledger knows nothing of these people."""
        copy = self._place / "copy.db"
        db = apsw.Connection(str(self._data / DATABASE))
        db.set_busy_timeout(10_000)
        db.execute("VACUUM INTO ?", (str(copy),))
        db.close()
        db = apsw.Connection(str(copy))
        gone = "SELECT conversion_id FROM conversions WHERE click_id IN (SELECT click_id FROM erased_clicks)"
        for sql in (
            f"DELETE FROM conversion_history WHERE conversion_id IN ({gone})",
            "DELETE FROM postbacks WHERE click_text = 'erased' OR click_id IN (SELECT click_id FROM erased_clicks)",
            "DELETE FROM conversions WHERE click_id IN (SELECT click_id FROM erased_clicks)",
            "DELETE FROM clicks WHERE click_id IN (SELECT click_id FROM erased_clicks)",
        ):
            db.execute(sql)
        db.close()
        return copy

    def _wait_delivered(self) -> None:
        """Until every sale of these people was told, so that attempts hold what the target answered."""

        def told() -> bool:
            db = apsw.Connection(str(self._data / DATABASE), flags=apsw.SQLITE_OPEN_READONLY)
            db.set_busy_timeout(1000)
            try:
                sql = "SELECT count(*) FROM attempts WHERE instr(excerpt, ?)"
                return all(db.execute(sql, (person.mark,)).get >= 2 for person in self._people)
            finally:
                db.close()

        wait_until(told, _DELIVERED_S, "the delivery of every sale")

    def _erase(self, number: int, person: Person) -> None:
        self.before += sum(hits(self._data, person).values())
        began = time.monotonic()
        asked = [("--click-id", id_) for id_ in person.ids] + [("--identity", f"{person.mark}unknown")]
        for option, id_ in asked:
            if number % 3 == 1:
                self._kill_one(option, id_)
            if number % 3 == 2:
                self._run_two(option, id_)
            else:
                self._run_one(option, id_)
        found = hits(self._data, person)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        if found:
            self.hits += sum(found.values())
            self.notes.append(f"left of {person.mark}: {found}")

    def _command(self, option: str, id_: str) -> list[str]:
        return [
            sys.executable, "-m", "postbackd", "erase", option, id_, "--yes", "--data", str(self._data),
        ]  # fmt: skip

    def _run_one(self, option: str, id_: str) -> None:
        done = run_cli(self._data, "erase", option, id_, "--yes", env=self._env, timeout_s=LIMIT_S)
        if done.returncode and "nothing is held" not in done.stderr:
            self.notes.append(f"erase {option}: {done.stderr.strip()}")

    def _run_two(self, option: str, id_: str) -> None:
        """Twice at once."""
        runs = [
            subprocess.Popen(
                self._command(option, id_), env=clean_environment(self._env), stderr=subprocess.PIPE, text=True,
                stdout=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]  # fmt: skip
        for one in runs:
            _, said = one.communicate(timeout=LIMIT_S)
            if one.returncode and "nothing is held" not in said:
                self.notes.append(f"two at once, {option}: {said.strip()}")

    def _kill_one(self, option: str, id_: str) -> None:
        """``kill -9`` somewhere in the middle."""
        victim = subprocess.Popen(
            self._command(option, id_), env=clean_environment(self._env), stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            victim.wait(timeout=self._draw.uniform(0.2, 2.4))
        except subprocess.TimeoutExpired:
            victim.kill()
            victim.wait()
            self.killed += 1

    def _send_again(self, server: Server, catalog: Catalog) -> None:
        """The same sales must be the same conversions."""
        for person in self._people:
            for query, conversion in person.conversions:
                said = postback(server, catalog, query)
                if said.get("conversion") != conversion or said["verdict"] not in ("duplicate", "updated"):
                    self.wrong += 1
                    self.notes.append(f"a repeat was answered {said}")
