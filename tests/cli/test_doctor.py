"""The doctor finds what is wrong and says what to do; the purge deletes what it was told to."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from postbackd.cli.options import now_ms
from postbackd.core.click_id import first_stamp_at
from postbackd.core.diagnosis import Reason
from postbackd.core.verdicts import Verdict
from tests.cli.conftest import Run


def findings_of(run: Run, code: int) -> dict[str, dict[str, object]]:
    return {finding["check"]: finding for finding in run("doctor", "--json", code=code).json}


def add_postbacks(
    data: Path, count: int, verdict: Verdict, reason: Reason, ms: int = 1_780_000_000_000
) -> None:
    db = apsw.Connection(str(data / "postbackd.db"))
    first = first_stamp_at(ms) + int(verdict) * 1000
    db.executemany(
        "INSERT INTO postbacks (request_id, network, channel, verdict, reason, click_id, bytes, parameters) "
        "VALUES (?, 1, 1, ?, ?, ?, 50, 3)",
        [
            (first + n, int(verdict), int(reason), 1 if verdict is Verdict.DUPLICATE else None)
            for n in range(count)
        ],
    )
    db.close()


def test_a_healthy_installation_passes_every_check(filled: Run) -> None:
    findings = findings_of(filled, 0)
    assert all(finding["ok"] for finding in findings.values())
    assert set(findings) >= {
        "data directory",
        "permissions",
        "disk",
        "SQLite",
        "journal mode",
        "integrity",
        "catalog",
    }
    assert filled("doctor").out.count("ok  ") == len(findings)


def test_a_missing_directory_and_an_empty_catalog_fail_with_what_to_do(run: Run) -> None:
    ran = run("doctor", code=1)
    assert "does not exist" in ran.out
    assert ran.err.count("\n") == 1
    run("network", "add", "N")
    finding = findings_of(run, 1)["catalog"]
    assert "Add a network" in str(finding["fix"])


def test_a_database_that_others_can_read_is_found(filled: Run, data: Path) -> None:
    (data / "postbackd.db").chmod(0o644)
    finding = findings_of(filled, 1)["permissions"]
    assert "chmod 600" in str(finding["fix"])


def test_a_damaged_database_is_found(filled: Run, data: Path) -> None:
    (data / "postbackd.db").write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    finding = findings_of(filled, 1)["database"]
    assert finding["ok"] is False


@pytest.mark.parametrize(("matched", "healthy"), [(90, True), (89, False)])
def test_a_low_match_rate_names_the_main_reasons_and_their_fixes(
    filled: Run, data: Path, matched: int, healthy: bool
) -> None:
    yesterday = now_ms() - 86_400_000
    add_postbacks(data, matched, Verdict.DUPLICATE, Reason.NONE, yesterday)
    add_postbacks(data, 100 - matched, Verdict.UNMATCHED, Reason.MACRO_LITERAL, yesterday)
    finding = findings_of(filled, 0 if healthy else 1)["match rate of TUNE"]
    assert finding["ok"] is healthy
    if not healthy:
        assert "11 macro_literal" in str(finding["detail"])
        assert Reason.MACRO_LITERAL.fix in str(finding["fix"])


def test_a_low_match_rate_is_not_blamed_on_postbacks_that_matched_or_had_no_click_id(
    filled: Run, data: Path
) -> None:
    yesterday = now_ms() - 86_400_000
    add_postbacks(data, 10, Verdict.UNMATCHED, Reason.MACRO_LITERAL, yesterday)
    add_postbacks(data, 50, Verdict.DUPLICATE, Reason.VALUE_INVALID, yesterday)
    add_postbacks(data, 90, Verdict.UNMATCHED, Reason.CLICK_ID_MISSING, yesterday + 1000)
    finding = findings_of(filled, 1)["match rate of TUNE"]
    assert str(finding["detail"]).endswith("matched; 10 macro_literal")
    assert finding["fix"] == f"For macro_literal: {Reason.MACRO_LITERAL.fix}"


def test_a_match_rate_is_that_of_the_last_seven_days(filled: Run, data: Path) -> None:
    add_postbacks(data, 1000, Verdict.UNMATCHED, Reason.MACRO_LITERAL, now_ms() - 8 * 86_400_000)
    add_postbacks(data, 100, Verdict.DUPLICATE, Reason.NONE, now_ms() - 6 * 86_400_000)
    finding = findings_of(filled, 0)["match rate of TUNE"]
    assert finding["detail"] == "100.0% of 100 postbacks of the last 7 days matched"


def test_a_purge_says_what_would_go_and_deletes_it_with_yes(filled: Run, data: Path) -> None:
    add_postbacks(data, 10, Verdict.UNMATCHED, Reason.CLICK_ID_FOREIGN)
    add_postbacks(data, 5, Verdict.REJECTED, Reason.VALUE_INVALID, ms=1_790_000_000_000)
    before = ("purge", "--before", "2026-08-01")
    assert "would delete 0 clicks and 10 log rows" in filled(*before).out
    assert filled("report", "--json").json["postbacks"]["total"] == 15
    assert filled(*before, "--yes", "--json").json == {
        "before": "2026-08-01T00:00:00.000Z",
        "clicks": 0,
        "postbacks": 10,
        "exact": True,
        "deleted": True,
    }
    assert filled("report", "--json").json["postbacks"]["total"] == 5
