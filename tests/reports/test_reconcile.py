"""A partner's export against what is counted here, on every store: each planted difference is found, with its money."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from postbackd.core.click_id import stamp_ms
from postbackd.core.model import Click
from postbackd.reports.importing import Imported, Wish, take_in
from postbackd.reports.reconcile import Asked, reconcile
from postbackd.reports.reconcile_file import ReconcileFile
from postbackd.upkeep.import_turns import ImportTurns
from tests.store.conftest import PARAMETERS
from tests.store.contract import Kind, World

HEADER = ("Order ID", "Sub ID", "Payout", "Currency", "Status", "Conversion Date")


@pytest.fixture(scope="module", params=PARAMETERS)
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
        (row, *_) = self.world.conversions(click)
        moment = datetime.fromtimestamp(stamp_ms(row["conversion_id"]) / 1000, UTC) - timedelta(seconds=2)
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
        directory = self.world.directory if self.world.kind.name == "sqlite" else None
        return ImportTurns(self.world.store, directory, 0).take

    def take_in(self, file: ReconcileFile, **wish: Any) -> Imported:
        imported: Imported = self.world.run(self.importing(file, **wish))
        return imported

    def importing(self, file: ReconcileFile, **wish: Any) -> Any:
        about = Wish(network=self.network, **wish)
        clock_ms = self.world.now_ms + 86_400_000
        return take_in(self.world.store, self.world.rulebook, file, about, self.turns(), lambda: clock_ms)


@pytest.fixture
def desk(shared: World, tmp_path: Path, request: pytest.FixtureRequest) -> Desk:
    from postbackd.core.model import Network

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
