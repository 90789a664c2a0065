"""What has to be done before a server starts: the certificate is looked at, the database made or migrated."""

from __future__ import annotations

from pathlib import Path

import click

from postbackd.cli.example import describe_example, find_example, is_empty, make_example
from postbackd.cli.serve import Start
from postbackd.cli.session import Session, visit
from postbackd.core.model import Catalog
from postbackd.settings import Settings
from postbackd.store.base import StoreRefused


def prepare(settings: Settings, example: str | None, program: str) -> Start:
    """``example``: what the URLs of the example begin with; ``None``: it is not wanted.  ``program``: as it was called.

    Raises ``ClickException``.
    """
    _check_certificate(settings)
    _warn_of_backups(settings)
    catalog = visit(settings, lambda session: _fill(session, example is not None), create=True)
    found = find_example(catalog) if example is not None else None
    words = "" if found is None or example is None else describe_example(found, example, program)
    return Start(bool(catalog.rules), words)


def _check_certificate(settings: Settings) -> None:
    """Before anything is started: whoever started us is still looking."""
    if settings.cert is None:
        return
    from postbackd.https import check_certificate

    try:
        check_certificate(settings)
    except StoreRefused as error:
        raise click.ClickException(str(error)) from error


def _warn_of_backups(settings: Settings) -> None:
    """A disk that is not there is no reason to turn senders away, but whoever started us is still looking."""
    if settings.backup_dir is None:
        return
    from postbackd.backup.container import BackupFailed
    from postbackd.backup.keys import read_key_file

    try:
        if not Path(settings.backup_dir).is_dir():
            raise BackupFailed(
                f"there is no directory {settings.backup_dir}; make it, or mount the disk it is on"
            )
        if settings.backup_key_file is not None:
            read_key_file(Path(settings.backup_key_file))
    except BackupFailed as error:
        click.echo(f"postbackd: NO BACKUPS WILL BE MADE: {error}", err=True)


async def _fill(session: Session, example: bool) -> Catalog:
    """Make or migrate the database, and fill an empty catalog with the example."""
    catalog = await session.load()
    if example and is_empty(catalog):
        await session.change(make_example())
        catalog = await session.load()
    return catalog
