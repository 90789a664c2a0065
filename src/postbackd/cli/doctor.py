"""``postbackd doctor``: is everything as it should be, and if not, what to do."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import apsw
import click

from postbackd.cli.doctor_privacy import look_at_privacy
from postbackd.cli.findings import Finding
from postbackd.cli.options import as_json, now_ms, takes_data
from postbackd.cli.session import Session, is_served, print_json, visit
from postbackd.core.click_id import stamp_ms
from postbackd.core.conditions import ConditionError, compile_condition
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Catalog
from postbackd.core.params import POSTBACK_NAMES, FieldMap
from postbackd.core.planning import Planner
from postbackd.reports.deliveries import resume_command
from postbackd.reports.period import Period, write_moment
from postbackd.reports.report import HEALTHY_MATCH_RATE, build_report
from postbackd.reports.table import percent
from postbackd.reports.why import mapping_command
from postbackd.settings import Settings

OLDEST_SQLITE = (3, 51, 3)
"""Older versions can corrupt a database in WAL mode."""

LEAST_FREE_BYTES = 512 * 1024 * 1024
"""A day of clicks and postbacks of a busy site, and room for the log of the database."""

_ENOUGH_POSTBACKS = 20
"""With fewer a match rate says nothing yet."""


@click.command()
@as_json
@takes_data
def doctor(settings: Settings, json_wanted: bool) -> None:
    """Check the installation and say what to do; exit code 1 when a check fails."""
    findings = [*_look_at_directory(settings), _look_at_sqlite()]
    if all(finding.ok for finding in findings):
        findings += _look_at_store(settings)
    if json_wanted:
        print_json([{field: getattr(f, field) for field in Finding.__struct_fields__} for f in findings])
    else:
        for finding in findings:
            click.echo(f"{'ok    ' if finding.ok else 'FAILED'}  {finding.check}: {finding.detail}")
            if finding.fix:
                click.echo(f"        {finding.fix}")
    failed = [finding.check for finding in findings if not finding.ok]
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}; see above"
        )


def _look_at_directory(settings: Settings) -> Iterator[Finding]:
    directory = Path(settings.data)
    if not directory.is_dir():
        fix = f"Start 'postbackd serve --data {directory}' once, or name another directory with --data."
        yield Finding(check="data directory", ok=False, detail=f"{directory} does not exist", fix=fix)
        return
    writable = os.access(directory, os.R_OK | os.W_OK | os.X_OK)
    yield Finding(
        check="data directory",
        ok=writable,
        detail=f"{directory} is {'writable' if writable else 'not writable'}",
        fix=None if writable else "Make it yours: chown it to the user that runs postbackd.",
    )
    yield _look_at_permissions(directory)
    free = shutil.disk_usage(directory).free
    yield Finding(
        check="disk",
        ok=free >= LEAST_FREE_BYTES,
        detail=f"{free / 2**30:.1f} GiB free",
        fix=None
        if free >= LEAST_FREE_BYTES
        else "Free some space or purge old clicks: 'postbackd purge --before 90d'.",
    )


def _look_at_permissions(directory: Path) -> Finding:
    """The database holds endpoint keys and signing secrets."""
    open_files = [
        path.name for path in sorted(directory.glob("postbackd.db*")) if path.stat().st_mode & 0o077
    ]
    return Finding(
        check="permissions",
        ok=not open_files,
        detail=f"others can read {', '.join(open_files)}"
        if open_files
        else "only the owner can read the database",
        fix=f"Run: chmod 600 {directory}/postbackd.db*" if open_files else None,
    )


def _look_at_sqlite() -> Finding:
    version = apsw.sqlite_lib_version()
    ok = tuple(int(part) for part in version.split(".")) >= OLDEST_SQLITE
    fix = None if ok else "Install apsw 3.51.3 or newer: older SQLite can corrupt a database in WAL mode."
    return Finding(check="SQLite", ok=ok, detail=version, fix=fix)


def _look_at_store(settings: Settings) -> list[Finding]:
    served = is_served(settings)
    detail = "a server runs on this directory" if served else "no server runs on this directory"
    findings = [Finding(check="server", ok=True, detail=detail)]
    try:
        findings += visit(settings, _examine)
    except click.ClickException as error:
        fix = "Do what the line says, then run 'postbackd doctor' again."
        findings.append(Finding(check="database", ok=False, detail=error.message, fix=fix))
    return findings


async def _examine(session: Session) -> list[Finding]:
    found = await session.store.examine()
    findings = [_expect(check, detail, *_WANTED.get(check, (detail, ""))) for check, detail in found.items()]
    catalog = await session.load()
    findings.append(
        Finding(
            check="catalog",
            ok=bool(catalog.campaigns and catalog.networks),
            detail=f"{len(catalog.networks)} networks, {len(catalog.sources)} sources, {len(catalog.offers)} offers, "
            f"{len(catalog.campaigns)} campaigns",
            fix=None
            if catalog.campaigns and catalog.networks
            else "Add a network, a source, an offer and a campaign, or run 'postbackd serve --example'.",
        )
    )
    groups = (await build_report(session.store, Period(), "network"))["groups"]
    findings += [_look_at_matching(group) for group in groups if _says_something(group)]
    for group in groups:
        findings += await _look_at_mapping(session, catalog, group)
    findings += await look_at_privacy(session, catalog)
    if catalog.rules:
        findings.append(_look_at_rules(catalog))
    if catalog.targets:
        findings += await _look_at_deliveries(session, catalog)
    return findings


_WANTED = {
    "journal mode": ("wal", "Use a local disk and restart the server."),
    "synchronous": ("full", "Unset POSTBACKD_UNSAFE_SYNC: acknowledged rows can be lost."),
    "integrity": ("ok", "Stop the server and restore a backup."),
    "fsync": ("on", "Switch fsync on in the server's settings: acknowledged rows can be lost."),
    "full page writes": (
        "on",
        "Switch full_page_writes on in the server's settings: a crash can damage the database.",
    ),
    "synchronous commit": ("on", "Unset POSTBACKD_UNSAFE_SYNC: acknowledged rows can be lost."),
}
"""What was examined -> what it has to be, and what to do if it is not."""


def _expect(check: str, found: str, wanted: str, fix: str) -> Finding:
    return Finding(check=check, ok=found == wanted, detail=found, fix=None if found == wanted else fix)


def _says_something(group: dict[str, Any]) -> bool:
    return bool(group["postbacks"]["total"] >= _ENOUGH_POSTBACKS and group["match_rate"] is not None)


def _look_at_matching(group: dict[str, Any]) -> Finding:
    healthy = group["match_rate"] >= HEALTHY_MATCH_RATE
    detail = f"{percent(group['match_rate'])} of {group['postbacks']['total']} postbacks matched"
    check = f"match rate of {group['network'] or 'a removed network'}"
    if healthy:
        return Finding(check=check, ok=True, detail=detail)
    main = list(group["postbacks"]["unmatched_by_reason"].items())[:3]
    words = ", ".join(f"{count} {word}" for word, count in main)
    fixes = " ".join(f"{word}: {Reason[word.upper()].fix}" for word, _ in main)
    return Finding(check=check, ok=False, detail=f"{detail}; {words}", fix=fixes or None)


async def _look_at_mapping(session: Session, catalog: Catalog, group: dict[str, Any]) -> list[Finding]:
    """Click ids that were found in a parameter that is not mapped for them yet.  Nothing is lost, so nothing fails."""
    reason = Reason.CLICK_ID_IN_OTHER_FIELD
    count = group["postbacks"]["by_reason"].get(reason.word, 0)
    network = next((network for network in catalog.networks if network.name == group["network"]), None)
    if not count or network is None:
        return []
    newest = await session.store.query("log", reason=reason.value, network=network.id, limit=1)
    found_in = newest[0]["found_in"] if newest else None
    if found_in is None or found_in.lower() in FieldMap(POSTBACK_NAMES, network.fields).names["click_id"]:
        return []
    return [
        Finding(
            check=f"click id of {network.name}",
            ok=True,
            detail=f"{count} postbacks had it in another parameter, the last one in {found_in}",
            fix=f"Run: {mapping_command(network.name, found_in)}",
        )
    ]


# --- deliveries --------------------------------------------------------------------------------------------------

LATE_MS = 60_000
"""What should have been done longer ago than this, nobody does."""

BROKEN_MS = 600_000
"""A target that fails for less long is tried again soon, and nothing is lost: worth a line, but no failure."""

_DAY_MS = 86_400_000

_START_DELIVER = (
    "The deliver role is not running or cannot keep up: start 'postbackd serve' or 'postbackd deliver'."
)


def _look_at_rules(catalog: Catalog) -> Finding:
    """Rules that cannot be followed, or that wait for something that does not exist."""
    found = list(Planner(catalog).problems)
    names = [
        {entry.name for entry in entries}
        for entries in (
            (*catalog.removed_offers, *catalog.offers),
            catalog.networks,
            (*catalog.removed_campaigns, *catalog.campaigns),
        )
    ]
    for rule in catalog.rules:
        try:
            warnings = compile_condition(rule.condition).warnings(*names)
        except ConditionError:  # one of the problems
            continue
        found += [f"rule {rule.name!r}: {warning}" for warning in warnings]
    return Finding(
        check="rules",
        ok=not found,
        detail="; ".join(found) if found else f"{len(catalog.rules)}, and all can be followed",
        fix="Mend each with 'postbackd rule set NAME'; 'postbackd rule test' shows what it does."
        if found
        else None,
    )


async def _look_at_deliveries(session: Session, catalog: Catalog) -> list[Finding]:
    store, now = session.store, now_ms()
    live = {target.id for target in catalog.targets}
    states = [row for row in await store.query("target_states") if row["target"] in live]
    dead = await store.query("dead_by_reason", from_ms=now - _DAY_MS)
    findings = [_look_at_target(row, now) for row in states]
    findings += [
        _look_at_dead(list(rows)) for _, rows in groupby(sorted(dead, key=_by_target), key=_by_target)
    ]
    late = {"outbox": await _count_late_events(session, now)}
    unserved = {row["target"] for row in states}
    overdue = await store.query("overdue", before_ms=now - LATE_MS)
    late["deliveries"] = sum(row["count"] for row in overdue if row["target"] not in unserved)
    backlog = ", ".join(text for text in (
        f"rules were not asked about {_count(late['outbox'], 'conversion')}" if late["outbox"] else "",
        f"{_count(late['deliveries'], 'delivery', 'deliveries')} not sent" if late["deliveries"] else "",
    ) if text)  # fmt: skip
    findings.append(Finding(
        check="backlog",
        ok=not backlog,
        detail=f"{backlog}, for more than a minute" if backlog else "nothing waits longer than it should",
        fix=_START_DELIVER if backlog else None,
    ))  # fmt: skip
    return findings


async def _count_late_events(session: Session, now: int) -> int:
    """How many events the outbox holds, if the oldest has been there for a while."""
    (outbox,) = await session.store.query("outbox_count")
    oldest = outbox["request_id"]
    return outbox["count"] if oldest is not None and stamp_ms(oldest) < now - LATE_MS else 0


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _by_target(row: dict[str, Any]) -> int:
    target: int = row["target"]
    return target


def _look_at_target(state: dict[str, Any], now: int) -> Finding:
    name, paused = state["target_name"], state["state"] == "paused"
    again = f", tried again at {write_moment(state['until_ms'])}" if state["until_ms"] else ""
    reason = f": {state['reason']}" if state["reason"] else ""
    return Finding(
        check=f"target {name}",
        ok=not paused and now - state["since_ms"] < BROKEN_MS,
        detail=f"{state['state']} since {write_moment(state['since_ms'])}{again}{reason}",
        fix=f"Its deliveries wait. When it is as it should be, run: {resume_command(name)}"
        if paused
        else f"Its deliveries wait. Look at 'postbackd target show {name}' and at the network between.",
    )


def _look_at_dead(rows: list[dict[str, Any]]) -> Finding:
    """Deliveries to one target that died; ``rows``: by reason, most first."""
    name, count = rows[0]["target_name"], sum(row["count"] for row in rows)
    most = f", {rows[0]['count']} of them" if len(rows) > 1 else ""
    options = ["--state", "dead", "--target", name]
    show = shlex.join(["postbackd", "delivery", "list", *options])
    retry = shlex.join(["postbackd", "delivery", "retry", *options, "--yes"])
    return Finding(
        check=f"deliveries to {name}",
        ok=False,
        detail=f"{count} died in the last day{most}: {rows[0]['reason']}",
        fix=f"Look: {show}. When the target takes them: {retry}",
    )
