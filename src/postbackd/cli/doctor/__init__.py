"""``postbackd doctor``: is everything as it should be, and if not, what to do.

A family of checks is a module of this package: ``look_at_...`` gathers facts, ``check_...`` is a plain function that
takes facts and returns findings.
"""

from __future__ import annotations

from pathlib import Path

import click

from postbackd.cli.doctor.backups import look_at_backups
from postbackd.cli.doctor.catalog import look_at_catalog
from postbackd.cli.doctor.clock import check_drift, check_newest
from postbackd.cli.doctor.deliveries import look_at_deliveries
from postbackd.cli.doctor.durability import check_examined
from postbackd.cli.doctor.endpoint import look_at_shelf, look_from_outside, read_endpoint
from postbackd.cli.doctor.files import look_at_directory
from postbackd.cli.doctor.invariants import look_at_invariants
from postbackd.cli.doctor.versions import look_at_versions
from postbackd.cli.options import as_json, now_ms, takes_settings
from postbackd.cli.sealed_values import KEYS, look_at_secrets
from postbackd.cli.session import Session, is_served, print_json, visit
from postbackd.core.finding import Finding
from postbackd.settings import Settings


@click.command()
@click.option(
    "--endpoint",
    metavar="URL",
    help="Look at this https address from outside, as a sender would. Not given: at --public-url or --domain.",
)
@as_json
@takes_settings(
    "data", "store", "public_url", "domain", "secret_key", "backup_dir", "backup_every_h", "backup_key_file"
)
def doctor(endpoint: str | None, settings: Settings, json_wanted: bool) -> None:
    """Check the installation and say what to do; one line a finding, exit code 1 when a check fails."""
    findings: list[Finding] = []
    if endpoint is not None:
        read_endpoint(endpoint)
    if endpoint is None or Path(settings.data).is_dir():
        findings += [*look_at_directory(settings), *look_at_versions()]
    has_store = bool(findings) and all(finding.ok for finding in findings if finding.check != "disk")
    if has_store:
        findings += _look_at_store(settings)
        findings += look_at_backups(settings, now_ms())
        findings += look_at_shelf(settings)
    if endpoint is None and settings.base_url.startswith("https://"):
        endpoint = settings.base_url
    if endpoint is not None:
        findings += look_from_outside(settings, endpoint, with_store=has_store)
    if json_wanted:
        print_json([{field: getattr(f, field) for field in Finding.__struct_fields__} for f in findings])
    else:
        for finding in findings:
            click.echo(finding.write())
    failed = [finding.check for finding in findings if not finding.ok]
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}; see above"
        )


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
    server_ms, now = found.pop("clock", None), now_ms()
    findings = check_examined(found)
    findings.append(check_newest(now, await session.store.last_stamp()))
    if server_ms is not None:
        findings.append(check_drift(now, int(server_ms)))
    findings += look_at_secrets(await session.store.list_sealed(), session.settings)
    if any(finding.check == KEYS for finding in findings if not finding.ok):
        return findings  # without its keys the catalog cannot be read
    catalog = await session.load()
    findings += await look_at_catalog(session, catalog, now)
    if catalog.targets:
        findings += await look_at_deliveries(session, catalog, now)
    return findings + await look_at_invariants(session, now)
