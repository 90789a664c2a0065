"""What has to be done before a server starts: the certificate is looked at, the database made or migrated."""

from __future__ import annotations

from pathlib import Path
from secrets import token_urlsafe

import click

from postbackd.cli.example import describe_example, find_example, is_empty, make_example
from postbackd.cli.options import now_ms
from postbackd.cli.serve import Start
from postbackd.cli.session import Session, visit
from postbackd.core.model import Catalog
from postbackd.core.people import SECRET_BYTES, Purpose, Role, code_of
from postbackd.settings import Settings
from postbackd.store.base import StoreRefused


def prepare(settings: Settings, example: str | None, program: str) -> Start:
    """``example``: what the URLs of the example begin with; ``None``: it is not wanted.  ``program``: as it was called.

    Raises ``ClickException``.
    """
    _check_certificate(settings)
    _warn_of_backups(settings)
    catalog, code = visit(settings, lambda session: _begin(session, example=example is not None), create=True)
    found = find_example(catalog) if example is not None else None
    words = "" if found is None or example is None else describe_example(found, example, program)
    return Start(bool(catalog.rules), words, code)


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
    trouble = _find_backup_trouble(Path(settings.backup_dir), settings.backup_key_file)
    if trouble is not None:
        click.echo(f"postbackd: NO BACKUPS WILL BE MADE: {trouble}", err=True)


def _find_backup_trouble(directory: Path, key_file: str | None) -> str | None:
    from postbackd.backup.container import BackupFailed
    from postbackd.backup.keys import read_key_file

    if not directory.is_dir():
        return f"there is no directory {directory}; make it, or mount the disk that it is on"
    if key_file is not None:
        try:
            read_key_file(Path(key_file))
        except BackupFailed as error:
            return str(error)
    return None


async def _begin(session: Session, *, example: bool) -> tuple[Catalog, str]:
    """Also what lets the first owner of the dashboard in, where there is one and nobody yet."""
    catalog = await _fill(session, example)
    people = session.store.people
    if session.settings.admin_listen == "off" or await people.has_users():
        return catalog, ""
    secret = token_urlsafe(SECRET_BYTES)
    await people.add_code(code_of(secret, Purpose.WELCOME, Role.OWNER, "", "the start", now_ms()))
    return catalog, secret


async def _fill(session: Session, example: bool) -> Catalog:
    """Make or migrate the database, and fill an empty catalog with the example."""
    catalog = await session.load()
    if example and is_empty(catalog):
        await session.change(make_example())
        catalog = await session.load()
    return catalog
