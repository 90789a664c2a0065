"""``postbackd delivery``: what traffic sources are told, one message at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from postbackd.cli.chosen_deliveries import takes_filter
from postbackd.cli.main import Family
from postbackd.cli.options import as_json, now_ms, takes_data, takes_period
from postbackd.cli.session import Session, print_json, showing, visit
from postbackd.core.deliveries import DeliveryState
from postbackd.operations.deliveries import (
    Chosen,
    Wanted,
    ask_for,
    cancel,
    cancel_these,
    choose_resendable,
    choose_waiting,
    find_all,
    open_describer,
    resend,
    send_these,
)
from postbackd.reports.deliveries import LIST_HEADER, SENDING, format_attempt, list_row, said, sum_up
from postbackd.reports.period import Period
from postbackd.reports.table import format_table
from postbackd.settings import Settings

_LONGEST_REASON = 200


@click.group(cls=Family)
def delivery() -> None:
    """What traffic sources are told: each message, its attempts, and sending it again."""


# --- looking -----------------------------------------------------------------------------------------------------


@delivery.command("list")
@takes_filter
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Most rows to show."
)
@takes_period
@as_json
@takes_data
def list_deliveries(
    state: str | None,
    target: str | None,
    rule: str | None,
    limit: int,
    period: Period,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Deliveries, newest first.

    --since and --until speak of the postback that a delivery follows from.
    """
    wanted = Wanted(state, target, rule, period)

    async def work(session: Session) -> list[dict[str, Any]]:
        describer = await open_describer(session.store, now_ms())
        rows = await session.store.query("deliveries", **await ask_for(session.store, wanted), limit=limit)
        return [describer.describe(row) for row in rows]

    documents = visit(settings, work)
    if json_wanted:
        print_json(documents)
    elif documents:
        click.echo(format_table(LIST_HEADER, [list_row(document) for document in documents]))
    else:
        click.echo("no deliveries yet that fit", err=True)


@delivery.command("show")
@click.argument("id_", metavar="ID")
@as_json
@takes_data
def show_delivery(id_: str, settings: Settings, json_wanted: bool) -> None:
    """One delivery with each of its attempts; ID is its id, or the number after the dash alone."""

    async def work(session: Session) -> dict[str, Any]:
        (row,) = await find_all(session.store, [id_])
        return await (await open_describer(session.store, now_ms())).tell(session.store, row)

    document = visit(settings, work)
    if json_wanted:
        print_json(document)
        return
    click.echo(
        f"delivery {document['delivery']}: {said(document)} to {document['target']}, {sum_up(document)}"
    )
    fields = {name: document[name] for name in _SHOWN if document[name] is not None} | document["facts"]
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        click.echo(f"  {name.ljust(width)}  {value}")
    for attempt in document["attempt_log"]:
        click.echo(f"attempt {attempt['attempt']}  {format_attempt(attempt)}")


_SHOWN = (
    "time", "rule", "campaign", "type", "transaction_id", "status", "expires", "click_id", "request", "conversion",
)  # fmt: skip
"""Fields that ``show`` prints as they are, beside what stands in its first line."""


# --- sending again -----------------------------------------------------------------------------------------------


@delivery.command("retry")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@takes_filter
@click.option("--all-dead", is_flag=True, help="Everything that is dead.")
@click.option(
    "--yes", is_flag=True, help="Send what a filter finds; without this only say how many that are."
)
@takes_period
@as_json
@takes_data
def retry_deliveries(
    ids: tuple[str, ...],
    state: str | None,
    target: str | None,
    rule: str | None,
    all_dead: bool,
    yes: bool,
    period: Period,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Send deliveries now: those with these IDs, those that a filter finds, or all that are dead.

    One that waits is sent at once under its id. One that has ended is sent again under a new id; with a filter
    (without --state: the dead ones) not if that was done before, or if its conversion has changed since.
    """
    wanted = Wanted(state, target, rule, period)
    _check_choice(ids, wanted, "--all-dead", everything=all_dead)
    if ids:
        _report_sent(visit(settings, lambda session: send_these(session.store, ids, now_ms)), json_wanted)
        return
    state = state or DeliveryState.DEAD.word
    wanted = Wanted(state, target, rule, period)

    async def work(session: Session) -> tuple[Chosen, int]:
        chosen = await choose_resendable(session.store, wanted)
        if not yes:
            return chosen, 0
        with showing(chosen.count, "sending") as watch:
            return chosen, await resend(session.store, chosen, now_ms, watch)

    chosen, sent = visit(settings, work)
    if json_wanted:
        print_json(
            {"state": state, "found": chosen.count, "left_out": chosen.left_out, "sent": sent, "done": yes}
        )
        return
    if chosen.left_out:
        click.echo(
            f"{chosen.left_out} left out: sent again before, or the conversion has changed since, or the target is gone"
        )
    click.echo(_say_sent(chosen, sent, state, yes))


def _check_choice(ids: Sequence[str], wanted: Wanted, flag: str, *, everything: bool) -> None:
    """IDs, a filter, or everything: one of the three, and one only."""
    if bool(ids) + (not wanted.is_everything) + everything != 1:
        raise click.UsageError(
            f"name either IDs, or a filter such as --target T or --since 24h, or {flag} alone"
        )


def _say_sent(chosen: Chosen, sent: int, state: str, done: bool) -> str:
    waiting = state == DeliveryState.WAITING.word
    how = "at once, each under its id" if waiting else "again, each under a new id"
    if not done:
        return f"would send {chosen.count} {state} deliveries {how}; run it again with --yes"
    rest = chosen.count - sent
    why = "go out just now, or wait for an earlier message or a target ('postbackd target list')"
    held_up = f"; {rest} {why}" if waiting and rest else ""
    return f"sent {sent} {state} deliveries {how}{held_up}"


def _report_sent(sent: Sequence[dict[str, Any]], json_wanted: bool) -> None:
    if json_wanted:
        print_json(sent)
        return
    for one in sent:
        if one["state"] != "waiting":
            line = f"it was {one['state']}; sent again under the new id {one['sent_as']}"
        elif one["sent_as"] is None:
            line = f"left as it is: {one['note']}"
        else:
            line = "it waited; due now, under its id" + (f"; but {one['note']}" if one["note"] else "")
        click.echo(f"{one['delivery']}: {line}")


# --- cancelling --------------------------------------------------------------------------------------------------


@delivery.command("cancel")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--target", metavar="T", help="Only to this target.")
@click.option("--rule", metavar="R", help="Only by this rule.")
@click.option("--all-waiting", is_flag=True, help="Everything that waits.")
@click.option(
    "--reason", default="by an operator", show_default=True, help="Why; it is kept with the delivery."
)
@click.option(
    "--yes", is_flag=True, help="Cancel what a filter finds; without this only say how many that are."
)
@takes_period
@as_json
@takes_data
def cancel_deliveries(
    ids: tuple[str, ...],
    target: str | None,
    rule: str | None,
    all_waiting: bool,
    reason: str,
    yes: bool,
    period: Period,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Cancel deliveries that wait: those with these IDs, those that a filter finds, or all.

    What is being sent at this moment is left alone.
    """
    wanted = Wanted(None, target, rule, period)
    _check_choice(ids, wanted, "--all-waiting", everything=all_waiting)
    if not reason.strip() or len(reason) > _LONGEST_REASON:
        raise click.UsageError(f"--reason needs a few words, at most {_LONGEST_REASON} characters")
    if ids:
        _report_cancelled(
            visit(settings, lambda session: cancel_these(session.store, ids, reason, now_ms)), json_wanted
        )
        return

    async def work(session: Session) -> tuple[Chosen, int]:
        chosen = await choose_waiting(session.store, wanted)
        if not yes:
            return chosen, 0
        with showing(chosen.count, "cancelling") as watch:
            return chosen, await cancel(session.store, chosen, reason, now_ms, watch)

    chosen, cancelled = visit(settings, work)
    if json_wanted:
        print_json({"found": chosen.count, "cancelled": cancelled, "done": yes})
    elif not yes:
        click.echo(f"would cancel {chosen.count} waiting deliveries; run it again with --yes")
    else:
        rest = chosen.count - cancelled
        click.echo(f"cancelled {cancelled} deliveries" + (f"; {rest} were being sent" if rest > 0 else ""))


def _report_cancelled(done: Sequence[dict[str, Any]], json_wanted: bool) -> None:
    if json_wanted:
        print_json(done)
    else:
        for one in done:
            left = SENDING if one["state"] == "waiting" else f"it is {one['state']}"
            click.echo(f"{one['delivery']}: {'cancelled' if one['cancelled'] else f'left as it is: {left}'}")
    untouched = sum(not one["cancelled"] for one in done)
    if untouched:
        raise click.ClickException(f"{untouched} of {len(done)} deliveries could not be cancelled; see above")
