"""``postbackd report explore`` and ``report check``: any question to the roll-ups, and whether they are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from postbackd.cli.options import as_json, now_ms, takes_settings
from postbackd.cli.session import Session, print_json, visit
from postbackd.core.zones import QUARTER_MS
from postbackd.reports.measures import MEASURES, Measures
from postbackd.reports.question import (
    CLOCKS,
    DEFAULT_LIMIT,
    DEFAULT_SPAN,
    DIMENSIONS,
    MOST_ROWS,
    Question,
    Unanswerable,
    open_zone,
    read_period,
    read_question,
)
from postbackd.reports.table import format_table
from postbackd.settings import Settings
from postbackd.store.base import Store

if TYPE_CHECKING:  # 'postbackd report' alone does without them
    from postbackd.reports.explore import Table
    from postbackd.upkeep.rollup_check import Difference, RollupCheck
    from postbackd.upkeep.rollups import RollupKeeper

_takes = takes_settings("data", "store", "report_zone", "cost_currency")
_MOST_SHOWN = 20


@click.command("explore")
@click.option(
    "--by", required=True, metavar="DIMENSIONS", help=f"One to three of {', '.join(DIMENSIONS)}, with commas."
)
@click.option(
    "--clock",
    type=click.Choice(CLOCKS),
    default="conversion",
    show_default=True,
    help="Conversions by their own time, or by the time of their clicks.",
)
@click.option(
    "--zone",
    metavar="NAME",
    help="Time zone of days and hours, such as Europe/Berlin.  [default: report_zone]",
)
@click.option(
    "--since",
    metavar="TIME",
    help=f"2026-11-23, 2026-11-23T14:00, 24h, 30d (whole days of the zone, and today; 'report' itself goes "
    f"back 30 times 24 hours).  [default: {DEFAULT_SPAN}]",
)
@click.option("--until", metavar="TIME", help="Not included; written like --since.")
@click.option(
    "--where", multiple=True, metavar="DIMENSION=VALUE", help="Only these; the same dimension again is 'or'."
)
@click.option("--sort", metavar="NAME", help="A measure, largest first, or a dimension.")
@click.option(
    "--limit", type=click.IntRange(1, MOST_ROWS), default=DEFAULT_LIMIT, show_default=True, help="Most lines."
)
@click.option("--csv", "csv_wanted", is_flag=True, help="Print CSV for a spreadsheet.")
@as_json
@_takes
def explore_command(
    by: str,
    clock: str,
    zone: str | None,
    since: str | None,
    until: str | None,
    where: tuple[str, ...],
    sort: str | None,
    limit: int,
    csv_wanted: bool,
    json_wanted: bool,
    settings: Settings,
) -> None:
    """Clicks, conversions, money and rates by any one to three dimensions.

    Money is by currency; cost, profit and ROI are in the setting cost_currency. What does not apply is "-".
    """
    if csv_wanted and json_wanted:
        raise click.UsageError("choose --csv or --json")
    try:
        question = read_question(
            by=by, since=since, until=until, zone=zone or settings.report_zone, clock=clock,
            where=where, sort=sort, limit=limit, now_ms=now_ms(),
        )  # fmt: skip
        table = visit(settings, lambda session: _answer(session, question))
    except Unanswerable as error:
        raise click.UsageError(str(error)) from error
    if csv_wanted:
        from postbackd.reports.explore import write_csv

        click.echo(write_csv(table), nl=False)
    elif json_wanted:
        print_json(msgspec.to_builtins(table))
    else:
        _show(table)


async def _answer(session: Session, question: Question) -> Table:
    from postbackd.reports.explore import explore

    settings = session.settings
    zone = open_zone(settings.report_zone)
    await _keeper(session).catch_up()
    return await explore(
        session.store, question, now_ms=now_ms(), report_zone=zone, cost_currency=settings.cost_currency
    )


def _keeper(session: Session) -> RollupKeeper:
    from postbackd.upkeep.rollups import RollupKeeper

    return RollupKeeper(session.store, open_zone(session.settings.report_zone), now_ms)


def _show(table: Table) -> None:
    shown = [name for name in MEASURES if _has(table, name)]
    rows = [[*line.label, *(_cell(line.measures, name) for name in shown)] for line in table.lines]
    rows.append(
        [*("total" if not at else "" for at in range(len(table.by))), *(_cell(table.total, n) for n in shown)]
    )
    click.echo(format_table([*table.by, *(name.replace("_", " ") for name in shown)], rows))
    click.echo(
        f"\n{table.since} to {table.until} ({table.zone}), conversions by the time of the {table.clock}; "
        f"read from {table.basis}, complete to {table.complete_to or '-'}"
    )
    if table.left_out:
        click.echo(f"{table.left_out} more lines; --limit shows them")
    for note in table.notes:
        click.echo(note)


def _has(table: Table, name: str) -> bool:
    return getattr(table.total, name) not in (None, {}) or name in ("clicks", "conversions")


def _cell(measures: Measures, name: str) -> str:
    value = getattr(measures, name)
    if value is None or value == {}:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{amount} {currency}" for currency, amount in value.items())
    if isinstance(value, float):
        return f"{value * 100:.2f}%"
    return str(value)


@click.command("check")
@click.option("--since", metavar="TIME", help="From then on; everything, when it is not given.")
@click.option("--mend", is_flag=True, help="Add up again what differs.")
@as_json
@_takes
def check_command(since: str | None, mend: bool, json_wanted: bool, settings: Settings) -> None:
    """Prove that the roll-ups equal the raw rows, and name every difference.

    What has been purged cannot be compared any more and stays as it was rolled up. Ends with 1 while anything differs.
    """
    zone = open_zone(settings.report_zone)
    try:
        first = 0 if since is None else read_period(since, None, zone, now_ms())[0] // QUARTER_MS
    except Unanswerable as error:
        raise click.UsageError(str(error)) from error

    async def work(session: Session) -> tuple[RollupCheck, Sequence[Difference], Sequence[Difference]]:
        keeper = _keeper(session)
        await keeper.catch_up()
        run, found = await _compare(session.store, settings, first)
        left = found
        if found and mend:
            if not await keeper.mend(found):
                raise click.ClickException("another process keeps the roll-ups; stop it, or wait a minute")
            await keeper.catch_up()
            run, left = await _compare(session.store, settings, first)
        return run, found, left

    run, found, left = visit(settings, work)
    if json_wanted:
        document = {"slots": run.slots, "conversions": run.conversions, "left": len(left)}
        print_json({**document, "differences": [one.text() for one in found]})
    else:
        for one in found[:_MOST_SHOWN]:
            click.echo(one.text())
        if len(found) > _MOST_SHOWN:
            click.echo(f"and {len(found) - _MOST_SHOWN} more; --json names them all")
        click.echo(_summary(run, found, left, mend=mend))
    if left:
        raise click.exceptions.Exit(1)


async def _compare(store: Store, settings: Settings, first: int) -> tuple[RollupCheck, Sequence[Difference]]:
    from postbackd.upkeep.rollup_check import RollupCheck

    run = RollupCheck(store, open_zone(settings.report_zone))
    return run, [one async for one in run.differences(first, now_ms() // QUARTER_MS + 1)]


def _summary(run: RollupCheck, found: Sequence[Difference], left: Sequence[Difference], *, mend: bool) -> str:
    compared = f"{run.slots} quarters of an hour and {run.conversions} conversions compared with their rows"
    if not found:
        return f"{compared}: they agree"
    if mend:
        return f"{compared}: {len(found)} differences, {len(found) - len(left)} of them mended"
    return f"{compared}: {len(found)} differences; --mend adds them up again"
