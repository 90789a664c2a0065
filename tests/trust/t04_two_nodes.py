"""T4PG: the duplicate storm over two nodes on one PostgreSQL database, and again after a restart of both.

The same keys reach both nodes at the same moment, in every spelling.  Control: the same storm on a database in which
the unique key decides nothing.
"""

from __future__ import annotations

from pathlib import Path

from tests.trust.corpus.copies import KEYS_A_CLICK, make_keys
from tests.trust.nodes import cluster
from tests.trust.postgres import Database, versions
from tests.trust.registry import Control, Result, Size, trust_test
from tests.trust.t04_duplicates import Told, judge, send

_EVADE_KEY = """
CREATE SEQUENCE evasions;
GRANT USAGE ON evasions TO PUBLIC;
CREATE FUNCTION evade() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.bucket := nextval('evasions') % 30000; RETURN NEW; END $$;
CREATE TRIGGER evade BEFORE INSERT ON conversions FOR EACH ROW EXECUTE FUNCTION evade();
"""
"""Every row gets a bucket of its own, which is part of the key."""


@trust_test("T4PG", "duplicate storm over two nodes on one PostgreSQL database")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Exactly one conversion a key, one conversion id in every answer about it, whichever node gave it."""
    clicks = size.pick(ci=100, nightly=200, release=200)
    copies = size.pick(ci=30, nightly=1_000, release=10_000)
    told = Told()
    with Database(versions()[-1]) as database, cluster(work_dir / "nodes", database, 2) as nodes:
        stages = nodes.stages()
        keys = make_keys(stages[0].clicks(clicks))
        send(stages, keys, copies, seed, told)
        for node in nodes.nodes:
            node.stop()
        for node in nodes.nodes:
            node.start()
        send(stages, keys, max(3, copies // 10), seed + 1, told)
        stored = database.number("SELECT count(*) FROM conversions")
        tracebacks = nodes.tracebacks
    return judge(keys, stored, told, tracebacks, _control(seed, work_dir))


def _control(seed: int, work_dir: Path) -> Control:
    """Every copy is counted where the key does not decide: the storm really repeats."""
    with Database(versions()[-1]) as database, cluster(work_dir / "control", database, 2) as nodes:
        database.execute(_EVADE_KEY)
        stages = nodes.stages()
        keys = make_keys(stages[0].clicks(10))
        send(stages, keys, 10, seed, Told())
        stored = database.number("SELECT count(*) FROM conversions")
    return Control("no unique key", stored > len(keys), {"keys": 10 * KEYS_A_CLICK, "conversions": stored})
