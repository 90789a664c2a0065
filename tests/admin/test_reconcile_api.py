"""Reconciliations over the API: upload, look, download, import; and what a wrong request hears."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postbackd.core.click_id import KeyRing, first_stamp_at
from postbackd.core.model import Campaign, Click, Network, Offer, Source, WeightedOffer
from postbackd.core.rulebook import Rulebook
from postbackd.ingest.batcher import now_ms
from postbackd.reports.reconcile_shelf import LIFE_S, MOST_FILES, NotKept, Shelf
from postbackd.store.base import Batch
from tests.admin.site import Answer, Site
from tests.store.contract import KINDS

CSV = {"Content-Type": "text/csv"}


async def _fill(directory: Path) -> list[str]:
    """A catalog, and click ids that have no conversion yet."""
    store = await KINDS[0].open(directory)
    network = await store.save(Network(id=0, name="Shop", key="k" * 20))
    source = await store.save(Source(id=0, name="ads"))
    offer = await store.save(Offer(id=0, name="o", network=network.id, url="https://shop.example/"))
    offers = (WeightedOffer(offer.id),)
    campaign = await store.save(Campaign(id=0, name="c", slug="c", source=source.id, offers=offers))
    rulebook = Rulebook(await store.load_catalog())
    stamps = [first_stamp_at(now_ms() - 3_600_000) + n for n in range(3)]
    clicks = [Click(stamp, campaign.id, offer.id, 0) for stamp in stamps]
    await store.write(Batch(clicks=clicks), rulebook)
    keys = KeyRing(rulebook.catalog.signing_keys)
    await store.close()
    return [keys.write(stamp, campaign.id) for stamp in stamps]


class Filled(Site):
    """A site whose database has clicks."""

    click_ids: list[str]

    def upload(self, content: str, query: str = "network=Shop", status: int = 201) -> Answer:
        answer = self.ask("POST", f"/api/v1/reconcile?{query}", content.encode(), CSV)
        assert answer.status == status, answer.body
        return answer

    def export(self) -> str:
        rows = [f"O{n},{id_},{n + 1}.50" for n, id_ in enumerate(self.click_ids)]
        return "\n".join(["Order ID,Sub,Payout", *rows, "=1+1,,9.00", ",,3.00"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    directory = tmp_path_factory.mktemp("reconcile") / "data"
    directory.mkdir()
    running = Filled(directory)
    running.click_ids = asyncio.run(_fill(directory))
    with running:
        yield running


def test_an_export_is_uploaded_looked_at_downloaded_and_imported_once(site: Filled) -> None:
    made = site.upload(site.export(), "network=Shop&name=../november.csv").json
    assert (made["rows"], made["file"]) == (5, "november.csv")
    counts = {bucket["bucket"]: bucket["rows"] for bucket in made["buckets"]}
    assert (counts["missing_here"], counts["unusable"], sum(counts.values())) == (4, 1, 5)
    assert made["format"]["columns"]["click_id"] == "Sub"
    assert made["unusable"][0]["lines"] == [6]
    path = f"/api/v1/reconcile/{made['id']}"
    assert site.get(path).json == made
    (kept,) = site.get("/api/v1/reconcile").json["items"]
    assert [kept[name] for name in ("id", "network", "rows")] == [made["id"], "Shop", made["rows"]]
    assert kept["file"] == made["file"]
    first = site.get(f"{path}/missing_here?limit=3").json
    rest = site.get(f"{path}/missing_here?limit=3&cursor={first['next']}").json
    assert [entry["line"] for entry in first["items"] + rest["items"]] == [2, 3, 4, 5]
    assert (first["items"][0]["value"], first["items"][0]["click_id"]) == ("1.50", site.click_ids[0])
    assert rest["next"] is None
    download = site.get(f"{path}/missing_here.csv")
    assert download.headers["content-type"].startswith("text/csv")
    assert [row[1] for row in csv.reader(io.StringIO(download.body.decode()))][-1] == "'=1+1"
    tried = site.ask("POST", f"{path}/import", {"dry_run": True}).json
    assert (tried["counted"], tried["value"], tried["tried"]) == (3, {"USD": "7.50"}, True)
    assert site.ask("POST", f"{path}/import", {}).json["counted"] == 3
    assert site.ask("POST", f"{path}/import", {}).json["refused"] == {"duplicate": 3}
    again = site.upload(site.export()).json
    assert {b["bucket"]: b["rows"] for b in again["buckets"]}["agrees"] == 3
    folder = site.directory / "reconcile"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(kept.stat().st_mode) for kept in folder.iterdir()} == {0o600}
    assert {kept.suffix for kept in folder.iterdir()} == {".db"}
    for kept in (made, again):
        assert site.ask("DELETE", f"/api/v1/reconcile/{kept['id']}").status == 204
    assert site.get(path).status == 404
    assert list(folder.iterdir()) == []


def test_what_is_wrong_with_a_request_is_said_and_nothing_is_left(site: Filled) -> None:
    for content, query, status, words in (
        ("a,b\n1,2", "network=Shop", 422, "--column"),
        ("", "network=Shop", 422, "empty"),
        ("Order ID\nA", "network=Nobody", 404, "no network"),
        ("Order ID\nA", "network=Shop&value=Nope", 422, "'Nope'"),
        ("Order ID\nA", "network=Shop&time_zone=moon", 400, "+02:00"),
        ("Order ID\nA", "network=Shop&decimal=x", 400, "decimal"),
        ("Order ID\nA", "", 400, "network"),
    ):
        assert words in site.upload(content, query, status).json["detail"]
    assert list((site.directory / "reconcile").iterdir()) == []
    assert site.ask("POST", "/api/v1/reconcile?network=Shop", {"a": 1}).status in (415, 422)
    for path in ("0123456789abc", "..%2f..%2fpostbackd", "zzzzzzzzzzzzzzzz/agrees.csv"):
        assert site.get(f"/api/v1/reconcile/{path}").status == 404
    made = site.upload(site.export()).json
    assert "agrees" in site.get(f"/api/v1/reconcile/{made['id']}/nothing").json["detail"]
    assert site.ask("DELETE", f"/api/v1/reconcile/{made['id']}").status == 204


def test_reconciliations_are_few_and_kept_for_a_day(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for number in range(MOST_FILES + 3):
        _, path = shelf.prepare(f"{number:016x}")
        path.write_bytes(b"x")
        os.utime(path, (time.time() - 100 + number,) * 2)
        shelf.drop_export(f"{number:016x}")
    assert len(shelf.list()) == MOST_FILES
    newest = tmp_path / "reconcile" / f"{MOST_FILES + 2:016x}.db"
    with pytest.raises(NotKept, match="may still be written"), shelf.open(newest.stem):
        pass
    os.utime(newest, (time.time() - LIFE_S - 5,) * 2)
    with pytest.raises(NotKept, match="kept for a day"), shelf.open(newest.stem):
        pass
    assert not newest.exists()
