"""``postbackd compare``: several endpoints side by side, under the same schedule of conversions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
import uvloop

from postbackd.cli.options import as_json, now_ms
from postbackd.cli.send_options import make_context, write_file
from postbackd.cli.session import print_json, showing
from postbackd.core.moments import write_moment
from postbackd.core.percentiles import Spread, write_ms
from postbackd.core.replies import excerpt
from postbackd.exchanges.comparing import WINDOWS_MS, Compared, Comparison, find_strangers
from postbackd.exchanges.comparison_page import write_page
from postbackd.exchanges.plan import EXAMPLE, STRANGERS_RATE, Entry, Plan, PlanError, read_plan

_COLUMN = 24


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="FILE.toml")
@click.option("--example", is_flag=True, help="Print a file to begin with.")
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write a page with charts, which needs nothing beside it.",
)
@as_json
def compare(file: Path | None, example: bool, page: Path | None, json_wanted: bool) -> None:
    """Send the same conversions to several endpoints and compare them: latency, success, duplicates, bad input, TLS.

    Test ids are sent unless the file names click ids of the tracker. Before anything goes to a host that is neither
    this machine nor in a private network, and not said to be your own in the file, you are asked.
    """
    if example:
        click.echo(EXAMPLE, nl=False)
        return
    if file is None:
        raise click.UsageError("name a file; 'postbackd compare --example' prints one")
    try:
        plan = read_plan(file)
    except PlanError as error:
        raise click.UsageError(str(error)) from error
    contexts = {entry.ca: make_context(entry.ca, "ca") for entry in plan.endpoint}
    strangers = uvloop.run(find_strangers(plan))
    _ask_about(strangers)
    _warn_of_counting(plan)
    comparison = Comparison(plan, contexts, now_ms, [entry.name for entry, _ in strangers])
    found = uvloop.run(_run(comparison))
    at = write_moment(now_ms())
    if page is not None:
        write_file(page, write_page(found, plan.schedule, at))
    if json_wanted:
        print_json(
            {
                "at": at,
                "schedule": msgspec.to_builtins(plan.schedule),
                "endpoints": msgspec.to_builtins(found),
            }
        )
    else:
        _print(found)
        if page is not None:
            click.echo(f"the page with charts: {page}")


async def _run(comparison: Comparison) -> list[Compared]:
    with showing(comparison.conversions, "Comparing") as step:
        comparison.step = step
        return await comparison.run()


def _ask_about(strangers: Sequence[tuple[Entry, Sequence[str]]]) -> None:
    for entry, addresses in strangers:
        where = f"{entry.place.host} ({', '.join(addresses) or 'its name is not found'})"
        if not sys.stdin.isatty():
            raise click.UsageError(
                f"{entry.name!r} is at {where}, which is not seen to be yours: add 'own = true' to its [[endpoint]] if "
                "you may test it, or run this on a terminal and say yes"
            )
        limit = f"{STRANGERS_RATE:g}/s at most"
        question = f"{entry.name!r} is at {where}, not seen to be yours. May it be tested ({limit})?"
        click.confirm(question, abort=True, err=True)


def _warn_of_counting(plan: Plan) -> None:
    for entry in plan.endpoint:
        if entry.click_ids:
            count = plan.schedule.conversions + 2
            click.echo(
                f"{entry.name!r} is sent click ids of its own: about {count} conversions are counted there",
                err=True,
            )


# --- the table ---------------------------------------------------------------------------------------------------


def _print(found: Sequence[Compared]) -> None:
    for group in (found[start : start + 4] for start in range(0, len(found), 4)):
        _row("", [one.name for one in group])
        _row("tries", [str(one.tries) for one in group])
        _row("answered", [str(len(one.times_ms)) for one in group])
        _row("taken", [str(one.taken) for one in group])
        for percent, name in ((50, "p50"), (95, "p95"), (99, "p99")):
            _row(f"{name}, ms", [_percentile(one, name, percent) for one in group])
        _row("first byte p50, ms", [_percentile(one, "p50", 50, "first_byte") for one in group])
        for window in WINDOWS_MS:
            _row(f"within {window} ms", [_share(one, window) for one in group])
        _row("TLS grade", [one.grade.letter for one in group])
        for name in dict.fromkeys(checked.check for one in group for checked in one.checks):
            _row(name, [next((each.word for each in one.checks if each.check == name), "-") for one in group])
        click.echo("")
    for one in found:
        _explain(one)


def _row(head: str, cells: Sequence[str]) -> None:
    click.echo(f"{head:<20}{''.join(f'{cell[: _COLUMN - 2]:<{_COLUMN}}' for cell in cells)}".rstrip())


def _percentile(one: Compared, name: str, percent: int, phase: str = "total") -> str:
    spread = one.phases.get(phase) or Spread()
    return write_ms(getattr(spread, name), spread.tries, percent)


def _share(one: Compared, window: int) -> str:
    count = one.within.get(str(window), 0)
    return f"{count} of {one.tries} ({100 * count / one.tries:.0f}%)" if one.tries else "-"


def _explain(one: Compared) -> None:
    outcomes = ", ".join(f"{count} {word}" for word, count in one.outcomes.items())
    ids = "test ids" if one.test else "click ids of its own"
    click.echo(
        f"{one.name}: {one.url} at {', '.join(one.addresses) or 'no address'}, {one.rate:g}/s, {ids}: {outcomes}"
    )
    if one.left_out:
        click.echo(f"  its URL has no place for: {', '.join(one.left_out)}")
    if one.example:
        click.echo(f"  such as: {excerpt(one.example)}")
    if one.grade.reasons:
        click.echo(f"  TLS {one.grade.letter}: {excerpt('; '.join(one.grade.reasons))}")
    for checked in one.checks:
        click.echo(f"  {checked.check}: {checked.word}: {excerpt(checked.detail)}")
