"""T5: the disk answers EIO, ENOSPC or takes less than it was given; nothing is acknowledged that is not synced.

strace makes single system calls of the server fail, at places that sweep over a run; a file size limit set from
outside makes real short writes.  The load goes on, everything is killed, started again without faults, and what got no
answer is sent again.  Judged three times: by the rows (the oracle), by the trace (whatever was acknowledged lay on the
disk at that moment, where a failed sync has lost what it should have written), and by the server's coming back.
"""

from __future__ import annotations

import random
import resource
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.trust.crash_disk import CrashDisk
from tests.trust.ledger import Ledger
from tests.trust.load import Load, Mix
from tests.trust.oracle import DATABASE, Tally, check
from tests.trust.promises import AnswerReader, judge_state, write_state
from tests.trust.registry import Control, Result, Size, need_tools, trust_test
from tests.trust.server import Catalog, Server, ServerDied, make_catalog
from tests.trust.trace import Event, read_trace, tracer

_SWEPT = (
    # call, error, span of the first place, span of the step to the next
    ("fdatasync", "EIO", 20, 8),
    ("pwrite64", "EIO", 100, 40),
    ("pwrite64", "ENOSPC", 100, 40),
    ("fdatasync", "ENOSPC", 20, 8),
    ("pwrite64", "EIO", 12, 12),
    ("fsync,ftruncate", "EIO", 3, 2),
    ("pread64", "EIO", 60, 30),
    ("sync_file_range", "EIO", 20, 8),
)
"""The short spans hit the start, and the recovery from the fault before."""


@dataclass(frozen=True)
class Fault:
    """Which system calls fail: ``call`` number ``first``, and every ``step``-th after it."""

    call: str
    error: str
    first: int
    step: int

    @property
    def expression(self) -> str:
        return f"{self.call}:error={self.error}:when={self.first}+{self.step}"


@trust_test("T5", "I/O errors and short writes under load")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    need_tools("strace")
    runs = size.pick(16, 144, 5_000)
    shorts = size.pick(8, 150, 2_000)
    template = work_dir / "template"
    template.mkdir()
    catalog = make_catalog(template / "data")
    draw = random.Random(seed)
    tally, figures = Tally(), Counter[str]()
    for number in range(runs):
        call, error, first, step = _SWEPT[number % len(_SWEPT)]
        fault = Fault(call, error, draw.randint(1, first), draw.randint(max(2, step // 2), step))
        case = Case(work_dir / f"run{number}", template / "data", catalog, seed + number)
        found = case.run(fault, figures)
        found.details = [f"{fault.expression} in {case.directory.name}: {detail}" for detail in found.details]
        tally.add(found)
        if found.clean:
            shutil.rmtree(case.directory)
    case = Case(work_dir / "short", template / "data", catalog, seed)
    tally.add(case.run_short_writes(shorts, draw, figures))
    controls = (
        _sync_off(work_dir / "sync-off", template / "data", catalog, seed),
        _trusting(work_dir / "trusting", template / "data", catalog, seed),
    )
    faults = figures["injected"]
    passed = tally.clean and faults >= runs and figures["short_writes"] == shorts
    note = tally.note or ("" if passed else f"only {faults} faults hit")
    return Result(passed, tally.figures | dict(figures), controls, note)


class Case:
    """One data directory, one load, one series of faults."""

    def __init__(
        self,
        directory: Path,
        template: Path,
        catalog: Catalog,
        seed: int,
        *,
        env: dict[str, str] | None = None,
        mix: Mix | None = None,
        trust_503: bool = False,
    ) -> None:
        directory.mkdir()
        self.directory = directory
        self.data = directory / "data"
        shutil.copytree(template, self.data)
        self.before = {path.name: path.read_bytes() for path in self.data.iterdir()}
        self.trace = directory / "trace"
        self.server = Server(self.data, env=env)
        self.ledger = Ledger(directory / "ledger", trust_503=trust_503)
        self.load = Load(
            self.server,
            catalog,
            self.ledger,
            seed=seed,
            connections=4,
            group=2,
            mix=mix or Mix(first_clicks=10),
        )

    def run(self, fault: Fault, figures: Counter[str]) -> Tally:
        """The load under faults, kill -9, the load without faults, the oracle; and the trace."""
        self.server.prefix = tracer(self.trace, [fault.expression])
        try:
            with self.load:
                self._under_faults(figures)
                self.server.kill()
                self.server.prefix = []
                self.server.start()
                self.load.wait_acknowledged(40)
            tally = check(self.ledger, self.data / DATABASE)
        finally:
            self.server.kill()
            self.ledger.close()
        self._judge_trace(read_trace(self.trace), tally, figures)
        figures["answered_503"] += self.ledger.unavailable
        return tally

    def _under_faults(self, figures: Counter[str]) -> None:
        """A fault may hit the start itself: then one line says so, and nothing else happens."""
        try:
            self.server.start(deadline_s=8)
            self.load.wait_acknowledged(120, 15)
        except ServerDied:
            figures["starts_refused"] += 1
        except TimeoutError:
            figures["never_ready"] += 1

    def _judge_trace(self, events: list[Event], tally: Tally, figures: Counter[str]) -> None:
        """Whenever the disk moves on, all that was acknowledged until then must be on it, synced."""
        disk, answers = CrashDisk(self.data, self.before), AnswerReader()
        scratch = Path(tempfile.mkdtemp(prefix="postbackd-states-", dir=self.directory))
        checked = 0
        for event in events:
            figures["injected"] += event.injected
            if answers.take(event):
                continue
            if disk.concerns(event) and answers.promises.count > checked:
                checked = answers.promises.count
                _judge_moment(disk, answers, scratch, tally)
                figures["moments"] += 1
            disk.apply(event)
        _judge_moment(disk, answers, scratch, tally)

    def run_short_writes(self, cycles: int, draw: random.Random, figures: Counter[str]) -> Tally:
        """A file size limit below the next write: the kernel takes a part of it, then refuses with EFBIG."""
        log = self.data / f"{DATABASE}-wal"
        try:
            self.server.start()
            with self.load:
                for _ in range(cycles):
                    self.load.wait_acknowledged(draw.randint(1, 60))
                    size = log.stat().st_size if log.exists() else 0
                    self._limit(size + draw.randint(1, 9_000))
                    self.load.wait_busy(10)
                    figures["short_writes"] += 1
                    self._limit(resource.RLIM_INFINITY)
                    self.load.wait_success(10)
                self.server.kill()
                self.server.start()
                self.load.wait_acknowledged(40)
            return check(self.ledger, self.data / DATABASE)
        finally:
            self.server.kill()
            self.ledger.close()

    def _limit(self, size: int) -> None:
        for pid in self.server.ingest_pids():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _judge_moment(disk: CrashDisk, answers: AnswerReader, scratch: Path, tally: Tally) -> None:
    write_state(scratch, disk.nothing_more())
    found = judge_state(scratch, answers.promises)
    if found.lost:
        tally.find("lost", f"acknowledged, not synced: {found.detail}", found.lost)
    if found.wrong:
        tally.find("wrong", f"synced state: {found.detail}", found.wrong)


# --- controls --------------------------------------------------------------------------------------------------


def _sync_off(directory: Path, template: Path, catalog: Catalog, seed: int) -> Control:
    """A server that does not sync must be seen acknowledging what is not on the disk."""
    case = Case(directory, template, catalog, seed, env={"POSTBACKD_UNSAFE_SYNC": "off"})
    tally = case.run(Fault("pwrite64", "EIO", 90, 60), Counter())
    return Control("POSTBACKD_UNSAFE_SYNC=off", tally.lost > 0, tally.figures)


def _trusting(directory: Path, template: Path, catalog: Catalog, seed: int) -> Control:
    """A sender that takes 503 for "stored" must be seen losing: the faults really hit requests."""
    mix = Mix(first_clicks=10, retried=0.0)
    case = Case(directory, template, catalog, seed, mix=mix, trust_503=True)
    tally = case.run(Fault("pwrite64", "EIO", 90, 60), Counter())
    return Control("503 taken for stored", tally.lost > 0, tally.figures)
