"""``postbackd unmatched``: what broke on the way of postbacks that were not counted, and the repair of some."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
import msgspec

from postbackd.catalog.documents import find_network_ever
from postbackd.catalog.urls import postback_url
from postbackd.cli.options import as_json, is_left_to_another, now_ms, since_option, takes_data, takes_urls
from postbackd.cli.session import Session, base_url, print_json, showing, visit
from postbackd.core.click_id import read_stamp
from postbackd.core.diagnosis import SENDER_REASONS, Reason
from postbackd.reports.lost_ids import find_lost_ids, format_lost_ids
from postbackd.reports.period import Period
from postbackd.reports.repairing import Repairs, list_repairs, repair
from postbackd.reports.unmatched import examine_unmatched, format_repairs, format_unmatched
from postbackd.settings import Settings

_USUAL_MS = 7 * 86_400_000
"""How far back is looked, unless told otherwise."""

_SHOWN = 20
"""Repairs that are printed one by one."""

_network = click.option("--network", metavar="N", help="Only this network.")


@click.group(invoke_without_command=True)
@_network
@since_option
@as_json
@takes_urls
@click.pass_context
def unmatched(
    context: click.Context,
    network: str | None,
    since_ms: int | None,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """What broke on the way of each kind of postback that was not counted, and what to change.

    Looks at the last 7 days unless --since says otherwise. 'postbackd unmatched repair' counts those whose click id
    can be repaired safely.
    """
    if is_left_to_another(context):
        return
    now = now_ms()
    period = Period(now - _USUAL_MS if since_ms is None else since_ms, None)
    write_url = partial(postback_url, base_url(settings))

    async def work(session: Session) -> tuple[dict[str, Any], dict[str, Any]]:
        chosen = None if network is None else await _find_network(session, network)
        document = await examine_unmatched(session.store, period, write_url, now, chosen)
        return document, await find_lost_ids(session.store, Period(None, None), now)

    document, lost = visit(settings, work)
    if json_wanted:
        print_json({**document, "lost_ids": lost})
        return
    click.echo(format_unmatched(document))
    if lost["found"]:
        click.echo(f"\n{format_lost_ids(lost)}")


@unmatched.command("repair")
@_network
@click.option(
    "--reason",
    type=click.Choice([reason.word for reason in Reason if reason and reason not in SENDER_REASONS]),
    help="Only this reason.",
)
@since_option
@click.option("--after", metavar="REQUEST", help="Go on behind this request: what an answer said as next.")
@click.option("--yes", is_flag=True, help="Count them. Without it they are only shown.")
@as_json
@takes_data
def repair_unmatched(
    network: str | None,
    reason: str | None,
    since_ms: int | None,
    after: str | None,
    yes: bool,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Show postbacks whose click id can be repaired safely, or that today's settings count; with --yes count them.

    An id is repaired only when it verifies afterwards: encoded more often than once, in the wrong field, with white
    space, quotes or other text around it. A caller's own id must be stored exactly once. Nothing is guessed or counted
    twice.
    """
    asked: dict[str, Any] = {**Period(since_ms, None).stamps(), "after": _read_after(after)}
    asked["reason"] = None if reason is None else Reason[reason.upper()].value

    async def work(session: Session) -> Repairs:
        if network is not None:
            asked["network"] = await _find_network(session, network)
        return await _walk(session, asked, yes)

    done = visit(settings, work)
    if json_wanted:
        print_json({**msgspec.to_builtins(done), "done": yes})
        return
    for line in format_repairs(done.found[:_SHOWN], "is now" if yes else "would be"):
        click.echo(line)
    if done.count > _SHOWN:
        click.echo(f"... and {done.count - _SHOWN:,} more")
    verb = "repaired and counted" if yes else "can be repaired"
    click.echo(f"{done.count:,} of {done.looked_at:,} postbacks {verb}")
    if done.count and not yes:
        click.echo("Count them with the same command and --yes.")


async def _walk(session: Session, asked: dict[str, Any], yes: bool) -> Repairs:
    """All of them, step by step, with a bar for whoever looks on."""
    (expected,) = await session.store.query("replayable_count", **asked)
    step = repair if yes else list_repairs
    found: list[dict[str, Any]] = []
    looked = count = 0
    with showing(expected["count"], "looking") as watch:
        while True:
            part = await step(session.store, asked, shown=max(0, 1000 - len(found)), told=watch)
            found += part.found
            looked, count = looked + part.looked_at, count + part.count
            if part.next is None:
                return Repairs(looked_at=looked, found=tuple(found), count=count, next=None)
            asked["after"] = read_stamp(part.next)


def _read_after(text: str | None) -> int:
    if text is None:
        return -1
    stamp = read_stamp(text)
    if stamp is None:
        raise click.UsageError(f"--after {text!r} is no request id; write what the last answer said as next")
    return stamp


async def _find_network(session: Session, name: str) -> int:
    return find_network_ever(await session.load(), await session.load(removed=True), name).id
