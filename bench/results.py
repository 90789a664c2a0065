"""What a run found: rows, figures and the lines to pass; as a Markdown table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.load import Load


@dataclass(frozen=True)
class Row:
    """One server under one load."""

    subject: str
    what: str
    connections: int
    load: Load | None = None
    verified: bool | None = None
    """Whether its database holds what its answers said; ``None`` when it has no database."""
    remark: str = ""
    """The count that was compared, or why the row was not run."""


@dataclass(frozen=True)
class Line:
    """One line to pass."""

    name: str
    wanted: str
    measured: float | None
    unit: str
    passed: bool | None
    """``None`` when something it compares was not measured."""


@dataclass
class Results:
    """Everything that one run found."""

    machine: dict[str, str | int | float]
    seconds: float
    """How long each load lasted."""
    random_seed: int
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    """Single measurements; the unit is the end of the name."""
    not_run: dict[str, str] = field(default_factory=dict)
    """Parts that could not be measured, and why."""

    def rate(self, what: str, connections: int, subject: str) -> float | None:
        """Requests a second of a row, ``None`` when it was not run.  A version after the subject does not matter."""
        for row in self.rows:
            same = row.subject == subject or row.subject.startswith(f"{subject} ")
            if same and row.what == what and row.connections == connections:
                return row.load.per_second if row.load else None
        return None

    def as_json(self) -> dict[str, Any]:
        rows = []
        for row in self.rows:
            plain = asdict(row)
            if row.load:
                plain["load"]["per_second"] = row.load.per_second
            rows.append(plain)
        return {
            "machine": self.machine,
            "seconds": self.seconds,
            "random_seed": self.random_seed,
            "rows": rows,
            "figures": self.figures,
            "not_run": self.not_run,
            "lines": [asdict(line) for line in judge(self)],
        }


NGINX = "nginx, return 200"
POSTBACKD = "postbackd"
POSTBACKD_POSTGRES = "postbackd, PostgreSQL"
DELIVERER = "postbackd, deliver"
PEER_SQLITE = "FastAPI + SQLAlchemy, SQLite"
PEER_POSTGRES = "FastAPI + SQLAlchemy, PostgreSQL"
"""Subjects; the name of one on PostgreSQL goes on with a space and the version."""

NEW_RECENT = "new conversions, recent ids"
NEW_UNIFORM = "new conversions, uniform ids"
NEW_OLD = "new conversions, ids of stored conversions"
DUPLICATES = "duplicates"
REDIRECTS = "click redirect"
CONNECTIONS = (64, 512)

HALF_LOAD_P99 = "half_load_p99_ms"
RESIDENT = "resident_at_0_load_mb"
HELP = "help_ms"
DISTRIBUTIONS = "runtime_distributions"
POSTGRES_LEVEL = "postgres_level_conversions"
DROP_RATIO = "postgres_drop_p99_ratio"
NODE_SHARE = 0.3
"""Of a core, for each node that is compared."""
NODES = tuple(
    f"{POSTBACKD_POSTGRES}, {count} with {NODE_SHARE:g} of a core" for count in ("one node", "two nodes")
)
"""Subjects of the part that compares them."""
NODES_IDLE = "nodes_least_idle_percent"
NODES_LEAST_IDLE_PERCENT = 10
"""Of each core: with less left the machine could have been the limit, not the nodes."""

UNTOLD = f"{NEW_RECENT}, no rules"
TOLD = f"{NEW_RECENT}, each delivered"
ALL_ALIVE = "1,000 new conversions/s, all targets alive"
HALF_DEAD = "1,000 new conversions/s, half of the targets dead"
NOT_DRAINING = "half load, nothing is delivered"
WHILE_DRAINING = "half load, a backlog drains"
WHILE_DOWN = "while the target was down"

TOLD_P99 = "deliveries_p99_ms"
TOLD_P99_POSTGRES = "postgres_deliveries_p99_ms"
STEADY = "deliveries_per_second"
STEADY_POSTGRES = "postgres_deliveries_per_second"
BACKLOG = "deliveries_backlog"
BACKLOG_MEMORY = "deliveries_backlog_grown_mb"
DRAINING = "deliveries_backlog_ratio"
DRAINING_P99 = "deliveries_draining_p99_ratio"
HALF_DEAD_P99 = "deliveries_half_dead_p99_ratio"

CLIENT_P99 = "client_p99_us"
CLIENT_CALLS = "client_calls_per_second"
CLIENT_WAITING = "client_waiting"
CLIENT_DRAINED = "client_drained_per_second"

_IN_LINES = {NGINX: "nginx", POSTBACKD: "postbackd on SQLite"}
"""What some subjects are called in a line to pass."""


def stored_before(conversions: int, what: str = NEW_RECENT) -> str:
    """The name of the rows on a database that holds so many conversions already."""
    return f"{what}, {conversions / 1e6:g} M stored"


def queued(deliveries: int, when: str = "") -> str:
    """The name of the row of so many deliveries that were queued before."""
    return f"{deliveries:,} queued deliveries {when}".strip()


def judge(results: Results) -> list[Line]:
    """The lines to pass, as ratios within one run."""
    figures = results.figures
    full = results.rate(stored_before(10_000_000), 64, POSTBACKD)
    count = figures.get(DISTRIBUTIONS)
    return [
        *_judge_speed(results, POSTBACKD, "", ((NGINX, 0.30), (PEER_SQLITE, 20), (PEER_POSTGRES, 20))),
        _at_least("10 M stored / empty", _ratio(full, results.rate(NEW_RECENT, 64, POSTBACKD)), 0.8),
        _below("p99 at half load", figures.get(HALF_LOAD_P99), 10, "ms"),
        _below("resident at 0 load", figures.get(RESIDENT), 80, "MB"),
        _below("postbackd --help", figures.get(HELP), 150, "ms"),
        Line("runtime distributions", "<= 18", count, "", None if count is None else count <= 18),
        *_judge_speed(results, POSTBACKD_POSTGRES, "PostgreSQL: ", ((POSTBACKD, 0.5), (PEER_POSTGRES, 8))),
        *_judge_postgres(results),
        *_judge_deliveries(results),
        *_judge_client(results),
    ]


def _judge_speed(
    results: Results, subject: str, begin: str, peers: Sequence[tuple[str, float]]
) -> Iterator[Line]:
    """New conversions beside those of others."""
    for connections in CONNECTIONS:
        ours = results.rate(NEW_RECENT, connections, subject)
        for peer, factor in peers:
            ratio = _ratio(ours, results.rate(NEW_RECENT, connections, peer))
            other = _IN_LINES.get(peer, peer)
            yield _at_least(f"{begin}new conversions / {other}, {connections} connections", ratio, factor)


def _judge_postgres(results: Results) -> Iterator[Line]:
    """What else PostgreSQL is for: more nodes, more rows, days that are dropped."""
    figures = results.figures
    one, two = (results.rate(NEW_RECENT, 128, name) for name in NODES)
    sound = figures.get(NODES_IDLE, 0) >= NODES_LEAST_IDLE_PERCENT
    yield _at_least("PostgreSQL: two nodes / one", _ratio(two, one) if sound else None, 1.3)
    level = int(figures.get(POSTGRES_LEVEL, 50_000_000))
    full = results.rate(stored_before(level), 64, POSTBACKD_POSTGRES)
    empty = results.rate(NEW_RECENT, 64, POSTBACKD_POSTGRES)
    yield _at_least(f"PostgreSQL: {level / 1e6:g} M stored / empty", _ratio(full, empty), 0.8)
    yield _below("PostgreSQL: p99 while a day is dropped / before", figures.get(DROP_RATIO), 2, "")


def _judge_deliveries(results: Results) -> Iterator[Line]:
    """Outbound never slows inbound, and is soon there."""
    figures = results.figures
    told, untold = (results.rate(what, 64, POSTBACKD) for what in (TOLD, UNTOLD))
    backlog = f"{figures.get(BACKLOG, 1_000_000):,.0f}"
    yield _below("deliveries: p99 from commit to target, 1,000/s", figures.get(TOLD_P99), 50, "ms")
    yield _at_least("deliveries a second, one core", figures.get(STEADY), 3_000)
    yield _below(f"deliveries: memory for {backlog} queued", figures.get(BACKLOG_MEMORY), 150, "MB")
    yield _at_least(f"deliveries: {backlog} queued drain / steady rate", figures.get(DRAINING), 0.8)
    yield _below("deliveries: p99 at half load, draining / not", figures.get(DRAINING_P99), 2, "")
    yield _below("deliveries: p99 of the others, half dead / all alive", figures.get(HALF_DEAD_P99), 1.2, "")
    yield _at_least("deliveries: new conversions, with / without", _ratio(told, untold), 0.8)
    name = "PostgreSQL: p99 from commit to target, 1,000 deliveries/s"
    yield _below(name, figures.get(TOLD_P99_POSTGRES), 50, "ms")
    yield _at_least("PostgreSQL: deliveries a second, one core", figures.get(STEADY_POSTGRES), 3_000)


def _judge_client(results: Results) -> Iterator[Line]:
    """A call costs a shop's customer nothing, and a backlog is soon gone."""
    figures = results.figures
    yield _at_least("client: calls of conversion() a second", figures.get(CLIENT_CALLS), 20_000)
    yield _below("client: p99 of a call", figures.get(CLIENT_P99), 1_000, "us")
    name = f"client: {figures.get(CLIENT_WAITING, 100_000):,.0f} waiting, drained a second"
    yield _at_least(name, figures.get(CLIENT_DRAINED), 3_000)


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def _at_least(name: str, measured: float | None, wanted: float) -> Line:
    return Line(name, f">= {wanted:g}", measured, "", None if measured is None else measured >= wanted)


def _below(name: str, measured: float | None, wanted: float, unit: str) -> Line:
    return Line(
        name, f"< {wanted:g} {unit}".strip(), measured, unit, None if measured is None else measured < wanted
    )


def write_markdown(results: Results) -> str:
    """The whole result as text that can be put into a document."""
    machine = ", ".join(
        f"{name.replace('_', ' ')} {value if isinstance(value, str) else format(value, '.6g')}"
        for name, value in results.machine.items()
    )
    parts = [
        f"{machine}; {results.seconds:g} s a load, random seed {results.random_seed}",
        "",
        "| server | load | connections | requests/s | p50 ms | p99 ms | database |",
        "|---|---|---:|---:|---:|---:|---|",
        *(_write_row(row) for row in results.rows),
        "",
        "| figure | |",
        "|---|---:|",
        *(f"| {name.replace('_', ' ')} | {value:,.6g} |" for name, value in results.figures.items()),
        "",
        "| line to pass | wanted | measured | |",
        "|---|---|---:|---|",
        *(_write_line(line) for line in judge(results)),
    ]
    parts += [f"\n{part}: not run: {why}" for part, why in results.not_run.items()]
    return "\n".join(parts)


def _write_row(row: Row) -> str:
    load = row.load
    if load is None:
        return f"| {row.subject} | {row.what} | {row.connections} | not run: {row.remark} | | | |"
    verified = {None: "", True: "agrees: ", False: "DIFFERS: "}[row.verified]
    failed = f", {load.failed} failed" if load.failed else ""
    latencies = f"{load.p50_ms:.2f} | {load.p99_ms:.2f}" if load.max_ms else "|"
    return (
        f"| {row.subject} | {row.what} | {row.connections or ''} | {load.per_second:,.0f} | {latencies} "
        f"| {verified}{row.remark}{failed} |"
    )


def _write_line(line: Line) -> str:
    measured = "" if line.measured is None else f"{line.measured:.3g} {line.unit}".strip()
    verdict = {None: "not measured", True: "PASS", False: "FAIL"}[line.passed]
    return f"| {line.name} | {line.wanted} | {measured} | {verdict} |"
