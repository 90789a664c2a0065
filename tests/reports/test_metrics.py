"""``/metrics``: counters that only grow, labels from short lists, and files for Prometheus and Grafana that fit it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from postbackd.backup.files import name_at, note_failure
from postbackd.core.deliveries import DeliveryState, TargetState
from postbackd.core.rulebook import Rulebook
from postbackd.ingest.flow import Flow
from postbackd.reports import metric_names as names
from postbackd.reports.metrics import Metrics, Surroundings
from postbackd.reports.period import Period
from postbackd.reports.report import build_report
from postbackd.store.base import Batch, StoreUnavailable
from tests.deploy.tools import DEPLOY, need
from tests.store.conftest import PARAMETERS
from tests.store.contract import NOW_MS, Kind, World
from tests.store.test_contract_outbox import Desk

MINUTE_MS = 60_000
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(params=PARAMETERS)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    kind: Kind = request.param
    world = World(kind, tmp_path / "data")
    yield Desk(world)
    world.close()


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[World]:
    """A world in an embedded database."""
    (sqlite,) = [parameter.values[0] for parameter in PARAMETERS if parameter.id == "sqlite"]
    assert isinstance(sqlite, Kind)
    world = World(sqlite, tmp_path / "data")
    yield world
    world.close()


def scrape(metrics: Metrics, world: World, now_ms: int) -> Series:
    text = world.run(metrics.collect(world.store, now_ms)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(series: Series, name: str, **labels: str) -> float:
    return series[name, tuple(sorted(labels.items()))]


def falls(before: Series, after: Series) -> list[Any]:
    """Counters and buckets that went backwards or away."""
    return [
        key
        for key, value in before.items()
        if key[0].endswith(("_total", "_bucket", "_count", "_sum")) and after.get(key, -1.0) < value
    ]


def test_counters_say_what_happened_and_only_ever_grow(desk: Desk) -> None:
    world = desk.world
    metrics = Metrics(Surroundings(world.directory), NOW_MS - MINUTE_MS)
    begun = scrape(metrics, world, NOW_MS)
    assert of(begun, "postbackd_postbacks_total", network="hold", verdict="held") == 0
    click = world.click(source_click_id="S1")
    world.send(click, "txid=A&value=5")
    world.send(click, "txid=A&value=5")
    world.send("{aff_sub}")
    world.send("", network="add")
    early = world.make_click()
    world.send(early)
    flow = Flow()
    for us in (90, 900, 900, 40_000_000):
        flow.answered(NOW_MS // MINUTE_MS, us)
    flow.refused(NOW_MS // MINUTE_MS, "busy")
    world.run(world.store.write(Batch(flow=flow.take()), world.rulebook))
    desk.plan()
    desk.settle(desk.claim()[0], DeliveryState.DEAD, now_ms=NOW_MS + 5)
    first = scrape(metrics, world, NOW_MS + 1000)
    total = "postbackd_postbacks_total"
    assert of(first, total, network="ignore", verdict="accepted") == 1
    assert of(first, total, network="ignore", verdict="duplicate") == 1
    assert of(first, total, network="ignore", verdict="unmatched") == 2
    assert of(first, "postbackd_postback_reasons_total", reason="macro_literal") == 1
    assert of(first, "postbackd_clicks_total", kind="counted") == 1
    assert of(first, "postbackd_postbacks_with_click_id_total", network="ignore") == 4
    assert of(first, "postbackd_postbacks_matched_total", network="ignore") == 2
    assert of(first, "postbackd_postbacks_with_click_id_total", network="add") == 0
    assert of(first, "postbackd_refusals_total", kind="busy") == 1
    assert of(first, "postbackd_response_time_seconds_count") == 4
    assert of(first, "postbackd_response_time_seconds_bucket", le="0.001024") == 3
    assert of(first, "postbackd_response_time_seconds_bucket", le="+Inf") == 4
    assert of(first, "postbackd_response_time_seconds_sum") == pytest.approx(40.00189)
    assert of(first, "postbackd_delivery_attempts_total", outcome="delivered") == 1
    assert of(first, "postbackd_deliveries_given_up_total", target="ads", state="dead") == 1
    world.write([early])  # now the one that waited is matched: it was answered all the same
    second = scrape(metrics, world, NOW_MS + 2000)
    assert not falls(first, second)
    assert of(second, total, network="ignore", verdict="unmatched") == 2
    assert of(second, total, network="ignore", verdict="accepted") == 1
    assert of(second, "postbackd_postbacks_matched_total", network="ignore") == 3
    for minutes in (1, 3, 10):
        third = scrape(metrics, world, NOW_MS + minutes * MINUTE_MS)
        assert not falls(second, third)
    while world.run(world.store.purge(NOW_MS + MINUTE_MS, 1000)):
        pass
    fourth = scrape(metrics, world, NOW_MS + 11 * MINUTE_MS)
    assert not falls(third, fourth)
    assert of(fourth, total, network="ignore", verdict="accepted") == 1
    world.now_ms = NOW_MS + 11 * MINUTE_MS
    world.send(world.click(), "txid=B&value=5")
    fifth = scrape(metrics, world, world.now_ms + 1000)
    assert not falls(fourth, fifth)
    assert of(fifth, total, network="ignore", verdict="accepted") == 2


def test_gauges_say_what_waits(desk: Desk) -> None:
    world = desk.world
    metrics = Metrics(Surroundings(world.directory), NOW_MS)
    world.send(world.click(source_click_id="S1"), "txid=A")
    waiting = scrape(metrics, world, NOW_MS + 4000)
    assert of(waiting, "postbackd_outbox_events") == 1
    assert of(waiting, "postbackd_outbox_age_seconds") == 4
    assert of(waiting, "postbackd_last_postback_timestamp_seconds", network="ignore") == NOW_MS / 1000
    desk.plan()
    desk.turn(states=[TargetState(desk.target.id, "broken", NOW_MS, 0, "refused")])
    owed = scrape(metrics, world, NOW_MS + 60_000)
    assert of(owed, "postbackd_outbox_events") == 0
    assert of(owed, "postbackd_deliveries_waiting", target="ads") == 1
    assert of(owed, "postbackd_delivery_lag_seconds", target="ads") == 60
    assert of(owed, "postbackd_target_unserved", target="ads", state="broken") == 1
    assert of(owed, "postbackd_target_unserved", target="ads", state="paused") == 0


class Away:
    """A store whose database does not answer."""

    def __getattr__(self, _: str) -> Any:
        async def fail(*__: Any, **___: Any) -> Any:
            raise StoreUnavailable("away")

        return fail


def test_a_database_that_is_away_is_a_metric_and_the_counters_stand_still(lone: World) -> None:
    lone.send(lone.click(), "txid=A")
    metrics = Metrics(Surroundings(lone.directory), NOW_MS - MINUTE_MS)
    before = scrape(metrics, lone, NOW_MS)
    away: Any = Away()
    text = lone.run(metrics.collect(away, NOW_MS + 1000)).decode()
    assert "postbackd_store_up 0.0" in text
    assert 'postbackd_postbacks_total{network="ignore",verdict="accepted"} 1.0' in text
    after = scrape(metrics, lone, NOW_MS + 2000)
    assert of(after, "postbackd_store_up") == 1
    assert not falls(before, after)


def test_the_match_rate_of_the_metrics_is_that_of_the_report(lone: World) -> None:
    for text in ("", "test", "{cid}", "3f2b8c1e-77d0-4a5e-9c41-0e6d2b8c1e77", lone.id_of(lone.make_click())):
        lone.send(text)
    for number in range(7):
        lone.send(lone.click(), f"txid={number}")
    series = scrape(Metrics(Surroundings(lone.directory), NOW_MS - MINUTE_MS), lone, NOW_MS)
    matched = of(series, "postbackd_postbacks_matched_total", network="ignore")
    carried = of(series, "postbackd_postbacks_with_click_id_total", network="ignore")
    report = lone.run(build_report(lone.store, Period()))
    assert round(matched / carried, 4) == report["match_rate"] == 0.7


def test_what_lies_on_the_disk_is_shown(lone: World, tmp_path: Path) -> None:
    backups, spool = tmp_path / "backups", lone.directory / "spool"
    backups.mkdir()
    spool.mkdir()
    (spool / "1.spool").write_bytes(b"x" * 123)

    async def until_ms() -> int | None:
        return NOW_MS + 5000

    metrics = Metrics(Surroundings(lone.directory, backups, until_ms), NOW_MS)
    series = scrape(metrics, lone, NOW_MS)
    assert of(series, "postbackd_spool_bytes") == 123
    assert of(series, "postbackd_disk_free_bytes") > 0
    assert of(series, "postbackd_certificate_expiry_timestamp_seconds") == NOW_MS / 1000 + 5
    assert ("postbackd_backup_timestamp_seconds", ()) not in series
    (backups / name_at(NOW_MS - 7000)).write_bytes(b"")
    note_failure(lone.directory, NOW_MS, "no space")
    series = scrape(metrics, lone, NOW_MS)
    assert of(series, "postbackd_backup_timestamp_seconds") == NOW_MS / 1000 - 7
    assert of(series, "postbackd_backup_failed") == 1
    shutil.rmtree(backups)
    assert ("postbackd_backup_timestamp_seconds", ()) not in scrape(metrics, lone, NOW_MS)


def test_two_scrapes_at_the_same_time_count_nothing_twice(lone: World) -> None:
    import asyncio

    metrics = Metrics(Surroundings(lone.directory), NOW_MS - MINUTE_MS)
    lone.send(lone.click(), "txid=A")

    async def both() -> list[bytes]:
        return await asyncio.gather(*(metrics.collect(lone.store, NOW_MS + 10 * MINUTE_MS) for _ in range(4)))

    counted = [re.findall(rb"postbackd_postbacks_total.*", text) for text in lone.run(both())]
    assert all(one == counted[0] for one in counted)
    assert len(counted[0]) > 20
    series = scrape(metrics, lone, NOW_MS + 20 * MINUTE_MS)
    assert of(series, "postbackd_postbacks_total", network="ignore", verdict="accepted") == 1


# --- names, and the files that use them ------------------------------------------------------------------------


DESCRIBED: Mapping[str, names.Described] = {
    **{f"{name}_total": one for name, one in names.COUNTERS.items()},
    **names.HISTOGRAMS,
    **names.GAUGES,
}


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_metric_is_named_by_the_conventions_and_explains_itself(name: str) -> None:
    assert re.fullmatch(r"postbackd_[a-z_]+", name)
    assert not re.search(r"(_ms|_micros|_milliseconds|_minutes|_kb)(_|$)", name)
    assert DESCRIBED[name].help.endswith((".", ")."))
    assert not set(DESCRIBED[name].labels) - {
        "network", "verdict", "reason", "kind", "target", "state", "outcome", "version"
    }  # fmt: skip


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"postbackd_[a-z_]+", expression))


def known_names() -> set[str]:
    parts = {f"{name}_{part}" for name in names.HISTOGRAMS for part in ("bucket", "sum", "count")}
    return DESCRIBED.keys() - names.HISTOGRAMS.keys() | parts


def test_every_described_metric_is_in_the_output_of_a_full_server(lone: World, tmp_path: Path) -> None:
    lone.send(lone.click(), "txid=A")
    Desk(lone)
    backups = tmp_path / "backups"
    backups.mkdir()
    (backups / name_at(NOW_MS)).write_bytes(b"")

    async def until_ms() -> int | None:
        return NOW_MS

    flow = Flow()
    flow.refused(NOW_MS // MINUTE_MS, "busy")
    lone.run(lone.store.write(Batch(flow=flow.take()), Rulebook(lone.run(lone.store.load_catalog()))))
    series = scrape(
        Metrics(Surroundings(lone.directory, backups, until_ms), NOW_MS - MINUTE_MS), lone, NOW_MS
    )
    assert known_names() - {name for name, _ in series} == set()


RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_names_metrics_that_exist_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert names_in(rule["expr"]) <= known_names()
    assert rule["labels"]["severity"] in ("page", "warn")
    assert rule["annotations"]["action"].endswith(".")
    assert rule["annotations"]["summary"]


def test_the_dashboard_names_metrics_that_exist_and_shows_most_of_them() -> None:
    document = json.loads((DEPLOY / "grafana" / "postbackd.json").read_text())
    expressions = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    used = set().union(*map(names_in, expressions))
    assert used <= known_names()
    assert len(used) >= 18
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    assert all(panel["description"].endswith(".") for panel in document["panels"])


def test_prometheus_itself_reads_the_rules_and_the_scrape_example(tmp_path: Path) -> None:
    promtool = need("promtool")
    shutil.copytree(DEPLOY / "prometheus", tmp_path / "prometheus")
    for what, file in (("rules", "alerts.yml"), ("config", "scrape.yml")):
        command = [promtool, "check", what, str(tmp_path / "prometheus" / file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_counter_goes_backwards_when_a_network_gets_another_name(lone: World) -> None:
    metrics = Metrics(Surroundings(lone.directory), NOW_MS - MINUTE_MS)
    lone.send(lone.click(), "txid=A&value=5")
    before = scrape(metrics, lone, NOW_MS + 1000)
    lone.save(replace(lone.networks["ignore"], name="renamed"))
    assert not falls(before, scrape(metrics, lone, NOW_MS + 2000))
    after = scrape(metrics, lone, NOW_MS + 10 * MINUTE_MS)
    assert not falls(before, after)
    assert of(after, "postbackd_postbacks_total", network="renamed", verdict="accepted") == 1
