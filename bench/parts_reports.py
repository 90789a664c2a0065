"""Reports: a month of clicks of realistic shape in an embedded database, rolled up, and questions by two dimensions.

The clicks are put into the file directly; what is measured is the building of the roll-ups and the questions, each on a
store that has just been opened with the file dropped from the page cache (cold), and again (warm).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from bench.machine import NotRun
from bench.run import Run
from postbackd.core.click_id import EPOCH_MS
from postbackd.core.model import Campaign, Network, Offer, Source, WeightedOffer
from postbackd.reports.explore import explore
from postbackd.reports.question import Question
from postbackd.store.sqlite import SqliteStore
from postbackd.upkeep.rollups import RollupKeeper

LIMIT_MS = 300
"""A month of ten million clicks by two dimensions."""

_DAYS = 30
_FIRST_MS = 1_772_323_200_000
"""2026-03-01: the month has a change of clocks in Europe and one in America."""

_CAMPAIGNS, _OFFERS, _NETWORKS, _SOURCES = 60, 25, 6, 5
_COUNTRY_WORDS = "US DE GB FR IN BR ES IT CA AU NL SE PL MX JP TR ID ZA AT CH BE DK NO FI PT RO CZ GR HU TH"
_COUNTRIES = tuple(_COUNTRY_WORDS.split())
_CONVERT = 0.01
_CHUNK = 100_000
_REPEATS = 5

REPORT_ZONE = ZoneInfo("Europe/Berlin")
QUESTIONS = (
    ("campaign", "country"), ("day", "campaign"), ("day", "country"), ("source", "offer"), ("network", "status"),
    ("weekday", "hour"), ("campaign", "offer"), ("campaign", "type"), ("campaign", "sub1"), ("day", "sub2"),
    ("country", "hour"), ("campaign", "hour"),
)  # fmt: skip
ZONES = ("Europe/Berlin", "Asia/Kolkata")


def measure_reports(run: Run) -> None:
    """``POSTBACKD_BENCH_REPORT_CLICKS``: another number of clicks."""
    clicks = int(os.environ.get("POSTBACKD_BENCH_REPORT_CLICKS", "10000000"))
    directory = run.directory / "reports"
    figures = run.results.figures
    run.say(f"writing {clicks:,} clicks")
    asyncio.run(fill(directory, clicks))
    file = directory / "postbackd.db"
    before = file.stat().st_size
    began = time.monotonic()
    asyncio.run(roll(directory))
    figures["reports_clicks"] = clicks
    figures["reports_roll_up_s"] = time.monotonic() - began
    figures["reports_roll_up_mb"] = (file.stat().st_size - before) / 1e6
    run.say(f"rolled up in {figures['reports_roll_up_s']:.0f} s, {figures['reports_roll_up_mb']:.0f} MB")
    for zone in ZONES:
        for by in QUESTIONS:
            cold, warm, cpu, lines, basis = asyncio.run(measure(directory, by, zone))
            name = f"reports_{'_'.join(by)}_{zone.rpartition('/')[2].lower()}"
            figures |= {f"{name}_cold_ms": cold, f"{name}_warm_ms": warm, f"{name}_cpu_ms": cpu}
            verdict = "passes" if max(cold, warm) < LIMIT_MS else "does not pass"
            run.say(
                f"{', '.join(by)} in {zone}: {cold:.0f} ms cold, {warm:.0f} ms warm, {cpu:.0f} ms of processor, "
                f"{lines} lines from {basis}: {verdict}"
            )


async def fill(directory: Path, clicks: int) -> None:
    """Make the database."""
    store = await SqliteStore.open(directory, create=True)
    try:
        made: list[Any] = []
        made += [Network(id=-1 - n, name=f"network {n}", key=f"key-{n}") for n in range(_NETWORKS)]
        made += [Source(id=-100 - n, name=f"source {n}") for n in range(_SOURCES)]
        made += [
            Offer(id=-200 - n, name=f"offer {n}", network=-1 - n % _NETWORKS, url="https://shop.example/")
            for n in range(_OFFERS)
        ]
        made += [
            Campaign(
                id=-300 - n, name=f"campaign {n}", slug=f"c{n}", source=-100 - n % _SOURCES,
                offers=(WeightedOffer(-200 - n % _OFFERS), WeightedOffer(-200 - (n * 7 + 3) % _OFFERS)),
            )
            for n in range(_CAMPAIGNS)
        ]  # fmt: skip
        saved = await store.change_catalog(made, [], _FIRST_MS)
        campaigns = [one for one in saved if isinstance(one, Campaign)]
        networks = {one.id: one.network for one in saved if isinstance(one, Offer)}
        _fill_rows(store.connection, clicks, campaigns, networks)
    finally:
        await store.close()


def _fill_rows(db: Any, clicks: int, campaigns: list[Campaign], networks: dict[int, int]) -> None:
    draw = random.Random(6)
    db.pragma("synchronous", 0)
    click = f"INSERT INTO clicks VALUES ({', '.join('?' * 19)})"
    conversion = f"INSERT INTO conversions VALUES ({', '.join('?' * 13)})"
    log = (
        "INSERT INTO postbacks (request_id, network, channel, verdict, reason, click_id, campaign, conversion_id, "
        f"bytes, parameters) VALUES ({', '.join('?' * 10)})"
    )
    rows = _rows(draw, clicks, campaigns)
    taken: set[int] = set()
    while True:
        chunk = [row for _, row in zip(range(_CHUNK), rows, strict=False)]
        if not chunk:
            return
        converted = [row for row in chunk if draw.random() < _CONVERT]
        counted = []
        for row in converted:
            request = row[0] + (int(draw.expovariate(1 / 7_200_000)) + 5_000 << 22)
            while request in taken:
                request += 1
            taken.add(request)
            status = draw.choices((1, 2, 3, 4), (2, 12, 1, 1))[0]
            counted.append((request, row, status, draw.choice(("sale", "lead", "install"))))
        with db:
            db.executemany(click, chunk)
            db.executemany(
                conversion,
                [
                    (
                        row[0], type_, "T", request, networks[row[2]], row[1], row[2], status,
                        draw.randrange(500_000, 80_000_000), "USD", draw.choice((1, 1, 1, 2, 3)), 0, None,
                    )
                    for request, row, status, type_ in counted
                ],
            )  # fmt: skip
            db.executemany(
                log,
                [
                    (request, networks[row[2]], 1, verdict, 0, row[0], row[1], request, 120, 5)
                    for first, row, _, _ in counted
                    for verdict, request in ((1, first), *([(2, first + 1)] if draw.random() < 0.1 else []))
                ],
            )


def _rows(draw: random.Random, clicks: int, campaigns: list[Campaign]) -> Iterator[tuple[Any, ...]]:
    """Busy evenings, a few large campaigns, a long tail of countries and placements."""
    campaign_weights = [1 / (n + 1) for n in range(len(campaigns))]
    step = _DAYS * 86_400_000 / clicks
    at = float(_FIRST_MS - EPOCH_MS)
    usual = {campaign.id: draw.sample(_COUNTRIES, 8) for campaign in campaigns}
    sequence = 0
    for chosen in _endless(draw, campaigns, campaign_weights, clicks):
        hour = at / 3_600_000 % 24
        at += step * (0.6 if 16 <= hour < 23 else 1.45 if hour < 7 else 1)
        sequence = (sequence + 1) & 0xFFF
        here = usual[chosen.id]
        country = (
            here[min(int(draw.expovariate(0.6)), 7)] if draw.random() < 0.95 else draw.choice(_COUNTRIES)
        )
        place = int(draw.paretovariate(0.8)) % 400
        cost = 1_000 * draw.randrange(5, 400)
        yield (
            (int(at) << 22) | sequence, chosen.id, draw.choice(chosen.offers).offer, 0, None, cost, country,
            None, None, f"place-{place}", f"creative-{place % 12}", None, None, None, None, None, None, None, None,
        )  # fmt: skip


def _endless(
    draw: random.Random, campaigns: list[Campaign], weights: list[float], count: int
) -> Iterator[Campaign]:
    for _ in range(0, count, 1000):
        yield from draw.choices(campaigns, weights, k=min(1000, count))


def _end_ms() -> int:
    return _FIRST_MS + (_DAYS + 1) * 86_400_000


async def roll(directory: Path) -> None:
    """Build the roll-ups."""
    store = await SqliteStore.open(directory, create=False)
    try:
        if not await RollupKeeper(store, REPORT_ZONE, _end_ms).catch_up():
            raise NotRun("another process keeps the roll-ups")
        await store.checkpoint()
    finally:
        await store.close()


async def measure(directory: Path, by: tuple[str, ...], zone: str) -> tuple[float, float, float, int, str]:
    """(milliseconds cold, warm, of processor time warm; lines, what was read), over whole days of Berlin."""
    file = os.open(directory / "postbackd.db", os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
    store = await SqliteStore.open(directory, create=False)
    question = Question(
        by=by, since_ms=_FIRST_MS - 3_600_000, until_ms=_FIRST_MS + _DAYS * 86_400_000 - 7_200_000, zone=zone,
        limit=1000,
    )  # fmt: skip
    took, spent = [], []
    try:
        for _ in range(_REPEATS + 1):
            began, cpu = time.perf_counter(), time.process_time()
            table = await explore(store, question, now_ms=_end_ms(), report_zone=REPORT_ZONE)
            took.append((time.perf_counter() - began) * 1e3)
            spent.append((time.process_time() - cpu) * 1e3)
    finally:
        await store.close()
    return took[0], median(took[1:]), median(spent[1:]), len(table.lines) + table.left_out, table.basis
