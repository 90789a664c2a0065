"""``postbackd alarm``: what is wrong, what was told of it, and who does not want to hear of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click

from postbackd.cli.main import Family
from postbackd.cli.options import as_duration, as_json, now_ms, takes_data, takes_settings
from postbackd.cli.session import Session, print_json, visit, who_am_i
from postbackd.reports.alarms import AlarmBook, UnknownAlarm
from postbackd.reports.table import format_table
from postbackd.settings import Settings

_LIST_HEADER = ("id", "alarm", "of", "since", "state", "what was seen")
_LONGEST_SEEN = 90
_LONGEST_WHY = 300


@click.group(cls=Family)
def alarm() -> None:
    """What is wrong, by itself: what was seen, what is normal, what to do."""


def _visit(settings: Settings, work: Callable[[AlarmBook], Awaitable[Any]]) -> Any:
    async def asked(session: Session) -> Any:
        return await work(AlarmBook(session.store, now_ms()))

    try:
        return visit(settings, asked)
    except UnknownAlarm as error:
        raise click.ClickException(str(error)) from error


@alarm.command("list")
@click.option("--all", "all_wanted", is_flag=True, help="Also those that are over.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Most alarms to show."
)
@as_json
@takes_data
def list_alarms(all_wanted: bool, limit: int, settings: Settings, json_wanted: bool) -> None:
    """Alarms that last, the latest first."""
    documents = _visit(settings, lambda book: book.list(limit, with_ended=all_wanted))
    if json_wanted:
        print_json(documents)
    elif documents:
        click.echo(format_table(_LIST_HEADER, [_row(document) for document in documents]))
    else:
        click.echo("no alarm lasts" if not all_wanted else "there was no alarm yet", err=True)


def _row(document: dict[str, Any]) -> Sequence[str]:
    state = f"{document['state']}, quiet" if document["quiet"] else document["state"]
    seen = document["seen"]
    short = seen if len(seen) <= _LONGEST_SEEN else seen[: _LONGEST_SEEN - 1] + "…"
    return (str(document["id"]), document["kind"], _of(document), document["raised"], state, short)


def _of(document: dict[str, Any]) -> str:
    subject = document["subject"]
    return f"{subject['type']} {subject.get('name') or subject.get('id', '')}".strip()


@alarm.command("show")
@click.argument("id_", metavar="ID", type=click.IntRange(1))
@as_json
@takes_data
def show_alarm(id_: int, settings: Settings, json_wanted: bool) -> None:
    """One alarm, and what was told of it."""
    document = _visit(settings, lambda book: book.show(id_))
    if json_wanted:
        print_json(document)
        return
    click.echo(f"{document['title']} ({document['kind']}), {_of(document)}")
    click.echo(f"seen:    {document['seen']}")
    click.echo(f"normal:  {document['normal']}")
    click.echo(f"to do:   {document['todo']}")
    over = (
        f", over since {document['ended']}" if document["ended"] else f", last seen {document['last_seen']}"
    )
    click.echo(f"raised:  {document['raised']}{over}")
    if quiet := document["quiet"]:
        until = f"until {quiet['until']}" if quiet["until"] else "until it is over"
        click.echo(f"quiet:   {until}, by {quiet['who']}: {quiet['why'] or 'no reason given'}")
    for notice in document["notices"]:
        after = f": {notice['error']}" if notice["error"] else ""
        click.echo(f"notice:  {notice['said']} to {notice['place']} {notice['state']}, {notice['at']}{after}")
    if not document["notices"]:
        click.echo("notice:  nobody was told")


@alarm.command("quiet")
@click.argument("id_", metavar="ID", type=click.IntRange(1))
@click.option(
    "--for",
    "for_s",
    callback=as_duration,
    metavar="TIME",
    help="For so long, such as 8h or 3d, also if it ends and comes back.  [default: until it is over]",
)
@click.option("--why", default="", help="The reason, for whoever looks next.")
@takes_data
def quiet_alarm(id_: int, for_s: int | None, why: str, settings: Settings) -> None:
    """Send no notices of an alarm; it is shown all the same."""
    if for_s is not None and for_s <= 0:
        raise click.UsageError("--for 0 is no time; write how long, such as 8h")
    if len(why) > _LONGEST_WHY:
        raise click.UsageError(f"--why is longer than {_LONGEST_WHY} characters; say it in fewer")
    quiet = _visit(settings, lambda book: book.quiet(id_, for_s, who_am_i(), why))
    until = f"until {quiet['until']}" if quiet["until"] else "until it is over"
    click.echo(f"alarm {id_} is quiet {until}")


@alarm.command("unquiet")
@click.argument("id_", metavar="ID", type=click.IntRange(1))
@takes_data
def unquiet_alarm(id_: int, settings: Settings) -> None:
    """Send notices of an alarm again."""
    was = _visit(settings, lambda book: book.unquiet(id_))
    click.echo(f"alarm {id_} is not quiet any more" if was else f"alarm {id_} was not quiet")


@alarm.command("test")
@as_json
@takes_settings(
    *("data", "store", "alarm_webhook", "alarm_webhook_secret", "alarm_email_to"),
    *("smtp_host", "smtp_port", "smtp_tls", "smtp_user", "smtp_password", "smtp_from"),
    *("public_url", "deliver_ranges", "deliver_ports"),
)
def test_alarms(settings: Settings, json_wanted: bool) -> None:
    """Send a notice to every place that is configured, and say what became of it."""
    import asyncio

    told = asyncio.run(_test(settings))
    if json_wanted:
        print_json(told)
    else:
        for one in told:
            click.echo(f"{one['place']}: {'sent, ' if one['ok'] else 'FAILED, '}{one['detail']}")
    if not told:
        raise click.ClickException(
            "no place is configured; set alarm_webhook with alarm_webhook_secret, or alarm_email_to with smtp_host"
        )
    if failed := [one["place"] for one in told if not one["ok"]]:
        raise click.ClickException(f"{' and '.join(failed)} did not take the test; see above")


async def _test(settings: Settings) -> Sequence[dict[str, Any]]:
    from postbackd.alarming import make_client, make_test_tool

    client = make_client(settings)
    try:
        return await make_test_tool(settings, client, now_ms)()
    finally:
        await client.close()
