"""Beyond one machine: ``python -m bench.scale`` prints the tables of ``docs/scale.md``.

What is calculated here follows from figures that ``python -m bench`` measured, which stand in that page between two
markers, and from the assumptions below.  No cluster was measured.

    python -m bench.scale                       # the tables for the figures in the page
    python -m bench.scale --json FILE --write   # take new figures from a run's results, write figures and tables
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp
from pathlib import Path

from bench.shards import (
    ARRIVALS,
    bucket_loads,
    buckets_in_shards,
    place_by_size,
    place_in_turn,
    shard_loads,
    skew,
)

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"

DAY_S = 86_400
VOLUMES = (10**9, 10**10)
"""Postbacks a day."""

RANDOM_SEED = 2026


@dataclass(frozen=True)
class Assumed:
    """What is assumed; nothing of it was measured."""

    peak: float = 3.0
    """The busiest second, in units of the average."""
    days_kept: int = 90
    clicks: float = 1.0
    """Clicks stored for each postback."""
    mean_age_days: float = 1.0
    """Of a click when its postback comes; the ages are exponential."""
    busy: float = 0.5
    """Share of its processors that a machine may use at peak, so that another one's share fits in."""
    gather_s: float = 0.05
    """How long an ingest process gathers what it then writes to each worker in one transaction."""
    ingest_cores: int = 8
    worker_cores: int = 32
    worker_memory_gb: int = 256
    worker_disk_tb: float = 30.0
    disk_full: float = 0.7
    """Share of a disk that is filled after ``days_kept``."""
    copies: int = 2
    """Of each worker: itself and a synchronous standby."""
    checkpoint_s: int = 900
    page_bytes: int = 8192
    page_full: float = 0.7
    """Of the unique key's pages, when keys arrive out of order."""
    key_bytes: int = 44
    """One entry of the unique key: ``conversion`` and a transaction id of ten characters."""
    request_bytes: int = 600
    """One postback on the wire, both ways, on a kept connection."""
    spool_bytes: int = 400
    """One postback in the spool of a node whose database is away."""
    notice_s: int = 10
    """Until a load balancer sends nothing to a machine that is gone."""
    failover_s: int = 30
    """Until a standby has taken over."""
    restore_mb_s: int = 1000


@dataclass(frozen=True)
class Cost:
    """Processor time for one row and for one transaction: two measurements with batches of two sizes, and a line."""

    row_us: float
    transaction_us: float


@dataclass(frozen=True)
class Costs:
    """What was measured."""

    node: Cost
    database: Cost
    node_click_us: float
    database_click_us: float
    wal_bytes: float
    """Of a postback, without images of whole pages."""
    wal_click_bytes: float
    log_row_bytes: float
    conversion_bytes: float
    click_bytes: float


FIGURES = tuple(
    f"postgres_{what}_{figure}"
    for what, figures in (
        ("conversion_64", "node_cpu_us database_cpu_us transactions wal_bytes wal_page_image_bytes"),
        ("conversion_512", "node_cpu_us database_cpu_us transactions"),
        ("conversion_64", "conversions_disk_bytes postbacks_disk_bytes"),
        (
            "click_64",
            "node_cpu_us database_cpu_us transactions wal_bytes wal_page_image_bytes clicks_disk_bytes",
        ),
        ("level", "conversions"),
        ("old_conversion_64", "requests wal_page_image_bytes"),
    )
    for figure in figures.split()
)
"""What is taken from the results of ``python -m bench``, by name."""


def derive(figures: Mapping[str, float]) -> Costs:
    """The costs from the figures.  Raises ``KeyError`` for a figure that is missing."""
    few = {name.removeprefix("postgres_"): figures[name] for name in FIGURES}
    node, database = (_fit(few, f"{where}_cpu_us") for where in ("node", "database"))
    begun = few["click_64_transactions"]
    return Costs(
        node=node,
        database=database,
        node_click_us=few["click_64_node_cpu_us"] - begun * node.transaction_us,
        database_click_us=few["click_64_database_cpu_us"] - begun * database.transaction_us,
        wal_bytes=few["conversion_64_wal_bytes"] - few["conversion_64_wal_page_image_bytes"],
        wal_click_bytes=few["click_64_wal_bytes"] - few["click_64_wal_page_image_bytes"],
        log_row_bytes=few["conversion_64_postbacks_disk_bytes"],
        conversion_bytes=few["conversion_64_conversions_disk_bytes"],
        click_bytes=few["click_64_clicks_disk_bytes"],
    )


def _fit(few: Mapping[str, float], figure: str) -> Cost:
    """The line through what a conversion cost with two sizes of batches."""
    small, large = few[f"conversion_64_{figure}"], few[f"conversion_512_{figure}"]
    more = few["conversion_64_transactions"] - few["conversion_512_transactions"]
    transaction_us = max(0.0, (small - large) / more)
    return Cost(small - few["conversion_64_transactions"] * transaction_us, transaction_us)


# --- the plan --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a volume needs; rates are those of the peak."""

    rate: float
    workers: int
    processes: int
    ingest_machines: int
    ingest_busy: float
    rows_a_transaction: float
    """Of one ingest process on one worker."""
    database_busy: float
    """Share of a worker's processors."""
    wal_mb_s: float
    """Of one worker, without page images."""
    image_mb_s: float
    disk_tb: Mapping[str, float]
    """What one copy takes after the days that are kept."""

    @property
    def one_copy_tb(self) -> float:
        return sum(self.disk_tb.values())


def plan(costs: Costs, assumed: Assumed, a_day: int) -> Plan:
    """The machines for so many postbacks a day.

    Raises ``ValueError`` when a process would spend all its time on beginning transactions.
    """
    rate = a_day * assumed.peak / DAY_S
    kept = a_day * assumed.days_kept / 1e12
    disk_tb = {
        "log": kept * costs.log_row_bytes,
        "conversions": kept * costs.conversion_bytes,
        "clicks": kept * costs.click_bytes * assumed.clicks,
    }
    workers = ceil(sum(disk_tb.values()) / (assumed.worker_disk_tb * assumed.disk_full))
    # A process opens one transaction on each worker for all that it gathered; what is left of its time is for rows.
    left_us = assumed.busy * 1e6 - workers / assumed.gather_s * costs.node.transaction_us
    if left_us <= 0:
        raise ValueError(f"with {workers} workers the processes have to gather longer")
    of_process = left_us / (costs.node.row_us + assumed.clicks * costs.node_click_us)
    processes = ceil(rate / of_process)
    machines = max(2, ceil(processes / assumed.ingest_cores))
    begun = processes / assumed.gather_s  # transactions a second on each worker
    rows_us = rate / workers * (costs.database.row_us + assumed.clicks * costs.database_click_us)
    images = images_a_conversion(assumed) * assumed.page_bytes * assumed.page_full
    return Plan(
        rate=rate,
        workers=workers,
        processes=processes,
        ingest_machines=machines,
        ingest_busy=processes * assumed.busy / (machines * assumed.ingest_cores),
        rows_a_transaction=rate / processes * assumed.gather_s / workers,
        database_busy=(rows_us + begun * costs.database.transaction_us) / 1e6 / assumed.worker_cores,
        wal_mb_s=rate / workers * (costs.wal_bytes + assumed.clicks * costs.wal_click_bytes) / 1e6,
        image_mb_s=rate / workers * images / 1e6,
        disk_tb=disk_tb,
    )


def images_a_conversion(assumed: Assumed, steps: int = 20_000) -> float:
    """How many pages of the unique key the log has to hold as a whole, for each conversion.

    A page is logged as a whole when it changes for the first time after a checkpoint.  Keys begin with the click, so a
    conversion changes the page where its click's time lies; the older that is, the fewer others come to the same page.
    The pages that hold the clicks of one age are those that were filled up to now, and each gets its share of what
    comes in until the next checkpoint, at random.  The rate cancels out: more conversions have more pages.
    """
    keys = assumed.page_bytes * assumed.page_full / assumed.key_bytes
    interval = assumed.checkpoint_s / (DAY_S * assumed.mean_age_days)
    touched = 0.0
    width = 12 / steps  # in mean ages; beyond twelve there is nothing
    for step in range(steps):
        young = exp(-(step + 0.5) * width)
        changes_a_page = keys * interval * young / (1 - young)
        touched += width * (1 - young) / keys * (1 - exp(-changes_a_page))
    return touched / interval


def image_bytes_at_random(stored: float, added: float) -> float:
    """The same for a measurement that can be made: keys were added at random places of an index made in order."""
    full = 0.9  # how far PostgreSQL fills pages when the keys come in order
    assumed = Assumed()
    changes_a_page = added / stored * assumed.page_bytes * full / assumed.key_bytes
    return (1 - exp(-changes_a_page)) / changes_a_page * assumed.page_bytes * full


# --- the tables ------------------------------------------------------------------------------------------------------


def write_costs(figures: Mapping[str, float]) -> str:
    """The figures that are used, as they stand in the page."""
    rows = [f"| {name.replace('_', ' ')} | {_number(figures[name])} |" for name in FIGURES]
    return "\n".join(["| figure, for one request | |", "|---|---:|", *rows])


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.6g}"


def read_costs(page: str) -> dict[str, float]:
    """The figures that stand in a page."""
    rows = re.findall(r"^\| (postgres [^|]+) \| ([0-9.e+-]+) \|$", _split(page, "costs")[1], re.MULTILINE)
    return {name.replace(" ", "_"): float(value) for name, value in rows}


def write_tables(figures: Mapping[str, float], assumed: Assumed | None = None) -> str:
    """All tables for these figures."""
    assumed = assumed or Assumed()
    costs = derive(figures)
    plans = [plan(costs, assumed, a_day) for a_day in VOLUMES]
    head = ["| | 10^9 a day | 10^10 a day |", "|---|---:|---:|"]
    parts = [
        ["What a request costs:", "", *_cost_rows(costs)],
        ["Page images, calculated and measured:", "", *_image_rows(figures)],
        ["The machines:", "", *head, *_plan_rows(plans, costs, assumed)],
        ["When something is lost at peak:", "", *head, *_loss_rows(plans, assumed)],
        ["Buckets in shards:", "", *_shard_rows([p.workers for p in plans])],
        ["Clicks in buckets (200,000 clicks, minted by three nodes):", "", *_arrival_rows()],
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def _cost_rows(costs: Costs) -> Iterator[str]:
    yield "| calculated from the figures above | a postback | a click | a transaction |"
    yield "|---|---:|---:|---:|"
    for where, cost, click_us in (
        ("node", costs.node, costs.node_click_us),
        ("database", costs.database, costs.database_click_us),
    ):
        yield f"| CPU of the {where}, µs | {cost.row_us:.0f} | {click_us:.0f} | {cost.transaction_us:.0f} |"
    yield f"| WAL, bytes | {costs.wal_bytes:.0f} | {costs.wal_click_bytes:.0f} | |"
    disk = f"{costs.log_row_bytes:.0f} + {costs.conversion_bytes:.0f}"
    yield f"| disk, bytes (log row + conversion) | {disk} | {costs.click_bytes:.0f} | |"


def _image_rows(figures: Mapping[str, float]) -> Iterator[str]:
    stored, added = (
        figures[f"postgres_{name}"] for name in ("level_conversions", "old_conversion_64_requests")
    )
    measured = figures["postgres_old_conversion_64_wal_page_image_bytes"]
    yield "| page images in the WAL, bytes a conversion | calculated | measured |"
    yield "|---|---:|---:|"
    name = f"{added:,.0f} conversions at random places of {stored:,.0f}"
    yield f"| {name} | {image_bytes_at_random(stored, added):,.0f} | {measured:,.0f} |"


def _row(name: str, values: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(values)} |"


def _plan_rows(plans: Sequence[Plan], costs: Costs, assumed: Assumed) -> Iterator[str]:
    days, memory_gb = assumed.days_kept, assumed.worker_memory_gb
    yield _row("postbacks a second, average", [f"{p.rate / assumed.peak:,.0f}" for p in plans])
    yield _row("postbacks a second, peak", [f"{p.rate:,.0f}" for p in plans])
    for table in plans[0].disk_tb:
        yield _row(f"{table}, {days} days, one copy, TB", [f"{p.disk_tb[table]:.1f}" for p in plans])
    yield _row("**workers**, by their disks", [f"**{p.workers}**" for p in plans])
    yield _row(
        "**machines of the database**, with standbys", [f"**{p.workers * assumed.copies}**" for p in plans]
    )
    yield _row("busy processors of a worker", [f"{p.database_busy:.0%}" for p in plans])
    yield _row("ingest processes, a core each", [str(p.processes) for p in plans])
    yield _row("**ingest machines**", [f"**{p.ingest_machines}**" for p in plans])
    yield _row("busy processors of an ingest machine", [f"{p.ingest_busy:.0%}" for p in plans])
    yield _row("postbacks in one transaction on a worker", [f"{p.rows_a_transaction:.0f}" for p in plans])
    yield _row("WAL of a worker, without page images, MB/s", [f"{p.wal_mb_s:.0f}" for p in plans])
    yield _row("page images of the unique key, MB/s", [f"{p.image_mb_s:.0f}" for p in plans])
    yield _row("WAL of all workers, a day, TB", [f"{_wal_a_day_tb(p, assumed):.1f}" for p in plans])
    front = [p.rate * (1 + assumed.clicks) * assumed.request_bytes * 8 / 1e9 for p in plans]
    yield _row("network in front of the nodes, Gbit/s", [f"{gbit:.1f}" for gbit in front])
    to_standby = [(p.wal_mb_s + p.image_mb_s) * 8 / 1e3 for p in plans]
    yield _row("network of a worker to its standby, Gbit/s", [f"{gbit:.2f}" for gbit in to_standby])
    day_gb = [_day_gb(p, costs, assumed) for p in plans]
    yield _row("pages of one day's clicks and keys, a worker, GB", [f"{gb:,.0f}" for gb in day_gb])
    missed = [_missed(gb, assumed) for gb in day_gb]
    yield _row(f"postbacks whose pages are not in {memory_gb} GB", [f"{share:.0%}" for share in missed])
    reads = [3 * p.rate / p.workers * share for p, share in zip(plans, missed, strict=True)]
    yield _row("pages read from the disk of a worker, a second", [f"{count:,.0f}" for count in reads])
    yearly = [p.disk_tb["conversions"] * 365 / assumed.days_kept for p in plans]
    yield _row("conversions are kept: each further year, one copy, TB", [f"{tb:,.0f}" for tb in yearly])


def _wal_a_day_tb(plan: Plan, assumed: Assumed) -> float:
    return (plan.wal_mb_s + plan.image_mb_s) * plan.workers / assumed.peak * DAY_S / 1e6


def _day_gb(plan: Plan, costs: Costs, assumed: Assumed) -> float:
    """What a worker touches at random, of one day: clicks with their index, and the pages of the unique key."""
    a_postback = costs.click_bytes * assumed.clicks + assumed.key_bytes / assumed.page_full
    return plan.rate / assumed.peak * DAY_S / plan.workers * a_postback / 1e9


def _missed(day_gb: float, assumed: Assumed) -> float:
    """The share of postbacks for a click that is too old for its pages to be in memory, all of which holds them."""
    return exp(-assumed.worker_memory_gb / day_gb / assumed.mean_age_days)


def _loss_rows(plans: Sequence[Plan], assumed: Assumed) -> Iterator[str]:
    rest = [p.ingest_busy * p.ingest_machines / (p.ingest_machines - 1) for p in plans]
    yield _row(
        "an ingest machine: busy processors of the others, before → after",
        [f"{p.ingest_busy:.0%} → {after:.0%}" for p, after in zip(plans, rest, strict=True)],
    )
    unanswered = [p.rate / p.ingest_machines * assumed.notice_s for p in plans]
    yield _row(
        f"requests without an answer in the {assumed.notice_s} s until that is noticed (the sender repeats them)",
        [f"{count:,.0f}" for count in unanswered],
    )
    spool_mb = [p.rate / p.processes * assumed.spool_bytes / 1e6 for p in plans]
    yield _row(
        f"a worker with a standby: spool of a process after {assumed.failover_s} s, MB",
        [f"{mb_s * assumed.failover_s:.0f}" for mb_s in spool_mb],
    )
    # A process may use all of its core to catch up.
    drain = [assumed.failover_s * assumed.busy / (1 - assumed.busy) for _p in plans]
    yield _row("until the spools are empty again, s", [f"{seconds:.0f}" for seconds in drain])
    restore_s = [p.one_copy_tb * 1e6 / p.workers / assumed.restore_mb_s for p in plans]
    yield _row(
        f"a worker without a standby: restored at {assumed.restore_mb_s / 1000:g} GB/s, h",
        [f"{seconds / 3600:.1f}" for seconds in restore_s],
    )
    yield _row(
        "spool of a process meanwhile, GB",
        [f"{mb_s * seconds / 1e3:.0f}" for mb_s, seconds in zip(spool_mb, restore_s, strict=True)],
    )


def _shard_rows(workers: Sequence[int]) -> Iterator[str]:
    heads = "".join(f" on {count} workers, in turn / by size |" for count in workers)
    yield f"| shards | buckets in one: least, mean, most | heaviest shard / mean |{heads}"
    yield f"|---:|---:|---:|{'---:|' * len(workers)}"
    for shards in (32, 64, 128, 256, 1024):
        held = buckets_in_shards(shards)
        placed = " | ".join(
            f"{skew(place_in_turn(held, count)):.2f} / {skew(place_by_size(held, count)):.2f}"
            for count in workers
        )
        mean = sum(held) / shards
        yield f"| {shards} | {min(held)}, {mean:g}, {max(held)} | {skew(held):.2f} | {placed} |"


def _arrival_rows() -> Iterator[str]:
    yield "| clicks come | heaviest bucket / mean | heaviest of 32 shards / mean | heaviest of 128 / mean |"
    yield "|---|---:|---:|---:|"
    for name in ARRIVALS:
        loads = bucket_loads(name, RANDOM_SEED)
        of_shards = [skew(shard_loads(loads, shards)) for shards in (32, 128)]
        yield f"| {name} | {skew(loads):.2f} | {of_shards[0]:.2f} | {of_shards[1]:.2f} |"


# --- the page --------------------------------------------------------------------------------------------------------


def _split(page: str, name: str) -> tuple[str, str, str]:
    """Up to a marker, what lies between it and its end, and from there on.  Raises ``ValueError`` without markers."""
    found = re.fullmatch(rf"(.*<!-- {name}: begin -->\n)(.*?)(<!-- {name}: end -->.*)", page, re.DOTALL)
    if found is None:
        raise ValueError(f"the page has no markers of {name}")
    return found[1], found[2], found[3]


def replace_block(page: str, name: str, text: str) -> str:
    """The page with another text between two markers."""
    before, _, after = _split(page, name)
    return f"{before}{text}\n{after}"


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="Plan beyond one machine.")
    parser.add_argument(
        "--json", type=Path, help="results of a run (python -m bench --json); default: the page's"
    )
    parser.add_argument("--write", action="store_true", help="write figures and tables into docs/scale.md")
    given = parser.parse_args()
    page = PAGE.read_text()
    figures = json.loads(given.json.read_text())["figures"] if given.json else read_costs(page)
    costs = write_costs(figures)
    # As the page has them: the tables follow from what can be read there.
    tables = write_tables(read_costs(replace_block(page, "costs", costs)))
    if given.write:
        PAGE.write_text(replace_block(replace_block(page, "costs", costs), "tables", tables))
    else:
        print(costs, tables, sep="\n\n")


if __name__ == "__main__":
    main()
