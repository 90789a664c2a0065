"""``postbackd simulate check`` and ``remove``: a server against the truth of a run, and the end of it all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import msgspec

from postbackd.cli.options import as_json, takes_data, takes_urls
from postbackd.cli.session import Session, is_served, print_json, visit
from postbackd.cli.simulate_said import ask_api, ask_store, read_access
from postbackd.core.model import Catalog
from postbackd.locks import LOCK_NAME, is_held
from postbackd.reports.period import Period
from postbackd.runtime import DELIVER_LOCK_NAME
from postbackd.settings import Settings
from postbackd.simulating.catalog import find_strangers
from postbackd.simulating.checking import check_faults, compare, count_differences
from postbackd.simulating.ledger import Ledger
from postbackd.simulating.removal import NotSimulated, list_files, remove_files
from postbackd.simulating.savings import count_savings, describe_savings
from postbackd.simulating.tables import format_checks, format_faults, format_run, format_savings
from postbackd.simulating.truth_file import BadTruth, read_truth


@click.command()
@click.argument("truth_file", metavar="TRUTH", type=click.Path(path_type=Path))
@click.option(
    "--api", metavar="URL", help="Ask the API at this address (http://127.0.0.1:8081), not the database."
)
@click.option(
    "--token-file", type=click.Path(path_type=Path), metavar="FILE",
    help="For --api: a file with a token of 'postbackd token add' (scope read).",
)  # fmt: skip
@click.option("--all", "all_lines", is_flag=True, help="Print every line, also of what is right.")
@as_json
@takes_urls
def check(
    truth_file: Path,
    api: str | None,
    token_file: Path | None,
    all_lines: bool,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Hold reports, doctor and every conversion of a server against the TRUTH of a run; exit 1 if they differ.

    What nobody can know (a request without an answer, a run that was killed) may be one or the other. Through the API
    conversions are not compared one by one.
    """
    try:
        ledger = Ledger(read_truth(truth_file))
    except BadTruth as error:
        raise click.ClickException(str(error)) from error
    period = Period(ledger.began.at_ms, ledger.until_ms)
    if api is None:
        said = visit(settings, lambda session: ask_store(session, period, settings))
    else:
        said = asyncio.run(ask_api(*read_access(api, token_file), period))
    lines, faults = compare(ledger, said), check_faults(ledger, said)
    differences, savings = count_differences(lines, faults), count_savings(ledger)
    if json_wanted:
        print_json(
            {
                "differences": differences,
                "lines": [{**msgspec.to_builtins(one), "ok": one.ok} for one in lines],
                "faults": [msgspec.to_builtins(one) for one in faults],
                "savings": describe_savings(savings),
            }
        )
    else:
        click.echo(format_run(ledger))
        click.echo(f"\n{format_checks(lines, all_lines=all_lines)}")
        if faults:
            click.echo(f"\n{format_faults(faults)}")
        click.echo(f"\n{format_savings(savings)}")
        click.echo(f"\n{len(lines):,} figures compared, {differences:,} differences")
    if differences:
        raise click.exceptions.Exit(1)


@click.command()
@click.option("--yes", is_flag=True, help="Do it; without this only say what would go.")
@takes_data
def remove(yes: bool, settings: Settings) -> None:
    """Remove the database of simulated markets, with everything in it.

    Only when all of its catalog is simulated, and no server uses it.
    """
    directory = Path(settings.data)
    if settings.store is not None:
        raise click.ClickException(
            "the data are in a PostgreSQL database; if it holds nothing else, drop that database"
        )
    if is_served(settings) or any(is_held(directory / name) for name in (LOCK_NAME, DELIVER_LOCK_NAME)):
        raise click.ClickException(f"a server is using {directory}; stop it first")

    async def load(session: Session) -> Catalog:
        return await session.load(removed=True)

    catalog = visit(settings, load)
    strangers = find_strangers(catalog)
    if strangers or not catalog.networks:
        what = repr(strangers[0]) if strangers else "no simulated network"
        raise click.ClickException(
            f"the catalog in {directory} has {what}, which no simulation made, so nothing is removed; to take the "
            "simulated entries out of a catalog, apply a file without them"
        )
    try:
        files = list_files(directory)
        if yes:
            remove_files(directory, files)
    except NotSimulated as error:
        raise click.ClickException(str(error)) from error
    verb = "removed" if yes else "would remove"
    click.echo(f"{verb} {directory} with the {len(files)} files of its database")
    if not yes:
        click.echo("nothing removed yet; run it again with --yes")
