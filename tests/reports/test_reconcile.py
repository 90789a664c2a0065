"""A partner's export against what is counted here, on every store: each planted difference is found, with its money."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from postbackd.core.click_id import stamp_ms
from postbackd.core.exports import ExportError, Given
from postbackd.core.model import Channel, Click, Network, Rule, Target
from postbackd.core.reconciling import Bucket
from postbackd.reports.explore import explore
from postbackd.reports.importing import Imported, Wish, take_in
from postbackd.reports.measures import Measures
from postbackd.reports.period import Period
from postbackd.reports.question import Question
from postbackd.reports.reconcile import Asked, reconcile
from postbackd.reports.reconcile_entries import COLUMNS, describe_entry, write_bucket
from postbackd.reports.report import build_report
from postbackd.store.reconcile_file import ReconcileFile
from postbackd.upkeep.import_turns import ImportTurns
from postbackd.upkeep.rollups import RollupKeeper
from tests.store.conftest import PARAMETERS
from tests.store.contract import Kind, World

HEADER = ("Order ID", "Sub ID", "Payout", "Currency", "Status", "Conversion Date")


@pytest.fixture(scope="module", params=[kind for kind in PARAMETERS if kind.id != "postgres15"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One database a module; each test has a network of its own in it."""
    kind: Kind = request.param
    made = World(kind, tmp_path_factory.mktemp("world") / "data")
    yield made
    made.close()


class Desk:
    """A network, what was counted for it, and its exports."""

    def __init__(self, world: World, folder: Path, network: str) -> None:
        self.world, self.folder, self.network = world, folder, world.networks[network]
        self.day_ms = world.now_ms // 86_400_000 * 86_400_000
        world.now_ms = self.day_ms + 12 * 3_600_000

    def count(
        self, transaction: str, value: str = "10", status: str = "approved", at_h: float = 0, more: str = ""
    ) -> Click:
        """Count a conversion so many hours from noon."""
        noon = self.world.now_ms
        self.world.now_ms = noon + int(at_h * 3_600_000)
        click = self.world.click()
        query = f"value={value}&status={status}{more}" + (f"&txid={transaction}" if transaction else "")
        assert self.world.send(click, query, self.network.name).verdict == "accepted"
        self.world.now_ms = noon
        return click

    def shown(self, click: Click, zone_h: float = 0) -> str:
        """When its conversion was counted, by a clock of a zone."""
        rows = self.world.conversions(click)
        counted_ms = stamp_ms(rows[0]["conversion_id"]) if rows else self.world.now_ms
        moment = datetime.fromtimestamp(counted_ms / 1000, UTC) - timedelta(seconds=2)
        return moment.astimezone(timezone(timedelta(hours=zone_h))).strftime("%Y-%m-%d %H:%M:%S")

    def row(self, transaction: str, click: Click | None, value: str = "10.00", status: str = "approved",
            zone_h: float = 0, currency: str = "USD", shown: str | None = None) -> tuple[str, ...]:  # fmt: skip
        id_ = "" if click is None else self.world.id_of(click)
        time = shown if shown is not None else (self.shown(click, zone_h) if click is not None else "")
        return transaction, id_, value, currency, status, time

    def export(self, rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> bytes:
        text = io.StringIO()
        csv.writer(text).writerows([header, *rows])
        return text.getvalue().encode()

    def compare(self, content: bytes, **asked: Any) -> tuple[dict[str, Any], ReconcileFile]:
        number = len(list(self.folder.iterdir()))
        source = self.folder / f"{number}.csv"
        source.write_bytes(content)
        file = ReconcileFile(self.folder / f"{number}.db", create=True)
        about = Asked(network=self.network, file_name="export.csv", **asked)
        now_ms = self.world.now_ms + 2 * 86_400_000
        document = self.world.run(
            reconcile(self.world.store, self.world.rulebook, about, source, file, now_ms)
        )
        assert sum(bucket["rows"] for bucket in document["buckets"]) == document["rows"]
        return document, file

    def turns(self) -> Any:
        return ImportTurns(self.world.store, self.folder, 0).take

    def take_in(self, file: ReconcileFile, **wish: Any) -> Imported:
        imported: Imported = self.world.run(self.importing(file, **wish))
        return imported

    def importing(self, file: ReconcileFile, **wish: Any) -> Any:
        about = Wish(network=self.network, **wish)
        clock_ms = self.world.now_ms + 86_400_000
        return take_in(self.world.store, self.world.rulebook, file, about, self.turns(), lambda: clock_ms)


@pytest.fixture
def desk(shared: World, tmp_path: Path, request: pytest.FixtureRequest) -> Desk:
    mode = getattr(request, "param", "ignore")
    name = f"n{len(shared.networks)}"
    shared.networks[name] = shared.save(Network(id=0, name=name, key=f"key-{name}", dedup=mode))
    shared.reload()
    folder = tmp_path / "exports"
    folder.mkdir()
    shared.now_ms += 40 * 86_400_000
    return Desk(shared, folder, name)


def buckets(document: Mapping[str, Any]) -> dict[str, tuple[int, int, dict[str, str], dict[str, str]]]:
    """Those in which there is something."""
    return {
        bucket["bucket"]: (bucket["rows"], bucket["conversions"], bucket["theirs"], bucket["ours"])
        for bucket in document["buckets"]
        if bucket["rows"] or bucket["conversions"]
    }


def test_each_planted_difference_is_found_with_its_exact_money(desk: Desk) -> None:
    desk.count("YESTERDAY", "3", at_h=-20)
    same = [desk.count(f"S{n}", "10.10", at_h=n / 10) for n in range(5)]
    value, currency, status, back = (desk.count(name, "20") for name in ("V1", "V2", "ST", "BACK"))
    desk.count("GONE", "7.77")
    never = desk.world.click()
    rows = [
        *(desk.row(f"S{n}", click, "10.10") for n, click in enumerate(same)),
        desk.row("V1", value, "19.99"),
        desk.row("V2", currency, "20.00", currency="EUR"),
        desk.row("ST", status, "20.00", "pending"),
        desk.row("BACK", back, "20.00", "chargeback"),
        desk.row("S0", same[0], "10.10"),
        desk.row("NEW", never, "5.55", shown=desk.shown(value)),
        desk.row("NEW", never, "5.55", shown=desk.shown(value)),
        ("Total", "", "", "", "", ""),
        ("", "", "1234.50", "USD", "", ""),
        ("BAD", "", "12.3.4", "USD", "approved", ""),
    ]
    document, _ = desk.compare(desk.export(rows))
    assert buckets(document) == {
        "agrees": (5, 5, {"USD": "50.50"}, {"USD": "50.50"}),
        "value_differs": (2, 2, {"EUR": "20.00", "USD": "19.99"}, {"USD": "40.00"}),
        "status_differs": (2, 2, {"USD": "20.00"}, {"USD": "40.00"}),
        "missing_here": (1, 0, {"USD": "5.55"}, {}),
        "missing_there": (0, 1, {}, {"USD": "7.77"}),
        "duplicate": (2, 0, {"USD": "15.65"}, {}),
        "outside_window": (0, 1, {}, {"USD": "3.00"}),
        "unusable": (3, 0, {"USD": "1234.50"}, {}),
    }


def test_a_clock_that_is_ahead_is_found_and_explains_the_other_day(desk: Desk) -> None:
    late = desk.count("T0", at_h=-13.5)  # 22:30 of the day before: past midnight there
    clicks = [desk.count(f"T{n}", at_h=n / 4) for n in range(1, 8)]
    rows = [desk.row(f"T{n}", click, zone_h=2) for n, click in enumerate([late, *clicks])]
    document, file = desk.compare(desk.export(rows))
    assert document["clock"]["shift_minutes"] == 120
    assert "UTC+02:00" in document["clock"]["sentence"]
    assert buckets(document) == {
        "agrees": (7, 7, {"USD": "70.00"}, {"USD": "70.00"}),
        "other_day": (1, 1, {"USD": "10.00"}, {"USD": "10.00"}),
    }
    (entry,) = file.page(Bucket.OTHER_DAY, 0, 10)
    described = describe_entry(entry, desk.world.rulebook.keys)
    assert described["time"][:13] == described["our_time"][:13]


def test_a_conversion_without_transaction_id_is_matched_by_its_click_and_two_are_told_as_unusable(
    desk: Desk,
) -> None:
    unnamed = desk.count("")
    twice = desk.count("A")
    assert desk.world.send(twice, "txid=B&value=10", desk.network.name).verdict == "accepted"
    other = desk.count("C")
    rows = [
        desk.row("X", unnamed),
        desk.row("", twice),  # two conversions of this click: which?
        desk.row("C", desk.world.click()),  # C is counted for another click
        desk.row("D", other),
    ]
    document, file = desk.compare(desk.export(rows))
    assert {name: count[0] for name, count in buckets(document).items() if count[0]} == {
        "agrees": 1, "missing_here": 1, "unusable": 2,
    }  # fmt: skip
    reasons = {problem["reason"]: problem["lines"] for problem in document["unusable"]}
    assert reasons == {"several_conversions": [3], "another_click": [4]}
    imported = desk.take_in(file)
    assert (imported.counted, imported.left_out) == (0, {"other_transaction": 1})
    assert desk.take_in(file, doubtful=True, only_try=True).counted == 1


def test_an_import_is_previewed_counts_once_and_marks_what_it_counted(desk: Desk) -> None:
    desk.count("KNOWN")
    missing = [desk.world.click() for _ in range(3)]
    unknown = desk.world.make_click()
    shown = datetime.fromtimestamp(desk.world.now_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    rows = [desk.row(f"M{n}", click, "2.50", "pending", shown=shown) for n, click in enumerate(missing)]
    rows += [desk.row("GHOST", unknown, shown=shown), desk.row("NOCLICK", None)]
    _, file = desk.compare(desk.export(rows))
    before = desk.world.query("log", limit=1000)
    preview = desk.take_in(file, only_try=True)
    assert (preview.counted, preview.value, preview.left_out) == (3, {"USD": "7.50"}, {"no_click": 1})
    assert preview.refused == {"unmatched (click_not_yet_seen)": 1}
    assert desk.world.query("log", limit=1000) == before
    assert desk.take_in(file).counted == 3
    assert desk.take_in(file).refused["duplicate"] == 3
    assert [desk.world.conversion(click) for click in missing] == [("pending", 2, Channel.IMPORT)] * 3
    assert desk.world.send(missing[0], "txid=M0&status=approved", desk.network.name).verdict == "updated"
    assert desk.world.conversion(missing[0]) == ("approved", 2, Channel.S2S | Channel.IMPORT)
    again, _ = desk.compare(desk.export(rows))
    assert buckets(again)["agrees"][0] == 2
    assert buckets(again)["status_differs"][0] == 1


@pytest.mark.parametrize("desk", ["ignore", "update", "add", "hold"], indirect=True)
def test_an_import_twice_in_parallel_and_a_late_postback_count_once(desk: Desk) -> None:
    desk.count("")
    missing = [desk.world.click() for _ in range(30)]
    _, file = desk.compare(desk.export([desk.row(f"P{n}", click) for n, click in enumerate(missing)]))

    async def together() -> list[Imported]:
        return list(await asyncio.gather(desk.importing(file), desk.importing(file)))

    one, other = desk.world.run(together())
    assert one.counted + other.counted == 30
    assert (
        not one.transaction_ids
    )  # this network's postbacks carry none, so that this late one is a duplicate
    assert desk.world.send(missing[0], "value=10", desk.network.name).verdict == "duplicate"
    assert all(len(desk.world.conversions(click)) == 1 for click in missing)


def test_the_pixel_changes_nothing_that_an_import_said_and_an_import_nothing_that_is_counted(
    desk: Desk,
) -> None:
    world, name = desk.world, desk.network.name
    click, seen = world.click(), world.click()
    assert world.send(seen, "value=9", name, Channel.PIXEL).verdict == "accepted"
    _, file = desk.compare(desk.export([desk.row("A", click, "5.00"), desk.row("B", seen, "4.00")]))
    assert desk.take_in(file).counted == 1
    assert world.send(click, "value=99&status=reversed", name, Channel.PIXEL).verdict == "duplicate"
    assert world.conversion(click) == ("approved", 5, Channel.IMPORT | Channel.PIXEL)
    again = world.make(seen, "value=4&status=reversed&txid=B", name, Channel.IMPORT)
    assert world.settle(again)[0].verdict == "duplicate"
    assert world.conversion(seen) == ("approved", 9, Channel.PIXEL)
    assert world.send(seen, "value=4&txid=B", name).verdict == "updated"
    assert world.conversion(seen) == ("approved", 4, Channel.PIXEL | Channel.S2S)


def test_sources_hear_of_an_import_only_when_that_is_asked_for(desk: Desk) -> None:
    world = desk.world
    target = world.save(Target(id=0, name=f"t-{desk.network.name}"))
    rule = world.save(Rule(id=0, name=f"r-{desk.network.name}", target=target.id, campaign=world.campaign.id))
    world.reload()
    try:
        (before,) = world.query("outbox_count")
        quiet, told = world.click(), world.click()
        _, file = desk.compare(desk.export([desk.row("Q", quiet)]))
        assert desk.take_in(file).counted == 1
        assert world.query("outbox_count")[0]["count"] == before["count"]
        _, file = desk.compare(desk.export([desk.row("Q", quiet), desk.row("R", told)]))
        assert desk.take_in(file, deliver=True).counted == 1
        assert world.query("outbox_count")[0]["count"] == before["count"] + 1
    finally:
        world.remove(rule)
        world.reload()


def test_the_report_counts_an_import_as_neither_pixel_nor_s2s(desk: Desk) -> None:
    click = desk.world.click()
    before = desk.world.run(build_report(desk.world.store, Period()))
    _, file = desk.compare(desk.export([desk.row("I", click)]))
    assert desk.take_in(file).counted == 1
    after = desk.world.run(build_report(desk.world.store, Period()))
    assert {**before["channels"], "imported": before["channels"]["imported"] + 1} == after["channels"]
    assert after["postbacks"] == before["postbacks"]
    assert after["conversions"]["count"] == before["conversions"]["count"] + 1


def test_roll_ups_count_an_import_as_a_conversion_and_as_no_postback(desk: Desk) -> None:
    day_ms = 86_400_000
    later_ms = desk.world.now_ms + 2 * day_ms  # the desk imports a day from now

    def total() -> Measures:
        desk.world.run(RollupKeeper(desk.world.store, UTC, lambda: later_ms).catch_up())
        question = Question(by=("network",), since_ms=later_ms - 3 * day_ms, until_ms=later_ms)
        return desk.world.run(explore(desk.world.store, question, now_ms=later_ms)).total

    click = desk.world.click()
    before = total()
    _, file = desk.compare(desk.export([desk.row("I", click)]))
    assert desk.take_in(file).counted == 1
    imported = total()
    assert imported.conversions == before.conversions + 1
    assert (imported.postbacks, imported.s2s_only) == (before.postbacks, before.s2s_only)
    desk.world.send(click, "txid=I", network=desk.network.name)
    assert total().s2s_only == before.s2s_only + 1


def test_no_cell_of_a_downloaded_bucket_is_a_formula_and_no_address_is_kept(desk: Desk) -> None:
    rows = [desk.row("=HYPERLINK(1)", None), desk.row("jane@example.com", None, status="@SUM(1)")]
    document, file = desk.compare(desk.export(rows))
    text = "".join(write_bucket(file, Bucket.MISSING_HERE, desk.world.rulebook.keys))
    header, *lines = csv.reader(io.StringIO(text))
    assert tuple(header) == COLUMNS
    assert [line[1][:8] for line in lines] == ["'=HYPERL", "hashed:" + lines[1][1][7]]
    assert lines[1][6] == "'@SUM(1)"
    file.close()
    assert b"jane@" not in file.path.read_bytes()
    assert document["rows"] == 2


def test_an_older_conversion_is_found_although_it_is_outside_of_the_range_that_is_read_first(
    desk: Desk,
) -> None:
    old = desk.count("OLD", "4", at_h=-24 * 200)
    desk.world.now_ms += 1
    new = [desk.count(f"N{n}") for n in range(3)]
    rows = [
        desk.row("OLD", None, "4.00", shown=desk.shown(new[0])),
        *(desk.row(f"N{n}", c) for n, c in enumerate(new)),
    ]
    document, _ = desk.compare(desk.export(rows))
    assert buckets(document)["agrees"][0] == 4
    assert desk.world.conversions(old)


def test_a_period_that_is_asked_for_leaves_rows_and_conversions_outside(desk: Desk) -> None:
    clicks = [desk.count(f"T{n}", at_h=n) for n in range(6)]
    rows = [desk.row(f"T{n}", click) for n, click in enumerate(clicks)]
    noon = desk.world.now_ms
    document, _ = desk.compare(
        desk.export(rows[:5]), since_ms=noon + 3_000_000, until_ms=noon + 24 * 3_600_000
    )
    assert {name: found[:2] for name, found in buckets(document).items()} == {
        "agrees": (4, 4), "missing_there": (0, 1), "outside_window": (1, 1),
    }  # fmt: skip


def test_a_file_that_is_no_export_says_what_to_do(desk: Desk) -> None:
    for content, said in (
        (b"", "empty"),
        (b"PK\x03\x04...", "save or unpack it as CSV"),
        (b"a,b\n1,2\n", "--column transaction_id=NAME"),
        (b'Order ID,Payout\nA,1\n"B,2\nC,3\n', "never closed"),
    ):
        with pytest.raises(ExportError, match=said):
            desk.compare(content)
    with pytest.raises(ExportError, match="no column 'Nope'"):
        desk.compare(b"Order ID,Payout\nA,1\n", given=Given(columns={"value": "Nope"}))
