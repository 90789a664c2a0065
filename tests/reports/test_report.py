"""The figures of a report, from rows whose answer can be counted by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from postbackd.core.click_id import first_stamp_at
from postbackd.core.diagnosis import Reason
from postbackd.core.histogram import bucket_of, upper_us
from postbackd.core.verdicts import Verdict
from postbackd.reports.period import Period, read_moment
from postbackd.reports.report import GROUPED_BY, build_report
from postbackd.reports.table import format_report
from postbackd.runtime import open_store
from postbackd.settings import Settings

DAY_ONE_MS = read_moment("2026-03-01", 0)
DAY_TWO_MS = read_moment("2026-03-02", 0)

CATALOG = """
INSERT INTO networks (id, name, key, currency, dedup, strict, answer, fields, types, statuses, removed_ms)
VALUES (1, 'N', 'k', 'USD', 'ignore', 0, 'json', '{}', '[]', '{}', NULL),
       (2, 'M', 'l', 'USD', 'ignore', 0, 'json', '{}', '[]', '{}', 5);
INSERT INTO sources VALUES (1, 'S', NULL, '{}', NULL);
INSERT INTO offers VALUES (1, 'O', 1, 'https://x.example/', 0, 1000, NULL), (2, 'P', 2, 'https://x.example/', 0, 9, 5);
INSERT INTO campaigns VALUES (1, 'C', 'c', 1, '[[1,1]]', NULL);
"""


async def _make(settings: Settings) -> None:
    store = await open_store(settings, create=True)
    await store.close()


class Database:
    """Rows put in by hand."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(data=str(directory))
        asyncio.run(_make(self.settings))
        self.db = apsw.Connection(str(directory / "postbackd.db"))
        self.db.execute(CATALOG)

    def click(self, ms: int, *, offer: int = 1, kind: int = 0) -> int:
        stamp = self._next("clicks", "click_id", ms)
        self.db.execute(
            "INSERT INTO clicks (click_id, campaign, offer, kind) VALUES (?, 1, ?, ?)", (stamp, offer, kind)
        )
        return stamp

    def postback(
        self,
        ms: int,
        verdict: Verdict,
        reason: Reason = Reason.NONE,
        *,
        click_id: int | None = None,
        network: int = 1,
        size: int = 100,
        parameters: int = 3,
        type_: str | None = None,
    ) -> int:
        stamp = self._next("postbacks", "request_id", ms)
        campaign = None if click_id is None else 1
        self.db.execute(
            "INSERT INTO postbacks (request_id, network, channel, verdict, reason, click_id, campaign, type, bytes, "
            "parameters) VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?, ?)",
            (stamp, network, int(verdict), int(reason), click_id, campaign, type_, size, parameters),
        )
        return stamp

    def conversion(
        self,
        click_id: int,
        conversion_id: int,
        value: int,
        *,
        status: int = 2,
        currency: str = "USD",
        channels: int = 1,
    ) -> None:
        self.db.execute(
            "INSERT INTO conversions VALUES (?, 'conversion', ?, ?, 1, 1, 1, ?, ?, ?, ?, 0, NULL)",
            (click_id, str(conversion_id), conversion_id, status, value, currency, channels),
        )

    def _next(self, table: str, column: str, ms: int) -> int:
        stamp = first_stamp_at(ms)
        while self.db.execute(f"SELECT 1 FROM {table} WHERE {column} = ?", (stamp,)).get:
            stamp += 1
        return stamp

    def report(self, by: str | None = None, period: Period | None = None) -> dict[str, Any]:
        async def work() -> dict[str, Any]:
            store = await open_store(self.settings, create=False)
            try:
                return await build_report(store, period or Period(), by)
            finally:
                await store.close()

        return asyncio.run(work())


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "data")
    yield made
    made.db.close()


def test_a_rate_of_nothing_is_null(database: Database) -> None:
    report = database.report()
    for name in ("match_rate", "duplicate_rate", "postback_success_rate", "share_over_10_parameters"):
        assert report[name] is None
    assert report["response_ms"] == {"count": 0, "average": None, "p50": None, "p95": None, "p99": None}
    assert report["request_bytes"] == {"average": None, "share_under_200": None}
    assert (report["clicks"], report["postbacks"]["total"]) == (0, 0)
    assert report["conversions"]["count"] == 0
    assert "match rate        -" in format_report(report)


def test_only_counted_clicks_are_counted(database: Database) -> None:
    for kind in (0, 0, 1, 2):
        database.click(DAY_ONE_MS, kind=kind)
    assert database.report()["clicks"] == 2


def test_matched_is_whose_click_was_found_and_ids_that_were_not_sent_are_left_out(database: Database) -> None:
    click = database.click(DAY_ONE_MS)
    database.postback(DAY_ONE_MS, Verdict.ACCEPTED, click_id=click)
    database.postback(DAY_ONE_MS, Verdict.REJECTED, Reason.CLICK_AFTER_WINDOW, click_id=click)
    database.postback(DAY_ONE_MS, Verdict.HELD, Reason.CURRENCY_UNKNOWN, click_id=click)
    database.postback(DAY_ONE_MS, Verdict.UNMATCHED, Reason.CLICK_NOT_YET_SEEN, click_id=click + 99)
    database.postback(DAY_ONE_MS, Verdict.UNMATCHED, Reason.MACRO_LITERAL)
    for reason in (Reason.CLICK_ID_MISSING, Reason.CLICK_ID_EMPTY, Reason.TEST_EVENT, Reason.BODY_MALFORMED):
        database.postback(DAY_ONE_MS, Verdict.UNMATCHED, reason)
    assert database.report()["match_rate"] == 0.6


def test_the_health_line_is_drawn_at_ninety_percent(database: Database) -> None:
    click = database.click(DAY_ONE_MS)
    for _ in range(9):
        database.postback(DAY_ONE_MS, Verdict.DUPLICATE, click_id=click)
    database.postback(DAY_ONE_MS, Verdict.UNMATCHED, Reason.CLICK_ID_FOREIGN)
    assert "healthy" in format_report(database.report())
    database.postback(DAY_ONE_MS, Verdict.UNMATCHED, Reason.CLICK_ID_FOREIGN)
    assert "BELOW 90%" in format_report(database.report())


def test_verdicts_reasons_rates_and_sizes(database: Database) -> None:
    click = database.click(DAY_ONE_MS)
    database.postback(DAY_ONE_MS, Verdict.ACCEPTED, click_id=click, size=199, parameters=10)
    database.postback(DAY_ONE_MS, Verdict.DUPLICATE, click_id=click, size=200, parameters=11)
    database.postback(DAY_ONE_MS, Verdict.REJECTED, Reason.VALUE_INVALID, click_id=click, size=300)
    database.postback(DAY_ONE_MS, Verdict.UNMATCHED, Reason.CLICK_ID_MISSING, size=1)
    minute = DAY_ONE_MS // 60_000
    database.db.execute("INSERT INTO refusals VALUES (?, 'busy', 4), (?, 'not_found', 9)", (minute, minute))
    report = database.report()
    assert report["postbacks"]["total"] == 4
    assert report["postbacks"]["by_verdict"] == {
        "accepted": 1, "duplicate": 1, "updated": 0, "held": 0, "unmatched": 1, "rejected": 1,
    }  # fmt: skip
    assert report["postbacks"]["by_reason"] == {"click_id_missing": 1, "value_invalid": 1}
    assert report["refusals"] == {"busy": 4, "not_found": 9}
    assert (report["duplicate_rate"], report["postback_success_rate"]) == (0.25, 0.25)
    assert report["request_bytes"] == {"average": 175.0, "share_under_200": 0.5}
    assert report["share_over_10_parameters"] == 0.25


def test_money_is_added_by_currency_and_status_without_overflow(database: Database) -> None:
    click = database.click(DAY_ONE_MS)
    largest = 10**18
    for number in range(20):
        database.conversion(click, first_stamp_at(DAY_ONE_MS) + number, largest)
    database.conversion(click, first_stamp_at(DAY_ONE_MS) + 50, 1, currency="EUR", status=1)
    database.conversion(click, first_stamp_at(DAY_ONE_MS) + 51, 12_500_000, currency="EUR", status=4)
    conversions = database.report()["conversions"]
    assert conversions["count"] == 22
    assert conversions["by_status"] == {"pending": 1, "approved": 20, "rejected": 0, "reversed": 1}
    assert conversions["value"] == {
        "EUR": {"pending": "0.000001", "reversed": "12.50"},
        "USD": {"approved": "20000000000000.00"},
    }


def test_postbacks_that_only_test_do_not_lower_the_success_rate(database: Database) -> None:
    database.postback(DAY_ONE_MS, Verdict.ACCEPTED)
    database.postback(DAY_ONE_MS, Verdict.REJECTED, Reason.TEST_EVENT)
    report = database.report()
    assert report["postbacks"]["total"] == 2
    assert report["postback_success_rate"] == 1.0


def test_channels_are_compared(database: Database) -> None:
    click = database.click(DAY_ONE_MS)
    for number, channels in enumerate((1, 1, 1, 2, 3, 3)):
        database.conversion(click, first_stamp_at(DAY_ONE_MS) + number, 0, channels=channels)
    assert database.report()["channels"] == {
        "s2s": 5,
        "pixel": 3,
        "both": 2,
        "only_s2s": 3,
        "only_pixel": 1,
        "imported": 0,
    }


def test_response_times_come_from_the_histogram_of_the_period(database: Database) -> None:
    insert = "INSERT INTO response_times VALUES (?, ?, ?, ?)"
    for minute, us, count in ((0, 300, 98), (0, 4_000, 2), (1440, 50_000, 5)):
        row = (DAY_ONE_MS // 60_000 + minute, bucket_of(us), count, us * count)
        database.db.execute(insert, row)
    times = database.report(period=Period(DAY_ONE_MS, DAY_TWO_MS))["response_ms"]
    assert times == {
        "count": 100,
        "average": 0.374,
        "p50": upper_us(bucket_of(300)) / 1000,
        "p95": upper_us(bucket_of(300)) / 1000,
        "p99": upper_us(bucket_of(4_000)) / 1000,
    }
    assert database.report(period=Period(DAY_TWO_MS, None))["response_ms"]["count"] == 5


def test_a_period_holds_its_beginning_and_not_its_end(database: Database) -> None:
    for ms in (DAY_ONE_MS - 1, DAY_ONE_MS, DAY_TWO_MS - 1, DAY_TWO_MS):
        click = database.click(ms)
        database.conversion(click, database.postback(ms, Verdict.ACCEPTED, click_id=click), 1_000_000)
    report = database.report(period=Period(DAY_ONE_MS, DAY_TWO_MS))
    assert (report["clicks"], report["postbacks"]["total"], report["conversions"]["count"]) == (2, 2, 2)
    assert (report["since"], report["until"]) == ("2026-03-01T00:00:00.000Z", "2026-03-02T00:00:00.000Z")


@pytest.mark.parametrize("by", GROUPED_BY)
def test_the_groups_add_up_to_the_whole(database: Database, by: str) -> None:
    for ms, verdict in ((DAY_ONE_MS, Verdict.ACCEPTED), (DAY_TWO_MS, Verdict.DUPLICATE)):
        click = database.click(ms)
        request = database.postback(ms, verdict, click_id=click)
        database.conversion(click, request, 1_000_000)
    database.postback(DAY_TWO_MS, Verdict.UNMATCHED, Reason.CLICK_ID_FOREIGN, network=2, type_=" Lead ")
    report = database.report(by)
    assert report["by"] == by
    assert all(by in group for group in report["groups"])
    assert sum(group["postbacks"]["total"] for group in report["groups"]) == 3
    if report["groups"][0]["clicks"] is not None:
        assert sum(group["clicks"] for group in report["groups"]) == 2
    if report["groups"][0]["conversions"] is not None:
        assert sum(group["conversions"]["count"] for group in report["groups"]) == 2
    assert format_report(report).count("\n") > 10


def test_groups_bear_names_days_hours_and_words(database: Database) -> None:
    click = database.click(DAY_ONE_MS + 3_600_000)
    database.postback(DAY_ONE_MS + 3_600_000, Verdict.ACCEPTED, click_id=click, type_="Lead")
    database.postback(DAY_ONE_MS + 3_600_000, Verdict.REJECTED, Reason.TEST_EVENT, network=2)
    names = {by: {group[by] for group in database.report(by)["groups"]} for by in GROUPED_BY}
    assert names == {
        "campaign": {"C", None},
        "offer": {"O", None},
        "source": {"S", None},
        "network": {"N", "M"},
        "day": {"2026-03-01"},
        "hour": {"2026-03-01T01:00Z"},
        "type": {"lead", "conversion"},
        "verdict": {"accepted", "rejected"},
        "reason": {"none", "test_event"},
    }
