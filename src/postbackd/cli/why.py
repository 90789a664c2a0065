"""``postbackd why``: what became of one id."""

from __future__ import annotations

import click

from postbackd.cli.options import as_json, now_ms, takes_data
from postbackd.cli.session import print_json, visit
from postbackd.reports.why import explain, format_story, is_known
from postbackd.settings import Settings


@click.command()
@click.argument("id_", metavar="ID")
@as_json
@takes_data
def why(id_: str, settings: Settings, json_wanted: bool) -> None:
    """What became of one id, and why.

    ID is a click, request, conversion, delivery or transaction id. For an id that is not known: the cause and the
    fix. Exit code 1 when nothing is stored under it.
    """
    if not id_.strip():
        raise click.UsageError(
            "the ID is empty; name a click, request, conversion, delivery or transaction id"
        )
    document = visit(settings, lambda session: explain(session.store, id_, now_ms()))
    if json_wanted:
        print_json(document)
    else:
        click.echo(format_story(document))
    if not is_known(document):
        raise click.exceptions.Exit(1)
