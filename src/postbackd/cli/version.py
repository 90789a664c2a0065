"""``postbackd version``."""

from __future__ import annotations

import platform
from importlib import metadata

import apsw
import click

from postbackd import __version__
from postbackd.cli.options import as_json
from postbackd.cli.session import print_json


def find_version(distribution: str) -> str | None:
    """The version of a distribution, ``None`` when it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@click.command()
@as_json
def version(json_wanted: bool) -> None:
    """Print the version."""
    versions = {
        "version": __version__,
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "apsw": apsw.apsw_version(),
        "asyncpg": find_version("asyncpg"),
    }
    if json_wanted:
        print_json(versions)
    else:
        click.echo(f"postbackd {__version__} (Python {versions['python']}, SQLite {versions['sqlite']})")
