"""T24: the clock jumps, forward and back, from a second to almost ten years, under load and over restarts.

libfaketime moves the wall clock of the server alone; the load and the ledger keep the true one.  Purges run every
second by their usual settings, so that whatever a jump makes look old would be gone.  Judged by the oracle: nothing
that was acknowledged is missing, in the tables or in the log, and no id was given twice.  Control: purges without their
brake.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import apsw

from tests.trust.ledger import Ledger
from tests.trust.load import Load
from tests.trust.oracle import DATABASE, Tally, check
from tests.trust.registry import Control, Figure, Result, Size, Skip, trust_test
from tests.trust.server import Catalog, Server, make_catalog, run_cli, wait_until

_LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")

_SECOND, _HOUR, _DAY = 1, 3_600, 86_400
JUMPS_S = (
    *(
        _SECOND,
        60,
        1_800,
        2 * _HOUR,
        _DAY,
        3 * _DAY,
        8 * _DAY,
        31 * _DAY,
        91 * _DAY,
        400 * _DAY,
        3_640 * _DAY,  # a click of before the jump is still within the longest window of an offer
    ),
    *(-_SECOND, -60, -_HOUR, -_DAY, -40 * _DAY, -400 * _DAY),
)
_A_JUMP = 150
"""Acknowledged requests between two jumps."""

_STAYS_S = 2.2
"""So long a jump stays: two looks of the purge."""

_SEEN_S = 31 * _DAY
"""A jump this far forward stays until a purge has looked, however busy the machine is, and said what it made of it.
After one back nothing looks old, and nothing is said."""

_LOOK_TIMEOUT_S = 60


@trust_test("T24", "clocks that jump")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    library = find_library()
    rounds = size.pick(1, 12, 100)
    tally, jumps, restarts, held = Tally(), 0, 0, 0
    for number in range(rounds):
        one = _Clock(work_dir / f"round{number}", library, seed + number, {})
        tally.add(one.go(JUMPS_S))
        jumps, restarts, held = jumps + one.jumps, restarts + one.restarts, held + one.held
    control = _Clock(work_dir / "control", library, seed, {"POSTBACKD_UNSAFE_PURGE": "1"})
    lost = control.go((400 * _DAY,))
    figures: dict[str, Figure] = tally.figures | {"jumps": jumps, "restarts": restarts, "purges held": held}
    missed = Control(
        "no brake", not lost.clean, {"lost": lost.figures["lost"], "wrong": lost.figures["wrong"]}
    )
    return Result(tally.clean and held > 0, figures, (missed,), tally.note)


def find_library() -> Path:
    """libfaketime.  Raises ``Skip``."""
    for pattern in _LIBRARIES:
        for path in Path("/").glob(pattern.lstrip("/")):
            return path
    raise Skip("needs libfaketime (apt-get install faketime)")


class _Clock:
    """A server whose clock is a file."""

    def __init__(self, place: Path, library: Path, seed: int, env: dict[str, str]) -> None:
        place.mkdir(parents=True)
        self._place = place
        self._data = place / "data"
        self._file = place / "clock"
        self._seed = seed
        self._draw = random.Random(seed)
        self._env = env | {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "POSTBACKD_PURGE_EVERY_S": "1",
        }
        self.jumps = self.restarts = self.held = 0

    def go(self, jumps: tuple[int, ...]) -> Tally:
        """Every jump, each followed by the way back; some while the server is down."""
        self._set(0)
        catalog = self._make_catalog()
        order = list(jumps)
        self._draw.shuffle(order)
        with (
            Ledger(self._place / "ledger") as ledger,
            Server(self._data, env=self._env, stderr_path=self._place / "stderr") as server,
        ):
            with Load(server, catalog, ledger, seed=self._seed, connections=4, pause_s=0.01) as load:
                load.wait_acknowledged(_A_JUMP)
                self._wait_looked()
                for number, jump in enumerate(order):
                    self._jump(server, load, jump, restart=number % 4 == 3)
                    self._jump(server, load, 0, restart=number % 4 == 1)
            self.held = self._times_held
            return check(ledger, self._data / DATABASE)

    def _set(self, offset_s: int) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}s\n")
        fresh.rename(self._file)

    def _make_catalog(self) -> Catalog:
        """Conversions count however long after their click the clock says they came."""
        catalog = make_catalog(self._data)
        done = run_cli(self._data, "offer", "set", "Shoes", "--window-max", "3650d")
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return catalog

    @property
    def _times_held(self) -> int:
        return (self._place / "stderr").read_text(errors="replace").count("nothing was purged")

    def _jump(self, server: Server, load: Load, offset_s: int, *, restart: bool) -> None:
        held, noted_ms = self._times_held, self._noted_ms()
        self._set(offset_s)
        if restart:
            load.must_answer = False
            server.restart()
            load.must_answer = True
            self.restarts += 1
        began = time.monotonic()
        load.wait_acknowledged(_A_JUMP)
        wait_until(lambda: time.monotonic() - began > _STAYS_S, 2 * _STAYS_S + 10, "two looks of the purge")
        if offset_s >= _SEEN_S:

            def looked() -> bool:
                """Held, or (without the brake) purged by the new time and noted it."""
                return self._times_held > held or abs((self._noted_ms() or 0) - (noted_ms or 0)) > _DAY * 1000

            wait_until(looked, _LOOK_TIMEOUT_S, "a purge that looks after a jump")
        self.jumps += 1

    def _noted_ms(self) -> int | None:
        """The time that a purge noted last."""
        db = apsw.Connection(str(self._data / DATABASE), flags=apsw.SQLITE_OPEN_READONLY)
        db.set_busy_timeout(1000)
        try:
            noted: int | None = db.execute("SELECT value FROM settings WHERE name = 'purge_clock_ms'").get
            return noted
        finally:
            db.close()

    def _wait_looked(self) -> None:
        """Until a purge has noted the true time."""
        wait_until(lambda: self._noted_ms() is not None, 20, "a look of the purge")
