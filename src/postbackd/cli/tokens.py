"""``postbackd token``: what programs show to the API instead of a password."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_urlsafe

import click

from postbackd.cli.main import Family
from postbackd.cli.options import as_json, now_ms, takes_data
from postbackd.cli.session import Session, print_json, visit
from postbackd.core.moments import write_moment
from postbackd.core.people import (
    DAY_MS,
    SECRET_BYTES,
    TOKEN_BEGIN,
    TOKEN_SCOPES,
    Token,
    hash_secret,
    read_scopes,
)
from postbackd.reports.table import format_table
from postbackd.settings import Settings


@click.group(cls=Family)
def token() -> None:
    """Tokens of programs that use the API."""


@token.command("add")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, default=("read",), show_default=True, type=click.Choice(TOKEN_SCOPES),
    help="What it may do: look at everything but secrets; change the catalog; replay, resend, import. May be repeated.",
)  # fmt: skip
@click.option(
    "--expires-days", type=click.IntRange(0, 3650), default=365, show_default=True,
    help="Days until its time is over; 0: never.",
)  # fmt: skip
@as_json
@takes_data
def add_token(
    name: str, scopes: Sequence[str], expires_days: int, settings: Settings, json_wanted: bool
) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    name = name.strip()
    if not name or len(name) > 64 or not name.isprintable():
        raise click.UsageError("the name of a token is 1 to 64 printable characters; write what it is for")
    now, secret = now_ms(), TOKEN_BEGIN + token_urlsafe(SECRET_BYTES)
    made = Token(
        name=name, hash=hash_secret(secret), scopes=read_scopes(scopes), made_ms=now,
        expires_ms=now + expires_days * DAY_MS if expires_days else None,
    )  # fmt: skip

    async def work(session: Session) -> None:
        await session.store.people.add_token(made)
        await session.note("token add", name, ("scopes", "expires_days"))

    visit(settings, work, create=True)
    if json_wanted:
        print_json(
            {"token": secret, "name": name, "scopes": list(made.scopes), "expires": _moment(made.expires_ms)}
        )
        return
    click.echo(secret)
    click.echo("send it as 'Authorization: Bearer ...'; it is not shown again", err=True)


@token.command("list")
@as_json
@takes_data
def list_tokens(settings: Settings, json_wanted: bool) -> None:
    """All tokens, without their secrets, which nobody has but those they were given to."""

    async def work(session: Session) -> Sequence[Token]:
        return await session.store.people.list_tokens()

    found = visit(settings, work)
    if json_wanted:
        print_json([
            {
                "id": one.id, "name": one.name, "scopes": list(one.allowed), "made_by": one.user_name,
                "made": write_moment(one.made_ms), "expires": _moment(one.expires_ms), "used": _moment(one.used_ms),
            }
            for one in found
        ])  # fmt: skip
    elif not found:
        click.echo("no token yet; 'postbackd token add NAME' makes one", err=True)
    else:
        click.echo(format_table(("name", "scopes", "made by", "expires", "used"), [
            (one.name, " ".join(one.allowed), one.user_name or "command line", _moment(one.expires_ms) or "never",
             _moment(one.used_ms) or "never")
            for one in found
        ]))  # fmt: skip


@token.command("remove")
@click.argument("name")
@takes_data
def remove_token(name: str, settings: Settings) -> None:
    """Remove a token: from now on it opens nothing."""

    async def work(session: Session) -> None:
        people = session.store.people
        for one in await people.list_tokens():
            if one.name == name and await people.remove_token(one.id) is not None:
                await session.note("token remove", name)
                return
        raise click.ClickException(f"there is no token {name!r}; see 'postbackd token list'")

    visit(settings, work)
    click.echo(f"{name} is removed")


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else write_moment(at_ms)
