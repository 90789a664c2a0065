"""Each check of the doctor is a plain function: facts in, findings out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from time import time
from typing import Any

import apsw
import msgspec
import pytest

from postbackd.backup.files import BackupFile, Failure, name_at
from postbackd.cli.doctor.backups import BackupFacts, check_backups
from postbackd.cli.doctor.clock import check_drift, check_newest
from postbackd.cli.doctor.files import Disk, check_disk, growth_of
from postbackd.cli.doctor.invariants import check_counted, check_queued, check_received
from postbackd.cli.doctor.versions import check_python, check_sqlite
from postbackd.core.click_id import first_stamp_at
from postbackd.core.diagnosis import Reason
from postbackd.core.finding import Finding
from postbackd.core.verdicts import Verdict
from tests.cli.conftest import Run
from tests.cli.test_doctor import add_postbacks, findings_of

NOW_MS = 1_790_000_000_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
GIB = 1 << 30


def made(age_h: float, size: int = 1000) -> BackupFile:
    ms = NOW_MS - int(age_h * HOUR_MS)
    return BackupFile(Path(name_at(ms)), ms, size)


FACTS = BackupFacts(
    "/backups", 24, (made(30), made(6)), 10 * GIB, same_disk=False, failure=None, encrypted=True
)


def failed(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings if not finding.ok]


@pytest.mark.parametrize(
    ("change", "checks"),
    [
        ({}, []),
        ({"backups": None}, ["backups"]),
        ({"backups": ()}, ["backups"]),
        ({"backups": (made(35),)}, []),
        ({"backups": (made(37),)}, ["backups"]),
        ({"every_h": 1}, ["backups"]),
        ({"failure": Failure(NOW_MS, "no space is left")}, ["last backup"]),
        ({"backups": (made(1, 6 * GIB),)}, ["backup disk"]),
    ],
)
def test_backups_are_fresh_whole_and_have_room(change: dict[str, Any], checks: list[str]) -> None:
    findings = check_backups(msgspec.structs.replace(FACTS, **change), NOW_MS)
    assert failed(findings) == checks
    assert all(finding.fix for finding in findings if not finding.ok)


def test_a_backup_on_the_disk_of_the_data_is_said() -> None:
    same = msgspec.structs.replace(FACTS, same_disk=True)
    assert "both go when it fails" in check_backups(same, NOW_MS)[-1].detail


@pytest.mark.parametrize(
    ("ahead_ms", "ok"), [(0, True), (59_000, True), (61_000, False), (10 * DAY_MS, False)]
)
def test_a_row_from_the_future_says_that_the_clock_jumped(ahead_ms: int, ok: bool) -> None:
    assert check_newest(NOW_MS, first_stamp_at(NOW_MS + ahead_ms)).ok is ok
    assert check_newest(NOW_MS, 0).ok


@pytest.mark.parametrize(("apart_ms", "ok"), [(0, True), (-1999, True), (2001, False), (-90_000, False)])
def test_the_clock_of_the_database_server_is_compared(apart_ms: int, ok: bool) -> None:
    assert check_drift(NOW_MS, NOW_MS + apart_ms).ok is ok


def test_a_disk_that_will_be_full_soon_is_found() -> None:
    assert check_disk(Disk(10 * GIB)).ok
    assert check_disk(Disk(10 * GIB, GIB / 2)).ok
    assert not check_disk(Disk(10 * GIB, GIB)).ok
    assert not check_disk(Disk(GIB // 4)).ok


def test_growth_is_read_from_the_backups() -> None:
    backups = [made(48, 1_000), made(24, 1_500), made(0, 2_000)]
    assert growth_of(backups, 20_000) == 5_000
    assert growth_of([made(20, 1), made(0, 2)], 10) is None
    assert growth_of([], 10) is None
    assert growth_of([made(48, 2_000), made(0, 1_000)], 10_000) == 0


def test_requests_and_deliveries_add_up() -> None:
    found = check_received({1: 5, 2: 3, 5: 1})
    assert found.ok
    assert found.detail.startswith("9 postbacks in the last day = 5 accepted + 3 duplicate + 0 updated")
    assert not check_received({1: 5, 7: 1}).ok  # "queued" never stands in a database
    assert check_queued({1: 2, 2: 8, 3: 1, 4: 1}).ok
    assert not check_queued({9: 1}).ok
    assert check_counted([], []).ok
    assert not check_counted([{"request_id": 1}], []).ok
    assert not check_counted([], [{"request_id": 1}]).ok


@pytest.mark.parametrize(
    ("damage", "code", "says"),
    [
        ("UPDATE postbacks SET verdict = 99", 1, "FAILED  received: "),
        ("UPDATE postbacks SET verdict = 5, reason = 99", 0, "ok      received: "),
    ],
)
def test_a_number_that_there_is_not_in_one_row_takes_no_check_no_report_and_no_log_away(
    filled: Run, data: Path, damage: str, code: int, says: str
) -> None:
    add_postbacks(data, 3, Verdict.UNMATCHED, Reason.CLICK_ID_EMPTY, int(time() * 1000))
    with closing(apsw.Connection(str(data / "postbackd.db"))) as db:
        db.execute(f"{damage} WHERE request_id = (SELECT min(request_id) FROM postbacks)")
    assert says in filled("doctor", code=code).out
    assert "unknown (99)" in filled("log").out
    filled("report")
    filled("metrics")


def test_a_torn_page_is_called_damage_and_not_a_database_that_does_not_answer(
    filled: Run, data: Path
) -> None:
    with closing(apsw.Connection(str(data / "postbackd.db"))) as db:
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'conversions'").get
        size = db.pragma("page_size")
    with (data / "postbackd.db").open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * 8)
    said = filled("doctor", code=1).out
    assert "is damaged" in said
    assert "try again" not in said
    assert "restore a backup" in said


def test_versions_that_are_too_old_are_found() -> None:
    assert check_sqlite("3.51.3").ok
    assert not check_sqlite("3.46.1").ok
    assert check_python("3.13.0rc1").ok
    assert not check_python("3.10.9").ok


def test_a_finding_is_one_line(filled: Run, data: Path) -> None:
    (data / "postbackd.db").chmod(0o644)
    ran = filled("doctor", code=1)
    (line,) = [line for line in ran.out.splitlines() if line.startswith("FAILED")]
    assert "permissions" in line
    assert "chmod 600" in line


def test_an_accepted_postback_without_its_conversion_is_found(filled: Run, data: Path) -> None:
    from postbackd.cli.options import now_ms
    from postbackd.core.diagnosis import Reason

    add_postbacks(data, 1, Verdict.ACCEPTED, Reason.NONE, ms=now_ms() - 1000)
    db = apsw.Connection(str(data / "postbackd.db"))
    db.execute("UPDATE postbacks SET click_id = 1, conversion_id = request_id")
    db.close()
    findings = findings_of(filled, 1)
    assert [name for name, finding in findings.items() if not finding["ok"]] == ["counted"]
    assert filled("verify", code=1).out.startswith("log: ")


def test_a_database_that_was_written_in_the_future_is_found(filled: Run, data: Path) -> None:
    from postbackd.cli.options import now_ms
    from postbackd.core.diagnosis import Reason

    add_postbacks(data, 1, Verdict.REJECTED, Reason.VALUE_INVALID, ms=now_ms() + DAY_MS)
    assert findings_of(filled, 1)["clock"]["ok"] is False
