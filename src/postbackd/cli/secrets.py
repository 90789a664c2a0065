"""``postbackd secrets``: what is stored sealed, and the change of the key.  No secret and no key is ever printed.

A change must leave a key that opens what is stored at every moment: the file holds the new key and the old one before
anything is sealed anew, and loses the old one when nothing needs it any more.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click

from postbackd.cli.main import Family
from postbackd.cli.options import as_json, takes_data
from postbackd.cli.sealed_values import CLEAR, CLOSED, OLDER, OPENS, Checked, check_values
from postbackd.cli.session import print_json, visit
from postbackd.locks import lock_data
from postbackd.sealing import (
    KEY_NAME,
    Sealer,
    SealError,
    make_key,
    read_key_file,
    read_keys,
    replace_key_file,
    write_key,
)
from postbackd.settings import Settings
from postbackd.store.base import SealedValue, StoreRefused
from postbackd.store.failpoints import pass_failpoint

LOCK_NAME = "rotate.lock"

_GRACE_S = 1.0
"""A command that has read the old key stores what it sealed with it sooner than this."""

_MOST_ROUNDS = 5


@click.group(cls=Family)
def secrets() -> None:
    """What is stored sealed, and the key that opens it."""


@secrets.command()
@as_json
@takes_data
def check(settings: Settings, json_wanted: bool) -> None:
    """Try to open every secret that is stored; exit code 1 when one does not open."""
    checked = check_values(_list_values(settings), settings)
    if json_wanted:
        print_json([
            {
                "purpose": one.value.purpose, "owner": one.value.owner, "name": one.value.name,
                "state": one.state, "problem": one.problem or None,
            }
            for one in checked
        ])  # fmt: skip
    else:
        _print_checked(checked)
    closed = sum(one.state == CLOSED for one in checked)
    if closed:
        raise click.ClickException(f"{closed} of {len(checked)} secrets do not open; see above")


def _print_checked(checked: Sequence[Checked]) -> None:
    for one in checked:
        if one.state == CLOSED:
            click.echo(f"{one.what}: {one.problem}")
    count = Counter(one.state for one in checked)
    click.echo(f"{len(checked)} secrets: " + ", ".join(
        f"{count[state]} {words}" for state, words in _STATES.items() if count[state]
    ) if checked else "no secret is stored")  # fmt: skip
    if count[CLEAR]:
        click.echo("Seal those in clear: 'postbackd secrets seal'.")
    if count[OLDER]:
        click.echo("Finish the change of the key: 'postbackd secrets rotate'.")


_STATES = {
    OPENS: "open",
    OLDER: "open with an older key or in an older form",
    CLEAR: "in clear",
    CLOSED: "closed",
}


@secrets.command()
@takes_data
def seal(settings: Settings) -> None:
    """Seal what is stored in clear: the keys of networks, and those that sign click ids.

    The embedded database does so by itself. On a PostgreSQL database give every process the same POSTBACKD_SECRET_KEY
    and restart it first: one without the key could not read the catalog any more.
    """
    if settings.store is not None and settings.secret_key is None:
        raise click.UsageError(
            "give every process on this database the same POSTBACKD_SECRET_KEY first; "
            "'openssl rand -base64 32' makes one"
        )
    click.echo(f"{_seal_all(settings)} secrets are sealed")


@secrets.command()
@click.option(
    "--key-file",
    type=click.File("r", encoding="utf-8", errors="replace"),
    metavar="FILE",
    help="Take the new key (32 bytes in base64) from there, - for standard input, instead of a random one.",
)
@click.option(
    "--old-to",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the old key there; backups that were made before need it.",
)
@click.option("--now", is_flag=True, help="On a PostgreSQL database: no other machine uses this key file.")
@takes_data
def rotate(settings: Settings, key_file: TextIO | None, old_to: Path | None, now: bool) -> None:
    """Seal every secret with a new key; servers go on running.

    With a key file (secret.key in the data directory) that is all. It may be stopped at any moment and run again. Where
    the key is a setting, put a new one in front of it on every machine (NEW,OLD), restart the servers, run this, and
    take the old one away.
    """
    try:
        if settings.secret_key is not None:
            if key_file is not None or old_to is not None:
                raise click.UsageError("the key is a setting here: change it there, as the help says")
            _rotate_setting(settings, settings.secret_key)
            return
        given = None if key_file is None else read_keys(key_file.read(_LONGEST_KEY_FILE), "--key-file")
        with lock_data(Path(settings.data), LOCK_NAME, "another change of the key is under way in"):
            _rotate_file(settings, given, old_to, now=now)
    except StoreRefused as error:
        raise click.ClickException(str(error)) from error


_LONGEST_KEY_FILE = 4096


def _rotate_setting(settings: Settings, key: str) -> None:
    if len(read_keys(key, "POSTBACKD_SECRET_KEY")) < 2:
        raise click.ClickException(
            "POSTBACKD_SECRET_KEY holds one key; put a new one in front of it (NEW,OLD) for every process, restart "
            "the servers, then run this again; 'openssl rand -base64 32' makes a key"
        )
    count = _seal_all(settings)
    click.echo(
        f"{count} secrets are sealed with the newest key; take the old one out of POSTBACKD_SECRET_KEY everywhere. "
        "Keep it as long as backups that were made before."
    )


def _rotate_file(
    settings: Settings, given: Sequence[bytes] | None, old_to: Path | None, *, now: bool
) -> None:
    path = Path(settings.data) / KEY_NAME
    keys = read_key_file(path, create=False)
    if old_to is not None:
        _save_old(old_to, keys[-1:])
    if len(keys) == 1:  # otherwise a change was begun and not finished: that goes on
        keys = [*(given or [make_key()])[:1], *keys]
        if keys[0] == keys[1]:
            raise SealError(
                "the new key is the one that is in use already; leave --key-file out to have one made"
            )
        replace_key_file(path, keys)
        pass_failpoint("new_key_laid")
        if settings.store is not None and not now:
            click.echo(
                f"{path} holds a new key beside the old one. Copy it to every machine that has the key, then run this "
                "again. When no other machine has it: --now."
            )
            return
    elif given is not None and given[0] != keys[0]:
        raise SealError(
            "a change to another key was begun and not finished; run this without --key-file first"
        )
    count = _seal_until_done(settings, keys[0])
    pass_failpoint("sealed_anew")
    replace_key_file(path, keys[:1])
    click.echo(
        f"{count} secrets are sealed with a new key, which is in {path}; the old one opens none of them."
    )
    if old_to is None:
        click.echo("Backups that were made before need the old key: keep the copy that you have beside them.")


def _seal_until_done(settings: Settings, newest: bytes) -> int:
    """Seal everything anew, also what a command adds meanwhile that read the old key before."""
    sealer = Sealer(newest)
    for _ in range(_MOST_ROUNDS):
        count = _seal_all(settings)
        time.sleep(_GRACE_S)
        if all(_opens(sealer, value) for value in _list_values(settings)):
            return count
    raise SealError(
        "secrets are added all the time that are sealed with the old key; stop that and run this again"
    )


def _opens(sealer: Sealer, value: SealedValue) -> bool:
    try:
        return value.sealed is None or sealer.is_newest(value.sealed, value.purpose)
    except SealError:
        return False


def _save_old(path: Path, keys: Sequence[bytes]) -> None:
    text = "".join(f"{write_key(key)}\n" for key in keys)
    try:
        if path.exists() and path.read_text("ascii", "replace") == text:
            return  # of a change that was not finished
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SealError(f"cannot write {path}: {error.strerror}; name another file in --old-to") from error
    try:
        os.write(file, text.encode())
        os.fsync(file)
    finally:
        os.close(file)


def _seal_all(settings: Settings) -> int:
    return visit(settings, lambda session: session.store.seal_all())


def _list_values(settings: Settings) -> Sequence[SealedValue]:
    return visit(settings, lambda session: session.store.list_sealed())
