"""``postbackd user``: who may sign in to the dashboard.  Passwords are chosen in the browser, never here."""

from __future__ import annotations

from secrets import token_urlsafe

import click

from postbackd.cli.main import Family
from postbackd.cli.options import as_json, now_ms, takes_settings
from postbackd.cli.session import Session, dashboard_base, print_json, visit
from postbackd.core.moments import write_moment
from postbackd.core.people import SECRET_BYTES, Code, Purpose, Role, User, code_of, read_name, welcome_link
from postbackd.reports.table import format_table
from postbackd.settings import Settings

_takes_dashboard = takes_settings(
    "data", "store", "admin_listen", "admin_url", "domain", "cert", "key", "tls"
)
"""Where the data are, and under which address people reach the dashboard."""

_role_type = click.Choice([role.value for role in Role])


@click.group(cls=Family)
def user() -> None:
    """People who may sign in to the dashboard."""


@user.command("list")
@as_json
@_takes_dashboard
def list_users(settings: Settings, json_wanted: bool) -> None:
    """Everybody, by name."""

    async def work(session: Session) -> list[User]:
        return list(await session.store.people.list_users())

    found = visit(settings, work)
    if json_wanted:
        print_json([
            {"name": one.name, "role": one.role, "totp": one.totp_on, "made": write_moment(one.made_ms)}
            for one in found
        ])  # fmt: skip
    elif not found:
        click.echo("nobody yet; 'postbackd user invite' makes a link for the first owner", err=True)
    else:
        rows = [
            (one.name, one.role.value, "yes" if one.totp_on else "no", write_moment(one.made_ms))
            for one in found
        ]
        click.echo(format_table(("name", "role", "codes", "since"), rows))


@user.command()
@click.argument("name", required=False, default="")
@click.option("--role", type=_role_type, help="What they may do. [default: viewer]")
@as_json
@_takes_dashboard
def invite(name: str, role: str | None, settings: Settings, json_wanted: bool) -> None:
    """Print a link with which somebody chooses a password, once; without NAME they choose that too.

    A viewer looks, an operator also changes the catalog and replays, an owner also manages users and tokens. The link
    of the first owner lives for an hour, others for three days.
    """
    named = _read_name(name) if name else ""

    async def work(session: Session) -> tuple[str, Code]:
        people = session.store.people
        has_users = await people.has_users()
        if named and await people.find_user(named) is not None:
            raise click.ClickException(f"there is a user {named!r} already; see 'postbackd user reset'")
        if not has_users and role not in (None, Role.OWNER):
            raise click.ClickException("the first user is an owner: somebody has to invite the others")
        wanted = Role(role) if role else Role.VIEWER if has_users else Role.OWNER
        purpose = Purpose.INVITE if has_users else Purpose.WELCOME
        return await _make_link(session, purpose, wanted, named, "user invite")

    _print_link(settings, *visit(settings, work, create=True), json_wanted=json_wanted)


@user.command()
@click.argument("name")
@as_json
@_takes_dashboard
def reset(name: str, settings: Settings, json_wanted: bool) -> None:
    """Print a link with which a user chooses another password, once.

    Nothing changes before it is followed; then their sessions end, and codes are no longer asked for.
    """

    async def work(session: Session) -> tuple[str, Code]:
        found = await _find(session, name)
        return await _make_link(session, Purpose.RESET, found.role, found.name, "user reset")

    _print_link(settings, *visit(settings, work), json_wanted=json_wanted)


@user.command("role")
@click.argument("name")
@click.argument("role", type=_role_type)
@_takes_dashboard
def change_role(name: str, role: str, settings: Settings) -> None:
    """Let a user do more or less; their sessions end."""

    async def work(session: Session) -> None:
        found = await _find(session, name)
        await session.store.people.set_role(found, Role(role))
        await session.note("user role", found.name, ("role",))

    visit(settings, work)
    click.echo(f"{name} is {role} now and has to sign in again")


@user.command()
@click.argument("name")
@_takes_dashboard
def remove(name: str, settings: Settings) -> None:
    """Remove a user, with sessions, tokens and saved views."""

    async def work(session: Session) -> None:
        found = await _find(session, name)
        await session.store.people.remove_user(found)
        await session.note("user remove", found.name)

    visit(settings, work)
    click.echo(f"{name} is removed")


def _read_name(name: str) -> str:
    try:
        return read_name(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


async def _find(session: Session, name: str) -> User:
    found = await session.store.people.find_user(_read_name(name))
    if found is None:
        raise click.ClickException(f"there is no user {name!r}; see 'postbackd user list'")
    return found


async def _make_link(
    session: Session, purpose: Purpose, role: Role, name: str, action: str
) -> tuple[str, Code]:
    secret = token_urlsafe(SECRET_BYTES)
    code = code_of(secret, purpose, role, name, "the command line", now_ms())
    await session.store.people.add_code(code)
    await session.note(action, name, ("role",))
    return secret, code


def _print_link(settings: Settings, secret: str, code: Code, *, json_wanted: bool) -> None:
    link, until = welcome_link(dashboard_base(settings), secret), write_moment(code.expires_ms)
    if json_wanted:
        print_json({"link": link, "role": code.role, "name": code.name, "until": until})
        return
    click.echo(link)
    click.echo(
        f"for {'a new ' + code.role if not code.name else code.name}; opens once, until {until}", err=True
    )
