"""T21PG: PostgreSQL comes back while senders go on as fast as they are answered: the spool gets empty all the same.

A spool takes requests faster than a database does.  If senders were answered at its speed while it is being emptied,
it would never become empty, and everybody would be told ``queued`` until it is full.  Control: a database that does
not come back, which must be noticed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tests.trust.corpus import wire
from tests.trust.corpus.flow import Flooded, flood
from tests.trust.ledger import QUEUED
from tests.trust.nodes import NodeStage, cluster
from tests.trust.postgres import Database, versions
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import wait_until

_CONNECTIONS, _UNDER_WAY = 64, 16
_AWAY_S = 2.0
_LEFT_S = 60.0
"""How long the rest may take when the senders have ended."""


@trust_test("T21PG", "PostgreSQL comes back under senders that go on at full speed", alone=True)
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Final verdicts again while the flood goes on, nothing lost, nothing refused but by a full queue."""
    longest_s = size.pick(ci=15.0, nightly=30.0, release=60.0)
    with Database(versions()[-1]) as database, cluster(work_dir / "nodes", database, 1) as nodes:
        (stage,) = nodes.stages()
        back_s, flooded = _come_back(stage, database, longest_s, thawed=True)
        stage.server.wait_drained(_LEFT_S)
        stored = database.number("SELECT count(*) FROM conversions")
        tracebacks = nodes.tracebacks
    lost = max(0, flooded.good - stored)
    figures: dict[str, Figure] = {
        "n": flooded.good,
        "lost": lost,
        "double": 0,
        "phantom": 0,
        "wrong": flooded.other,
        "final verdicts after s": "never" if back_s is None else round(back_s, 1),
        "answered/s": flooded.good_a_second,
        "503": flooded.busy,
        "closed by server": flooded.broken,
        "tracebacks": tracebacks,
    }
    unharmed = not (lost or flooded.other or flooded.broken or tracebacks)
    note = "" if back_s is not None else f"still 'queued' {longest_s:.0f} s after the database was back"
    return Result(back_s is not None and unharmed, figures, (_control(work_dir),), note)


def _come_back(
    stage: NodeStage, database: Database, longest_s: float, *, thawed: bool
) -> tuple[float | None, Flooded]:
    """Seconds from the end of an outage to a final verdict, ``None`` if there was none in time; and the flood."""
    probe = _prober(stage)
    with _Flood(stage, 1.0 + _AWAY_S + longest_s) as flooding:
        wait_until(lambda: probe() == "accepted", 30, "the flood being taken")
        database.freeze()
        wait_until(lambda: probe() == QUEUED, 20, "an answer 'queued'")
        frozen = time.monotonic()
        wait_until(lambda: time.monotonic() - frozen > _AWAY_S, _AWAY_S + 5, "the end of the outage")
        if thawed:
            database.thaw()
        try:
            back_s = wait_until(lambda: probe() == "accepted", longest_s, "a final verdict")
        except TimeoutError:
            back_s = None
    return back_s, flooding.flooded


class _Flood(threading.Thread):
    """Senders that wait for nothing but their answers, for so many seconds."""

    def __init__(self, stage: NodeStage, seconds: float) -> None:
        super().__init__(daemon=True)
        self._stage = stage
        self._seconds = seconds
        self._click_id = stage.click()
        self.flooded = Flooded()

    def run(self) -> None:
        self.flooded = asyncio.run(
            flood(self._stage.address, self._writer(), _CONNECTIONS, _UNDER_WAY, self._seconds)
        )

    def _writer(self) -> Callable[[], bytes]:
        """Bursts of conversions that nobody has sent before."""
        head = f"GET {self._stage.endpoint}?click_id={self._click_id}&value=1.50&txid=".encode()
        table = bytes.maketrans(b"0123456789", b"abcdefghij")  # digits could be taken for a phone number
        numbers = count()

        def write_burst() -> bytes:
            start = head + (b"%d" % next(numbers)).translate(table) + b"-"
            tails = (bytes((97 + number,)) for number in range(_UNDER_WAY))
            return b"".join(start + tail + b" HTTP/1.1\r\nHost: a\r\n\r\n" for tail in tails)

        return write_burst

    def __enter__(self) -> _Flood:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join()


def _prober(stage: NodeStage) -> Callable[[], str]:
    """Asks for a new conversion and says what verdict it got."""
    click_id = stage.click()
    numbers = count()

    async def ask(request: bytes) -> str:
        connection = await wire.Connection.open(stage.address)
        (answer,) = await connection.ask([request])
        connection.close()
        return answer.header("Postbackd-Verdict") or ""

    def probe() -> str:
        word = "".join(chr(97 + int(digit)) for digit in str(next(numbers)))
        request = wire.get(f"{stage.endpoint}?click_id={click_id}&value=1&txid=probe-{word}")
        return asyncio.run(ask(request))

    return probe


def _control(work_dir: Path) -> Control:
    """A database that stays away must be noticed."""
    with Database(versions()[-1]) as database, cluster(work_dir / "control", database, 1) as nodes:
        (stage,) = nodes.stages()
        back_s, flooded = _come_back(stage, database, 2.0, thawed=False)
    return Control("a database that stays away", back_s is None, {"answered": flooded.good})
