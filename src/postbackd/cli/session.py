"""One command's visit to the store, and what a failure there looks like to a user."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from typing import Any, TypeVar

import apsw
import click
import msgspec

from postbackd.admin_address import dashboard_url
from postbackd.cli.options import now_ms
from postbackd.core.model import Catalog, CatalogEntry
from postbackd.core.people import AuditEntry
from postbackd.locks import LOCK_NAME, is_held
from postbackd.runtime import open_store, tend_store
from postbackd.settings import Settings
from postbackd.settings_values import read_address
from postbackd.store.base import CatalogConflict, Store, StoreRefused, StoreUnavailable
from postbackd.store.catalog import describe

T = TypeVar("T")

PATIENCE_MS = 10_000
"""A person's command may wait longer for a busy server than a request may."""


class Session:
    """An open store and what commands do with the catalog in it."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings

    async def load(self, *, removed: bool = False) -> Catalog:
        """The catalog; with ``removed`` also the entries that were taken out of it."""
        return await self.store.load_catalog(removed=removed)

    async def change(
        self, saves: Sequence[CatalogEntry] = (), removals: Sequence[CatalogEntry] = ()
    ) -> Sequence[CatalogEntry]:
        """Save and remove entries, all or none.  Raises ``CatalogConflict``."""
        saved = await self.store.change_catalog(saves, removals, now_ms())
        await self.store.people.note(
            *(self._entry("save", describe(entry)) for entry in saved),
            *(self._entry("remove", describe(entry)) for entry in removals),
        )
        return saved

    async def note(self, action: str, what: str, fields: Sequence[str] = ()) -> None:
        """Keep in the audit log that a command has changed something."""
        await self.store.people.note(self._entry(action, what, fields))

    def _entry(self, action: str, what: str, fields: Sequence[str] = ()) -> AuditEntry:
        return AuditEntry(
            at_ms=now_ms(),
            who=who_am_i(),
            kind="command line",
            action=action,
            object=what,
            fields=tuple(fields),
        )


def who_am_i() -> str:
    """Who types, as far as the system knows."""
    try:
        return os.environ.get("SUDO_USER") or getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        return str(os.getuid())


def visit(settings: Settings, work: Callable[[Session], Awaitable[T]], *, create: bool = False) -> T:
    """Open the store, do the work, close it.  With ``create`` a missing database is made.

    Every failure that a user can meet leaves as a ``ClickException`` of one line.
    """
    try:
        return asyncio.run(_visit(settings, work, create))
    except (StoreRefused, CatalogConflict) as error:
        raise click.ClickException(str(error)) from error
    except (StoreUnavailable, apsw.Error) as error:
        raise click.ClickException(_words(settings, error)) from error
    except BrokenPipeError:  # not the data, but whoever read our output
        raise
    except OSError as error:
        raise click.ClickException(f"cannot use {settings.data}: {error.strerror or error}") from error


def _words(settings: Settings, error: Exception) -> str:
    if isinstance(error.__cause__ or error, apsw.CorruptError | apsw.NotADBError):
        return (
            f"the database in {settings.place} is damaged ({error}); run 'postbackd verify' to see where, stop the "
            "server, keep the files, and restore a backup"
        )
    return f"the database in {settings.place} did not answer ({error}); try again"


async def _visit(settings: Settings, work: Callable[[Session], Awaitable[T]], create: bool) -> T:
    patient = msgspec.structs.replace(settings, busy_timeout_ms=max(settings.busy_timeout_ms, PATIENCE_MS))
    store = await open_store(patient, create)
    # A purge writes more than a log should hold.  Beside a server that is the server's to copy.
    tending = None if is_served(settings) else asyncio.create_task(tend_store(store))
    try:
        return await work(Session(store, settings))
    finally:
        if tending is not None:
            tending.cancel()
            await asyncio.wait([tending])
        await store.close()


# --- the server beside us ----------------------------------------------------------------------------------------


def is_served(settings: Settings) -> bool:
    """Whether a server holds the data directory."""
    return is_held(Path(settings.data) / LOCK_NAME)


def base_url(settings: Settings) -> str:
    """What printed URLs begin with: ``public_url``, the running server's address, or the one it would listen on."""
    if settings.public_url is None and is_served(settings):
        return _served_url(settings, 0) or settings.base_url
    return settings.base_url


def dashboard_base(settings: Settings) -> str:
    """The same for the dashboard."""
    if settings.admin_url is None and is_served(settings) and (served := _served_url(settings, 1)):
        return served
    if settings.admin_listen == "off":
        return dashboard_url(Settings(), 8081)
    return dashboard_url(settings, read_address(settings.admin_listen)[1])


def _served_url(settings: Settings, line: int) -> str | None:
    """One of the addresses that the running server wrote into its lock file."""
    try:
        lines = (Path(settings.data) / LOCK_NAME).read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    url = lines[line] if len(lines) > line else ""
    return url if url.startswith(("http://", "https://")) else None


# --- printing ----------------------------------------------------------------------------------------------------


@contextmanager
def showing(count: int, label: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; gives what is told of each step."""
    quiet = not sys.stderr.isatty()
    with click.progressbar(length=count, label=label, file=sys.stderr, hidden=quiet) as bar:
        yield bar.update


def print_json(document: Any) -> None:
    """A document for scripts; text that is not ASCII stays readable."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
