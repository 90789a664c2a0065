"""What a run found: rows, figures and the lines to pass; as a Markdown table and as JSON."""

from __future__ import annotations

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
        """Requests a second of a row, ``None`` when it was not run."""
        for row in self.rows:
            if row.what == what and row.connections == connections and row.subject.startswith(subject):
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


NEW_RECENT = "new conversions, recent ids"
NEW_UNIFORM = "new conversions, uniform ids"
DUPLICATES = "duplicates"
REDIRECTS = "click redirect"
CONNECTIONS = (64, 512)

HALF_LOAD_P99 = "half_load_p99_ms"
RESIDENT = "resident_at_0_load_mb"
HELP = "help_ms"
DISTRIBUTIONS = "runtime_distributions"


def stored_before(conversions: int) -> str:
    """The name of the rows on a database that holds so many conversions already."""
    return f"{NEW_RECENT}, {conversions // 1_000_000} M stored"


def judge(results: Results) -> list[Line]:
    """The lines to pass, as ratios within one run."""
    lines = []
    for connections in CONNECTIONS:
        ours = results.rate(NEW_RECENT, connections, "postbackd")
        for peer, factor in (
            ("nginx", 0.30),
            ("FastAPI + SQLAlchemy, SQLite", 20),
            ("FastAPI + SQLAlchemy, Post", 20),
        ):
            theirs = results.rate(NEW_RECENT, connections, peer)
            name = f"new conversions / {peer.replace('Post', 'PostgreSQL')}, {connections} connections"
            lines.append(_at_least(name, _ratio(ours, theirs), factor))
    empty = results.rate(NEW_RECENT, 64, "postbackd")
    full = results.rate(stored_before(10_000_000), 64, "postbackd")
    lines.append(_at_least("10 M stored / empty", _ratio(full, empty), 0.8))
    figures = results.figures
    lines.append(_below("p99 at half load", figures.get(HALF_LOAD_P99), 10, "ms"))
    lines.append(_below("resident at 0 load", figures.get(RESIDENT), 80, "MB"))
    lines.append(_below("postbackd --help", figures.get(HELP), 150, "ms"))
    count = figures.get(DISTRIBUTIONS)
    lines.append(Line("runtime distributions", "<= 18", count, "", None if count is None else count <= 18))
    return lines


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def _at_least(name: str, measured: float | None, wanted: float) -> Line:
    return Line(name, f">= {wanted:g}", measured, "", None if measured is None else measured >= wanted)


def _below(name: str, measured: float | None, wanted: float, unit: str) -> Line:
    return Line(name, f"< {wanted:g} {unit}", measured, unit, None if measured is None else measured < wanted)


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
    return (
        f"| {row.subject} | {row.what} | {row.connections} | {load.per_second:,.0f} | {load.p50_ms:.2f} "
        f"| {load.p99_ms:.2f} | {verified}{row.remark}{failed} |"
    )


def _write_line(line: Line) -> str:
    measured = "" if line.measured is None else f"{line.measured:.3g} {line.unit}".strip()
    verdict = {None: "not measured", True: "PASS", False: "FAIL"}[line.passed]
    return f"| {line.name} | {line.wanted} | {measured} | {verdict} |"
