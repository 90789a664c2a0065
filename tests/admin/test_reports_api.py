"""Reports by any dimensions, over HTTP and on the command line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from time import process_time

import pytest
from click.testing import CliRunner

from postbackd.cli.main import root
from postbackd.ingest.batcher import now_ms
from postbackd.reports import explore
from postbackd.upkeep.rollups import RollupKeeper
from tests.admin.site import Site
from tests.store.contract import KINDS, World


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with two clicks, one of which converted."""
    place = tmp_path_factory.mktemp("reports") / "data"
    world = World(KINDS[0], place)
    world.now_ms = now_ms() - 120_000
    click = world.click(country="DE", subs=("=cmd|' /C calc'!A0",), cost_micros=500_000)
    world.click(country="FR", subs=("plain",))
    world.send(click, "txid=T&value=5")
    world.send(click, "txid=T&value=5")
    world.run(RollupKeeper(world.store, UTC, now_ms).catch_up())
    world.close()
    return place


@pytest.fixture(scope="module")
def site(directory: Path) -> Iterator[Site]:
    with Site(directory) as running:
        yield running


def test_a_question_is_answered_with_names_money_and_rates(site: Site) -> None:
    answer = site.get("/api/v1/reports/explore?by=campaign,country&since=2d&zone=Asia/Kolkata")
    assert answer.status == 200
    table = answer.json
    assert (table["basis"], table["zone"], table["clock"]) == ("rollups", "Asia/Kolkata", "conversion")
    first = table["lines"][0]
    assert (first["key"][1], first["label"]) == ("DE", ["c", "DE"])
    measures = first["measures"]
    assert (measures["clicks"], measures["conversions"], measures["value"]) == (1, 1, {"USD": "5.00"})
    assert (measures["cost"], measures["profit"], measures["roi"]) == ("0.50", "4.50", 9.0)
    assert measures["match_rate"] is None
    assert table["total"]["clicks"] == 2


def test_what_a_dimension_has_not_is_null(site: Site) -> None:
    total = site.get("/api/v1/reports/explore?by=status").json["total"]
    assert (total["clicks"], total["cost"], total["epc"], total["conversions"]) == (None, None, None, 1)
    total = site.get("/api/v1/reports/explore?by=network").json["total"]
    assert (total["postbacks"], total["duplicates"], total["match_rate"]) == (2, 1, 1.0)


def test_no_cell_of_the_csv_is_a_formula(site: Site) -> None:
    answer = site.get("/api/v1/reports/explore.csv?by=sub1")
    assert answer.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
    assert {line["sub1"] for line in lines} == {"'=cmd|' /C calc'!A0", "plain"}
    assert {line["value_USD"] for line in lines} == {"5.00", ""}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("by=moon", "there is no dimension 'moon'"),
        ("by=day,hour,type,status", "one, two or three"),
        ("zone=Mars/Base", "no time zone"),
        ("since=yesterday", "write 2026-11-23"),
        ("where=country", "DIMENSION=VALUE"),
        ("where=campaign=nobody", "postbackd campaigns list"),
        ("sort=luck", "cannot be sorted"),
        ("clock=sun", "conversion or click"),
    ],
)
def test_a_question_that_cannot_be_answered_says_what_to_write(site: Site, query: str, words: str) -> None:
    answer = site.get(f"/api/v1/reports/explore?{query}")
    assert answer.status == 400
    assert words in answer.json["detail"]


def test_a_period_that_ends_in_a_distant_century_costs_no_more(site: Site) -> None:
    """Days that have not come yet are not gone through: that held up everybody for half a minute."""
    plain = site.get("/api/v1/reports/explore?since=2d").json
    began = process_time()
    distant = site.get("/api/v1/reports/explore?since=2d&until=9999-12-31").json
    never = site.get("/api/v1/reports/explore?since=9000-01-01&until=9999-12-31&by=day,country").json
    assert process_time() - began < 2
    assert (distant["total"], distant["basis"]) == (plain["total"], plain["basis"])
    assert never["lines"] == []


def test_more_groups_than_memory_is_for_are_refused_and_say_what_to_ask_instead(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "/api/v1/reports/explore?by=sub1,sub2,country&since=2d"
    monkeypatch.setattr(explore, "MOST_GROUPS", 2)
    assert len(site.get(query).json["lines"]) == 2
    monkeypatch.setattr(explore, "MOST_GROUPS", 1)
    answer = site.get(query)
    assert answer.status == 400
    assert "fewer dimensions" in answer.json["detail"]


def test_minutes_show_what_came(site: Site) -> None:
    minutes = site.get("/api/v1/reports/minutes?last=1h").json["minutes"]
    assert sum(minute["clicks"] for minute in minutes) == 2
    assert [told["verdict"] for minute in minutes for told in minute["postbacks"]] == [
        "accepted",
        "duplicate",
    ]
    assert [won["value"] for minute in minutes for won in minute["conversions"]] == ["5.00"]


def test_the_command_line_answers_the_same_and_checks(directory: Path) -> None:
    run = CliRunner()
    place = ["--data", str(directory)]
    asked = run.invoke(root, ["report", "explore", "--by", "country", "--json", *place])
    assert [line["key"] for line in json.loads(asked.output)["lines"]] == [["DE"], ["FR"]]
    shown = run.invoke(root, ["report", "explore", "--by", "day", "--where", "country=DE", *place])
    assert "5.00 USD" in shown.output
    checked = run.invoke(root, ["report", "check", *place])
    assert checked.exit_code == 0
    assert "they agree" in checked.output
    assert run.invoke(root, ["report", "--by", "campaign", *place]).exit_code == 0
    assert run.invoke(root, ["report", "explore", "--by", "moon", *place]).exit_code == 2
