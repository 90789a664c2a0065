"""``postbackd log``: the postback log, or the deliveries that follow from it; newest first, or as they grow."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from postbackd.catalog.documents import find_network_ever
from postbackd.cli.chosen_deliveries import takes_filter
from postbackd.cli.log_deliveries import DeliveryReader
from postbackd.cli.options import as_json, takes_data, takes_period
from postbackd.cli.session import Session, visit
from postbackd.core.click_id import KeyRing
from postbackd.core.diagnosis import Reason
from postbackd.core.sender_rules import OBSERVABLE, write_observed
from postbackd.core.verdicts import FINAL, Verdict
from postbackd.operations.deliveries import Wanted
from postbackd.reports.deliveries import format_logged
from postbackd.reports.log import describe_row, find_click, format_row
from postbackd.reports.period import Period
from postbackd.settings import Settings

POLL_S = 0.3
"""How often ``--follow`` looks for new rows: soon enough for a person, nothing for the database."""

_BEFORE_FOLLOWING = 10
"""Rows that ``--follow`` shows of what was there before."""

_PAGE = 500

_Write = Callable[[Mapping[str, Any]], str]
"""Makes one line of an entry."""


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Show the last rows, then every new one until Ctrl-C.")
@click.option("--verdict", type=click.Choice([verdict.word for verdict in FINAL]), help="Only this verdict.")
@click.option(
    "--reason", type=click.Choice([reason.word for reason in Reason if reason]), help="Only this reason."
)
@click.option("--network", metavar="N", help="Only this network.")
@click.option("--observed", is_flag=True, help="Only what an observed step would have refused.")
@click.option(
    "--click", "click_id", metavar="ID", help="Only this click id, as issued or as it was received."
)
@click.option("--deliveries", is_flag=True, help="Deliveries to sources, each with its last attempt.")
@takes_filter
@click.option("--limit", type=click.IntRange(1, 1_000_000), help="Most rows to show.  [default: 100]")
@takes_period
@as_json
@takes_data
def log(
    follow: bool,
    verdict: str | None,
    reason: str | None,
    network: str | None,
    observed: bool,
    click_id: str | None,
    deliveries: bool,
    state: str | None,
    target: str | None,
    rule: str | None,
    limit: int | None,
    period: Period,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """The postback log, newest first.

    With --deliveries what was sent to traffic sources instead, and with --follow then every attempt; --state, --target
    and --rule are for these, --verdict, --reason, --network and --observed for postbacks. With --json an array; with
    --follow --json one object a line.
    """
    if deliveries and (verdict or reason or network or observed):
        raise click.UsageError(
            "--verdict, --reason, --network and --observed are for postbacks; leave out --deliveries"
        )
    if not deliveries and (state or target or rule):
        raise click.UsageError("--state, --target and --rule are for deliveries; add --deliveries")
    asked = {
        "verdict": None if verdict is None else Verdict[verdict.upper()].value,
        "reason": None if reason is None else Reason[reason.upper()].value,
        "observed": write_observed(OBSERVABLE) if observed else None,
        **period.stamps(),
    }

    async def show_deliveries(session: Session) -> None:
        found = {} if click_id is None else await find_click(session.store, await session.load(), click_id)
        stamp = found.get("click_id")
        if click_id is not None and stamp is None:
            raise click.ClickException(
                f"no click has the id {click_id!r}; 'postbackd why' says more about an id"
            )
        delivered = await DeliveryReader.open(session, Wanted(state, target, rule, period), stamp)
        if follow:
            await delivered.follow(
                limit or _BEFORE_FOLLOWING, lambda entry: _print_line(entry, json_wanted, format_logged)
            )
        else:
            entries = await delivered.newest(limit or 100)
            _print_rows(entries, json_wanted, format_logged, "no deliveries yet that fit")

    async def work(session: Session) -> None:
        reader = await _Reader.open(session, asked, network, click_id)
        if follow:
            await reader.follow(limit or _BEFORE_FOLLOWING, json_wanted)
        else:
            entries = await reader.newest(limit or 100)
            _print_rows(entries, json_wanted, format_row, "no postbacks yet that fit")

    visit(settings, show_deliveries if deliveries else work)


class _Reader:
    """Asks for rows of the log, filtered as the user wants."""

    def __init__(self, session: Session, keys: KeyRing, statement: str, asked: dict[str, Any]) -> None:
        self._store = session.store
        self._keys = keys
        self._statement = statement
        self._asked = asked

    @classmethod
    async def open(
        cls, session: Session, asked: dict[str, Any], network: str | None, click_id: str | None
    ) -> _Reader:
        catalog = await session.load()
        keys = KeyRing(catalog.signing_keys)
        if network is not None:
            ever = await session.load(removed=True)
            asked = {**asked, "network": find_network_ever(catalog, ever, network).id}
        if click_id is None:
            return cls(session, keys, "log", asked)
        found = await find_click(session.store, catalog, click_id)
        return cls(session, keys, "log_of_click" if "click_id" in found else "log", {**asked, **found})

    async def newest(self, limit: int) -> list[dict[str, Any]]:
        rows = await self._store.query(self._statement, **self._asked, limit=limit)
        return [describe_row(row, self._keys) for row in rows]

    async def follow(self, before: int, json_wanted: bool) -> None:
        """The last rows, oldest first, then every new one; ends with Ctrl-C."""
        last = (await self._store.query("last_request"))[0]["request_id"] or 0
        for entry in reversed(await self.newest(before)):
            _print_line(entry, json_wanted, format_row)
        while True:
            rows = await self._store.query("log_from", **self._of_new_rows(), after=last, limit=_PAGE)
            for row in rows:
                last = max(last, row["request_id"])
                if self._asked.get("click_id") in (None, row["click_id"]):
                    _print_line(describe_row(row, self._keys), json_wanted, format_row)
            if len(rows) < _PAGE:
                await asyncio.sleep(POLL_S)

    def _of_new_rows(self) -> dict[str, Any]:
        return {name: value for name, value in self._asked.items() if name != "click_id"}


def _print_rows(entries: list[dict[str, Any]], json_wanted: bool, write: _Write, if_none: str) -> None:
    if json_wanted:
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    for entry in entries:
        click.echo(write(entry))
    if not entries:
        click.echo(if_none, err=True)


def _print_line(entry: dict[str, Any], json_wanted: bool, write: _Write) -> None:
    """One row at once, although standard output may be a pipe."""
    click.echo(json.dumps(entry, ensure_ascii=False) if json_wanted else write(entry))
    sys.stdout.flush()
