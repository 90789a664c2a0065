"""``/metrics`` for Prometheus: what the store counts already, as counters that never go backwards.

Rows are purged and erased, so a count of rows is no counter.  ``Metrics`` adds up what has happened since it was made:
each time it reads the rows since the last time, and again those of the last two minutes, which are still coming in.
What lies longer in a spool before it reaches the database is left out; reports have it.  Late matches and replays
change rows that were counted: a postback counts under the verdict that it was answered with.
"""

from __future__ import annotations

import asyncio
import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from postbackd import __version__
from postbackd.backup.files import list_backups, read_failure, spool_bytes
from postbackd.core.click_id import stamp_ms
from postbackd.core.deliveries import BROKEN, PAUSED, SLOWED, DeliveryState, state_word
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Catalog, ClickKind
from postbackd.core.rollups import tally_postbacks
from postbackd.core.verdicts import FINAL, Verdict, word_of
from postbackd.reports import metric_names as names
from postbackd.reports.period import Period
from postbackd.store.base import Store, StoreRefused, StoreUnavailable

CONTENT_TYPE = CONTENT_TYPE_LATEST

_STILL_COMING_MS = 120_000
"""A request is committed within this time of its stamp, unless it has to wait in a spool."""

_UNKNOWN = "unknown"
"""A network or target that is not in the catalog; there is none by rights."""

_Counts = Counter[tuple[str, tuple[str, ...]]]
"""(metric, labels) -> count.  A bucket of a histogram has its number as its label, its sum the label ``sum``."""

_Gauges = dict[tuple[str, tuple[str, ...]], float]


class Surroundings(Struct, frozen=True):
    """What is measured beside the database."""

    data: Path
    backup_dir: Path | None = None
    certificate_until_ms: Callable[[], Awaitable[int | None]] | None = None


class Metrics:
    """Counts from ``since_ms`` on.  For one database."""

    def __init__(self, surroundings: Surroundings, since_ms: int) -> None:
        self._surroundings = surroundings
        self._since_ms = self._closed_until_ms = since_ms // 60_000 * 60_000
        self._closed: _Counts = Counter()
        """Of the time before ``_closed_until_ms``, which is not looked at again."""
        self._counts: _Counts = Counter()
        """As it was told last."""
        self._newest: dict[str, int] = {}
        self._alone = asyncio.Lock()

    async def collect(self, store: Store, now_ms: int) -> bytes:
        """The text that Prometheus reads.  Never raises for a database that does not answer: that is a metric."""
        async with self._alone:
            gauges: _Gauges = {
                (names.COUNTING_SINCE, ()): self._since_ms / 1000,
                (names.BUILD, (__version__,)): 1,
            }
            try:
                gauges |= await self._ask(store, now_ms)
                gauges[names.STORE_UP, ()] = 1
            except (StoreUnavailable, StoreRefused):
                gauges[names.STORE_UP, ()] = 0
            gauges |= await self._look_around()
            return generate_latest(_Families(self._counts, gauges))

    async def _ask(self, store: Store, now_ms: int) -> _Gauges:
        titles, catalog = _Titles(await store.query("names")), await store.load_catalog()
        cut_ms = max(self._closed_until_ms, (now_ms - _STILL_COMING_MS) // 60_000 * 60_000)
        settled = await self._count(store, titles, self._closed_until_ms, cut_ms)
        fresh = await self._count(store, titles, cut_ms, None)
        gauges = await _measure_deliveries(store, catalog, titles, now_ms)
        gauges |= {
            (names.LAST_POSTBACK, (name,)): stamp_ms(newest) / 1000 for name, newest in self._newest.items()
        }
        self._closed.update(settled)
        self._closed_until_ms = cut_ms
        counts = _at_zero(catalog)
        counts.update(self._closed)
        counts.update(fresh)
        for key, told in self._counts.items():  # what is fresh may be told by another name now, or be gone
            counts[key] = max(counts[key], told)
        self._counts = counts
        return gauges

    async def _count(self, store: Store, titles: _Titles, from_ms: int, until_ms: int | None) -> _Counts:
        """Everything that happened in a span of time."""
        counts: _Counts = Counter()
        if from_ms == until_ms:
            return counts
        period = Period(from_ms, until_ms)
        stamps, minutes = period.stamps(), period.minutes()
        times = {"since": from_ms, "until": 1 << 53 if until_ms is None else until_ms}
        for row in await store.query("metric_clicks", **stamps):
            counts[names.CLICKS, (ClickKind(row["kind"]).name.lower(),)] += row["count"]
        for row in await store.query("metric_postbacks", **stamps):
            self._count_postbacks(counts, titles.network(row["network"]), row)
        for row in await store.query("refusals", **minutes):
            counts[names.REFUSALS, (row["kind"],)] += row["count"]
        for row in await store.query("response_times", **minutes):
            edge = bisect_left(names.RESPONSE_EDGES, row["bucket"])
            _add_time(counts, names.RESPONSE_TIME, edge, row["count"], row["total_us"])
        for row in await store.query("metric_attempts", **times):
            counts[names.ATTEMPTS, (_OUTCOMES[row["delivered"]],)] += row["count"]
            _add_time(counts, names.ATTEMPT_TIME, row["rung"], row["count"], row["took_ms"] * 1000)
        for row in await store.query("metric_given_up", **times):
            state = state_word(row["state"])
            counts[names.GIVEN_UP, (titles.target(row["target"]), state)] += row["count"]
        return counts

    def _count_postbacks(self, counts: _Counts, network: str, row: Mapping[str, Any]) -> None:
        answered = row["first_verdict"] is None
        verdict = word_of(row["verdict"] if answered else row["first_verdict"])
        reason = (row["reason"] if answered else row["first_reason"]) or 0
        counts[names.POSTBACKS, (network, verdict)] += row["count"]
        if reason:
            counts[names.REASONS, (Reason(reason).word,)] += row["count"]
        _, carried, matched, _ = tally_postbacks(
            row["verdict"], row["reason"], row["count"], row["with_click"]
        )
        counts[names.WITH_CLICK_ID, (network,)] += carried
        if row["verdict"] != Verdict.UNMATCHED:
            counts[names.MATCHED, (network,)] += matched
        counts[names.BYTES, (network,)] += row["bytes"]
        self._newest[network] = max(self._newest.get(network, 0), row["newest"])

    async def _look_around(self) -> _Gauges:
        """What the disk says."""
        around = self._surroundings
        gauges: _Gauges = {(names.SPOOL, ()): spool_bytes(around.data)}
        if around.data.is_dir():
            gauges[names.DISK_FREE, ()] = shutil.disk_usage(around.data).free
        if around.backup_dir is not None:
            gauges[names.BACKUP_FAILED, ()] = read_failure(around.data) is not None
            try:
                backups = list_backups(around.backup_dir)
            except OSError:
                backups = ()  # absent is what the alarm looks for
            if backups:
                gauges[names.BACKUP, ()] = backups[-1].made_ms / 1000
        if around.certificate_until_ms is not None:
            until_ms = await around.certificate_until_ms()
            if until_ms is not None:
                gauges[names.CERTIFICATE, ()] = until_ms / 1000
        return gauges


_OUTCOMES = ("failed", "delivered")
_STATES = (PAUSED, BROKEN, SLOWED)


class _Titles:
    """Names of networks and targets."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._names: dict[tuple[str, int], str] = {(row["kind"], row["id"]): row["name"] for row in rows}

    def network(self, id_: int) -> str:
        return self._names.get(("network", id_), _UNKNOWN)

    def target(self, id_: int) -> str:
        return self._names.get(("target", id_), _UNKNOWN)


def _at_zero(catalog: Catalog) -> _Counts:
    """What may be counted and is not yet: a rate needs its beginning."""
    counts: _Counts = Counter()
    for network in catalog.networks:
        counts.update({(names.POSTBACKS, (network.name, verdict.word)): 0 for verdict in FINAL})
        for name in (names.WITH_CLICK_ID, names.MATCHED, names.BYTES):
            counts[name, (network.name,)] = 0
    for target in catalog.targets:
        counts[names.GIVEN_UP, (target.name, DeliveryState.DEAD.word)] = 0
    counts.update({(names.CLICKS, (kind.name.lower(),)): 0 for kind in ClickKind})
    counts.update({(names.REASONS, (reason.word,)): 0 for reason in Reason if reason})
    counts.update({(names.ATTEMPTS, (outcome,)): 0 for outcome in _OUTCOMES})
    return counts


def _add_time(counts: _Counts, name: str, bucket: int, count: int, total_us: int) -> None:
    """``bucket``: its number, or one beyond the last edge."""
    counts[name, (str(bucket),)] += count
    counts[name, ("sum",)] += total_us


async def _measure_deliveries(store: Store, catalog: Catalog, titles: _Titles, now_ms: int) -> _Gauges:
    gauges: _Gauges = {}
    (outbox,) = await store.query("outbox_count")
    gauges[names.OUTBOX_EVENTS, ()] = outbox["count"]
    age_ms = now_ms - stamp_ms(outbox["request_id"]) if outbox["count"] else 0
    gauges[names.OUTBOX_AGE, ()] = max(0, age_ms) / 1000
    for target in catalog.targets:
        gauges[names.WAITING, (target.name,)] = gauges[names.LAG, (target.name,)] = 0
        gauges |= {(names.UNSERVED, (target.name, state)): 0 for state in _STATES}
    for row in await store.query("metric_waiting"):
        name = titles.target(row["target"])
        gauges[names.WAITING, (name,)] = row["count"]
        gauges[names.LAG, (name,)] = max(0, now_ms - row["due_ms"]) / 1000
    for row in await store.query("target_states"):
        gauges[names.UNSERVED, (titles.target(row["target"]), row["state"])] = 1
    return gauges


class _Families(Collector):
    """The metrics in the form that prometheus_client writes."""

    def __init__(self, counts: _Counts, gauges: _Gauges) -> None:
        self._counts = counts
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for name, described in names.COUNTERS.items():
            counter = CounterMetricFamily(name, described.help, labels=described.labels)
            for labels, value in _of(self._counts, name):
                counter.add_metric(labels, value)
            yield counter
        for name, described in names.HISTOGRAMS.items():
            histogram = HistogramMetricFamily(name, described.help, labels=())
            histogram.add_metric((), *self._buckets(name))
            yield histogram
        for name, described in names.GAUGES.items():
            gauge = GaugeMetricFamily(name, described.help, labels=described.labels)
            for labels, value in _of(self._gauges, name):
                gauge.add_metric(labels, value)
            if gauge.samples:
                yield gauge

    def _buckets(self, name: str) -> tuple[list[tuple[str, float]], float]:
        """Counts up to each edge, and the sum in seconds."""
        edges = [*map(str, names.EDGES_S[name]), "+Inf"]
        counted = [self._counts[name, (str(number),)] for number in range(len(edges))]
        return list(zip(edges, accumulate(counted), strict=True)), self._counts[name, ("sum",)] / 1e6


def _of(
    values: Mapping[tuple[str, tuple[str, ...]], float], name: str
) -> list[tuple[tuple[str, ...], float]]:
    """Labels and values of one metric, in order."""
    return sorted((labels, value) for (one, labels), value in values.items() if one == name)
