"""``postbackd serve`` and the roles it starts."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from postbackd.admin_address import dashboard_url
from postbackd.cli.apart import run_apart
from postbackd.cli.options import takes_settings
from postbackd.core.client_address import read_ranges
from postbackd.core.people import welcome_link
from postbackd.core.proxy_protocol import PROXY_UNKNOWN
from postbackd.locks import LOCK_NAME, is_held
from postbackd.role import start_logging
from postbackd.service_manager import ServiceManager, reach, tell_while_serving
from postbackd.settings import Settings, find_setting, list_settings
from postbackd.settings_passing import as_environment
from postbackd.store.base import StoreRefused, StoreUnavailable
from postbackd.supervisor import CannotListen, Supervisor, listen_on, read_inherited


class Start(NamedTuple):
    """What a start needs to know of the database."""

    delivers: bool
    """Whether there is a rule."""
    example: str
    """How to try the example; empty: it was not asked for."""
    code: str = ""
    """Lets the first owner of the dashboard in; empty: there are users, or no dashboard."""


ALL_SETTINGS = tuple(setting.name for setting in list_settings())

SECRET_SETTINGS = tuple(setting.name for setting in list_settings() if setting.secret)
"""They go through the environment: everybody on the machine can read a command line."""


@click.command()
@click.option(
    "--example", is_flag=True, help="On the first start create an example campaign, and show how to try it."
)
@takes_settings(*ALL_SETTINGS)
def serve(example: bool, settings: Settings) -> int:
    """Run the server until Ctrl-C or SIGTERM; SIGHUP restarts it without refusing a connection.

    Clicks come in on /c/CAMPAIGN, postbacks on /p/KEY. A 2xx answer means stored and synced. With --domain the server
    obtains a certificate and speaks https.
    """
    start_logging(settings.log_format)
    if is_held(Path(settings.data) / LOCK_NAME):
        raise click.ClickException(
            f"another postbackd server uses {settings.data}; stop it or choose another --data"
        )
    with _listen(settings, beside=True) as sockets:
        address = _address_of(sockets["listen"])
        base = settings.base_url if settings.public_url or settings.domain else address
        start = run_apart(lambda: _prepare(settings, base if example else None))
        dashboard = [dashboard_url(settings, sockets["admin"].getsockname()[1])] if "admin" in sockets else []
        _note_addresses(settings, [base, *dashboard])
        words = _describe_start(settings, sockets, start)
        begin = _begin_of_proxies(settings, sockets["listen"])
        supervisor = Supervisor(
            sockets, _as_arguments(settings), as_environment(settings, SECRET_SETTINGS), begin
        )
        return supervisor.run(lambda: _say(words), beside=_roles_beside(settings, start))


def _prepare(settings: Settings, example: str | None) -> Start:
    """In a process that ends: what it needs to open a database the supervisor need not hold as long as it runs."""
    from postbackd.cli.starting import prepare

    return prepare(settings, example, _program())


def _roles_beside(settings: Settings, start: Start) -> list[str]:
    wanted = {
        "deliver": start.delivers,
        "certificates": bool(settings.domain) and settings.tls == "auto",
        "admin": settings.admin_listen != "off",
    }
    return [name for name, is_wanted in wanted.items() if is_wanted]


@click.command()
@click.option("--inherit", metavar="NAME=FD,...", hidden=True)
@takes_settings(*ALL_SETTINGS)
def ingest(inherit: str | None, settings: Settings) -> None:
    """Run the ingest role alone, in this process, until Ctrl-C or SIGTERM.

    Any number of them, on any number of machines, may share one PostgreSQL database (--store).
    """
    from postbackd.runtime import run_ingest

    try:
        if inherit is None:
            with _listen(settings) as sockets:
                words = "\n".join(
                    [
                        f"postbackd listens on {_address_of(sockets['listen'])}",
                        *_describe_tls(settings, sockets),
                    ]
                )
                manager = ServiceManager(os.environ)
                run_ingest(settings, sockets, lambda: _announce(words, manager), None)
        else:
            inherited = read_inherited(inherit)
            names = [name for name in ADDRESSES if name in inherited]
            with _Sockets({name: socket.socket(fileno=inherited[name]) for name in names}) as sockets:
                run_ingest(
                    settings,
                    sockets,
                    lambda: _tell(inherited["ready"]),
                    inherited["lifeline"],
                    inherited["tray"],
                )
    except (StoreRefused, StoreUnavailable) as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.option("--inherit", metavar="NAME=FD,...", hidden=True)
@takes_settings(*ALL_SETTINGS)
def deliver(inherit: str | None, settings: Settings) -> None:
    """Run the deliver role alone, in this process, until Ctrl-C or SIGTERM.

    It tells traffic sources of conversions, by the rules of the catalog. With a PostgreSQL database (--store) there may
    be any number of them, on any number of machines.
    """
    from postbackd.runtime import run_deliver

    _run_beside(inherit, "postbackd delivers", lambda ready, lifeline: run_deliver(settings, ready, lifeline))


@click.command()
@click.option("--inherit", metavar="NAME=FD,...", hidden=True)
@click.option(
    "--try-now", is_flag=True, help="Do not wait out the pause after a failure: forget it, and end."
)
@takes_settings(*ALL_SETTINGS)
def certificates(inherit: str | None, try_now: bool, settings: Settings) -> None:
    """Look after the certificate of --domain alone, in this process, until Ctrl-C or SIGTERM.

    'postbackd serve' does so itself, and so does every 'postbackd ingest'. With --try-now the one that runs is told to
    try again at once: mend the cause first, because authorities count failures.
    """
    if not settings.domain:
        raise click.UsageError("there is nothing to look after: name the domain with --domain")
    if try_now:
        from postbackd.https import forget_trouble

        click.echo(asyncio.run(forget_trouble(settings)))
        return
    from postbackd.runtime import run_certificates

    words = f"postbackd looks after the certificate for {', '.join(settings.domains)}"
    _run_beside(inherit, words, lambda ready, lifeline: run_certificates(settings, ready, lifeline))


@click.command()
@click.option("--inherit", metavar="NAME=FD,...", hidden=True)
@takes_settings(*ALL_SETTINGS)
def admin(inherit: str | None, settings: Settings) -> None:
    """Run the dashboard and the API alone, in this process, until Ctrl-C or SIGTERM.

    'postbackd serve' does so itself, unless --admin-listen is off. With a PostgreSQL database (--store) there may be
    any number of them, on any number of machines.
    """
    if settings.admin_listen == "off":
        raise click.UsageError("there is nothing to serve: --admin-listen is off")
    if inherit is not None:
        with socket.socket(fileno=read_inherited(inherit)["admin"]) as listening:
            _administer(inherit, settings, listening, "")
        return
    code = run_apart(lambda: _prepare(settings, None)).code
    with _bind({"admin": settings.admin_listen}) as sockets:
        words = "\n".join(
            _describe_dashboard(dashboard_url(settings, sockets["admin"].getsockname()[1]), code)
        )
        _administer(inherit, settings, sockets["admin"], words)


def _administer(inherit: str | None, settings: Settings, listening: socket.socket, words: str) -> None:
    from postbackd.runtime import run_admin

    _run_beside(inherit, words, lambda ready, lifeline: run_admin(settings, listening, ready, lifeline))


def _run_beside(
    inherit: str | None, words: str, run: Callable[[Callable[[], None], int | None], None]
) -> None:
    """A role beside ``ingest``, started by a supervisor (``inherit``) or alone."""
    manager = ServiceManager(os.environ)

    def ready() -> None:
        if inherit is None:
            _announce(words, manager)

    try:
        run(ready, read_inherited(inherit)["lifeline"] if inherit is not None else None)
    except (StoreRefused, StoreUnavailable) as error:
        raise click.ClickException(str(error)) from error


class _Sockets(dict[str, socket.socket]):
    """Sockets by what they are for; closed together."""

    def __enter__(self) -> _Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        for listening in self.values():
            listening.close()


ADDRESSES = ("listen", "https", "http")
"""What sockets are for."""


def _listen(settings: Settings, *, beside: bool = False) -> _Sockets:
    """``beside``: for the roles beside ``ingest``, too."""
    addresses = {"listen": settings.listen}
    if beside and settings.admin_listen != "off":
        addresses["admin"] = settings.admin_listen
    if settings.serves_tls:
        addresses["https"] = settings.https_listen
        if settings.http_listen != "off":
            addresses["http"] = settings.http_listen
    return _bind(addresses)


def _bind(addresses: Mapping[str, str]) -> _Sockets:
    try:
        return _Sockets(listen_on(addresses))
    except CannotListen as error:
        raise click.ClickException(str(error)) from error


def _begin_of_proxies(settings: Settings, listening: socket.socket) -> bytes:
    """What the supervisor's own connections begin with: they come from where the proxies may be."""
    from_here, _ = reach(listening.getsockname())
    if settings.proxy_protocol == "off" or from_here not in read_ranges(settings.trusted_proxies):
        return b""
    return PROXY_UNKNOWN


def _address_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _as_arguments(settings: Settings) -> list[str]:
    """The other settings as the command line of a role, so that it does not depend on the environment."""
    arguments = []
    for name in ALL_SETTINGS:
        value = getattr(settings, name)
        if value is not None and not find_setting(name).secret:
            arguments += [find_setting(name).flag, str(value)]
    return arguments


def _note_addresses(settings: Settings, urls: Sequence[str]) -> None:
    """Leave the addresses in the lock file, for commands that print URLs."""
    try:
        Path(settings.data).mkdir(parents=True, exist_ok=True, mode=0o700)
        (Path(settings.data) / LOCK_NAME).write_text("".join(f"{url}\n" for url in urls), "ascii")
    except (OSError, UnicodeEncodeError) as error:
        logging.getLogger(__name__).info("the address was not noted: %s", error)


def _describe_start(settings: Settings, sockets: _Sockets, start: Start) -> str:
    address = _address_of(sockets["listen"])
    lines = [f"postbackd listens on {address}, data in {settings.place}; Ctrl-C stops it"]
    lines += _describe_tls(settings, sockets)
    if "admin" in sockets:
        lines += _describe_dashboard(dashboard_url(settings, sockets["admin"].getsockname()[1]), start.code)
    if start.example:
        lines += ["", start.example]
    return "\n".join(lines)


def _describe_dashboard(url: str, code: str) -> list[str]:
    lines = [f"dashboard on {url}"]
    if code:
        lines.append(
            f"open {welcome_link(url, code)} within an hour to choose a name and a password for it; "
            "'postbackd user invite' makes another link"
        )
    return lines


def _describe_tls(settings: Settings, sockets: _Sockets) -> list[str]:
    if "https" not in sockets:
        return []
    lines = [f"https on port {sockets['https'].getsockname()[1]}"]
    if "http" in sockets:
        lines[0] += (
            f", and what comes over plain http on port {sockets['http'].getsockname()[1]} is sent there or refused"
        )
    if settings.tls == "self-signed":
        lines.append(
            "UNSAFE: the certificate is self-signed, for tests only: no sender has reason to trust it"
        )
    elif settings.domain:
        lines.append(
            f"the certificate for {', '.join(settings.domains)} is obtained from {settings.acme_url}"
        )
    return lines


def _program() -> str:
    """How this program was called, to be typed again."""
    called = Path(sys.argv[0]).absolute()
    return str(called.relative_to(Path.cwd())) if called.is_relative_to(Path.cwd()) else called.name


def _announce(words: str, manager: ServiceManager) -> None:
    _say(words)
    tell_while_serving(manager, asyncio.get_running_loop().call_later)


def _say(words: str) -> None:
    click.echo(words)
    sys.stdout.flush()


def _tell(ready: int) -> None:
    os.write(ready, b"1")
    os.close(ready)
