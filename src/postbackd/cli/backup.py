"""``postbackd backup`` and ``postbackd restore``."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from postbackd.backup.container import BackupFailed
from postbackd.backup.files import BackupFile, failing, list_backups, spool_bytes
from postbackd.backup.keys import BackupKey, read_key_file
from postbackd.backup.manifest import Manifest
from postbackd.backup.restoring import (
    SECRET_KEY_NAME,
    check_backup,
    restore_to_database,
    restore_to_directory,
)
from postbackd.backup.taking import Order, Snapshot, SqliteSnapshot, Taken, take_backup
from postbackd.cli.options import as_json, is_left_to_another, now_ms, takes_settings
from postbackd.cli.session import is_served, print_json
from postbackd.core.moments import write_moment
from postbackd.core.money import write_micros
from postbackd.core.statuses import Status
from postbackd.role import stand_back
from postbackd.settings import Settings
from postbackd.store.base import StoreRefused, StoreUnavailable

T = TypeVar("T")

_PAUSE_SHARE = 2.0
"""Beside a server: the pause after each step of the copy, in lengths of that step."""

takes_key = takes_settings("data", "backup_key_file")
"""Where to work, and the key."""


@click.group(invoke_without_command=True)
@as_json
@takes_settings("data", "store", "backup_dir", "backup_keep", "backup_key_file", "secret_key")
@click.pass_context
def backup(ctx: click.Context, settings: Settings, json_wanted: bool) -> None:
    """Make a verified backup in the directory --backup-dir, beside a running server.

    One compressed file holds all of the database, the keys that sign click ids among it: keep it as safe as the
    database, or encrypt it with --backup-key-file. Older backups than the newest --backup-keep are removed.
    """
    if is_left_to_another(ctx):
        return
    taken = _run(_take(settings))
    if json_wanted:
        print_json(
            {**_document(taken.file), **_contents(taken.manifest), "removed": [str(p) for p in taken.removed]}
        )
        return
    click.echo(f"{taken.file.path}: {taken.file.bytes} bytes, verified")
    _describe(taken.manifest)
    for path in taken.removed:
        click.echo(f"removed {path.name}")
    for line in _not_in_it(settings, taken.manifest):
        click.echo(line)


async def _take(settings: Settings) -> Taken:
    if settings.backup_dir is None:
        raise click.UsageError("name the directory of the backups with --backup-dir")
    served = settings.store is not None or is_served(settings)
    if served:
        stand_back()
    data = Path(settings.data)
    order = Order(
        directory=Path(settings.backup_dir),
        data=data,
        snapshot=_snapshot(settings, served),
        key=_key(settings),
        keep=settings.backup_keep,
        secret_key=_secret_key(settings),
    )
    return await take_backup(order, now_ms)


def _snapshot(settings: Settings, served: bool) -> Snapshot:
    if settings.store is None:
        return SqliteSnapshot(Path(settings.data), _PAUSE_SHARE if served else 0.0)
    address = settings.store

    class PostgresSnapshot:
        """Of a PostgreSQL database."""

        kept_in = "postgresql"

        def size(self) -> int:
            return 0

        async def copy(self, target: Path) -> None:
            from postbackd.store.postgres_snapshot import copy_to_file

            await copy_to_file(address, target)

    return PostgresSnapshot()


def _key(settings: Settings) -> BackupKey | None:
    return read_key_file(Path(settings.backup_key_file)) if settings.backup_key_file else None


def _secret_key(settings: Settings) -> str | None:
    """The key of the targets' secrets that lies beside the database; one from the settings is kept elsewhere."""
    if settings.secret_key is not None:
        return None
    with failing("cannot read the key of the targets' secrets"):
        try:
            return (Path(settings.data) / SECRET_KEY_NAME).read_text("ascii")
        except FileNotFoundError:
            return None


def _not_in_it(settings: Settings, manifest: Manifest) -> list[str]:
    """What a restored server would miss."""
    data, lines = Path(settings.data), []
    if (data / SECRET_KEY_NAME).exists() and manifest.secret_key is None:
        lines.append(
            f"not in it: {data / SECRET_KEY_NAME}, which opens what is stored sealed; keep a copy elsewhere"
        )
    if settings.secret_key is not None and manifest.secret_key is None:
        lines.append(
            "not in it: the key in POSTBACKD_SECRET_KEY, which opens what is stored sealed; keep a copy elsewhere"
        )
    spooled = spool_bytes(data)
    if spooled:
        lines.append(f"not in it: {spooled} bytes in {data / 'spool'}, which wait for the database")
    return lines


@backup.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@as_json
@takes_key
def verify_command(file: Path, settings: Settings, json_wanted: bool) -> None:
    """Prove that a backup can be restored: do so beside the data, verify it, and remove it again."""
    manifest = _run(check_backup(file, _key_or_fail(settings), Path(settings.data)))
    if json_wanted:
        print_json({"path": str(file), **_contents(manifest)})
        return
    click.echo(f"{file}: sound")
    _describe(manifest)


@backup.command("list")
@as_json
@takes_settings("backup_dir")
def list_command(settings: Settings, json_wanted: bool) -> None:
    """List the backups in --backup-dir, oldest first."""
    if settings.backup_dir is None:
        raise click.UsageError("name the directory of the backups with --backup-dir")
    with _saying(), failing(f"cannot use {settings.backup_dir}"):
        found = list_backups(Path(settings.backup_dir))
    if json_wanted:
        print_json([_document(file) for file in found])
        return
    for file in found:
        click.echo(f"{write_moment(file.made_ms)}  {file.bytes:>12}  {file.path.name}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--to",
    required=True,
    metavar="DIR|URL",
    help="A data directory without a database, or the address of an empty PostgreSQL database.",
)
@as_json
@takes_key
def restore(file: Path, to: str, settings: Settings, json_wanted: bool) -> None:
    """Put a backup back, to a new place; verified before it gets its name, and nothing is ever overwritten.

    Then start the server with --data DIR or --store URL.
    """
    key = _key_or_fail(settings)
    if to.startswith(("postgresql://", "postgres://")):
        manifest = _run(restore_to_database(file, key, Path(settings.data), lambda data: _move(data, to)))
    else:
        manifest = _run(restore_to_directory(file, key, Path(to)))
    if json_wanted:
        print_json(_contents(manifest))
        return
    click.echo("restored and verified")
    _describe(manifest)
    if manifest.secret_key is None:
        click.echo(
            f"not in it: {SECRET_KEY_NAME}, which opens what is stored sealed; put the one that you keep beside the "
            "database, or set POSTBACKD_SECRET_KEY"
        )
    elif to.startswith("postgres"):
        click.echo("the key of what is stored sealed is in the backup; restore it to a directory to get it")


async def _move(data: Path, address: str) -> None:
    from postbackd.store.moving import open_mover

    mover = await open_mover(data, address)
    try:
        await mover.prepare()
        async for _ in mover.copy():
            pass
        differences = await mover.verify()
    finally:
        await mover.close()
    if differences:
        raise BackupFailed(
            f"the restored database differs: {'; '.join(differences)}; empty it, and try again"
        )


# --- printing ----------------------------------------------------------------------------------------------------


def _document(file: BackupFile) -> dict[str, Any]:
    return {"path": str(file.path), "bytes": file.bytes, "made": write_moment(file.made_ms)}


def _contents(manifest: Manifest) -> dict[str, Any]:
    return {
        "as_of": write_moment(manifest.made_ms),
        "program": manifest.program,
        "kept_in": manifest.kept_in,
        "database_bytes": manifest.file_bytes,
        "tables": dict(manifest.contents.tables),
        "money": [
            {
                "currency": total.currency,
                "status": Status(total.status).word,
                "value": write_micros(total.value_micros),
                "conversions": total.conversions,
            }
            for total in manifest.contents.money
        ],
        "money_rows": manifest.money_rows,
        "unsealed": manifest.unsealed,
        "secret_key": manifest.secret_key is not None,
    }


def _describe(manifest: Manifest) -> None:
    tables = manifest.contents.tables
    click.echo(
        f"as of {write_moment(manifest.made_ms)}: {tables.get('clicks', 0)} clicks, "
        f"{tables.get('postbacks', 0)} log rows, {tables.get('conversions', 0)} conversions"
    )
    for total in manifest.contents.money:
        word = Status(total.status).word
        click.echo(f"  {total.conversions} {word}, {write_micros(total.value_micros)} {total.currency}")


# --- failures ----------------------------------------------------------------------------------------------------


def _key_or_fail(settings: Settings) -> BackupKey | None:
    with _saying():
        return _key(settings)


@contextmanager
def _saying() -> Iterator[None]:
    """Every failure that a user can meet, as one line."""
    try:
        yield
    except (BackupFailed, StoreRefused, StoreUnavailable) as error:
        raise click.ClickException(str(error)) from error


def _run(work: Coroutine[Any, Any, T]) -> T:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends as Ctrl-C does: tidied up
    with _saying():
        return asyncio.run(work)
