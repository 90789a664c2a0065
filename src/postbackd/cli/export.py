"""``postbackd export``: the catalog as a file that ``apply`` reads."""

from __future__ import annotations

import os
from pathlib import Path

import click

from postbackd.catalog.file import write_document, write_file
from postbackd.cli.options import as_json, takes_data
from postbackd.cli.session import print_json, visit
from postbackd.settings import Settings


@click.command()
@click.option("--no-keys", is_flag=True, help="Leave the secret endpoint keys out.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write there, readable by you alone."
)
@as_json
@takes_data
def export(no_keys: bool, output: Path | None, settings: Settings, json_wanted: bool) -> None:
    """Write the catalog as a file that apply reads; applying it changes nothing.

    Endpoint keys are included unless --no-keys is given: keep the file private. Account values of targets never are.
    """
    catalog = visit(settings, lambda session: session.load())
    with_keys = not no_keys
    if json_wanted:
        print_json(write_document(catalog, with_keys=with_keys))
    elif output is None:
        click.echo(write_file(catalog, with_keys=with_keys), nl=False)
    else:
        _write_private(output, write_file(catalog, with_keys=with_keys))
        click.echo(f"written to {output}", err=True)


def _write_private(path: Path, text: str) -> None:
    """Nobody else may read the keys, not even for a moment."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as writer:
            os.fchmod(writer.fileno(), 0o600)
            writer.write(text)
    except OSError as error:
        raise click.ClickException(
            f"cannot write {path}: {error.strerror}; choose another --output"
        ) from error
