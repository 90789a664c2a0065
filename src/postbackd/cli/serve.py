"""``postbackd serve`` and the roles it starts."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path

import click

from postbackd.cli.example import describe_example, find_example, is_empty, make_example
from postbackd.cli.options import takes_settings
from postbackd.cli.session import Session, is_served, visit
from postbackd.core.client_address import read_ranges
from postbackd.core.model import Catalog
from postbackd.core.proxy_protocol import PROXY_UNKNOWN
from postbackd.runtime import LOCK_NAME, run_deliver, run_ingest
from postbackd.service_manager import ServiceManager, reach, tell_while_serving
from postbackd.settings import Settings, find_setting, list_settings
from postbackd.store.base import StoreRefused, StoreUnavailable
from postbackd.supervisor import CannotListen, Supervisor, listen

ALL_SETTINGS = tuple(setting.name for setting in list_settings())


@click.command()
@click.option(
    "--example", is_flag=True, help="On the first start create an example campaign, and show how to try it."
)
@takes_settings(*ALL_SETTINGS)
def serve(example: bool, settings: Settings) -> int:
    """Run the server until Ctrl-C or SIGTERM; SIGHUP restarts it without refusing a connection.

    Clicks come in on /c/CAMPAIGN, postbacks on /p/KEY. A 2xx answer means stored and synced.
    """
    if is_served(settings):
        raise click.ClickException(
            f"another postbackd server uses {settings.data}; stop it or choose another --data"
        )
    with _listen(settings) as listening:
        base = settings.public_url or _address_of(listening)
        catalog = visit(settings, lambda session: _prepare(session, example), create=True)
        _note_address(settings, base)
        words = _describe_start(settings, base, _address_of(listening), catalog if example else None)
        begin = _begin_of_proxies(settings, listening)
        supervisor = Supervisor(listening, _as_arguments(settings), _as_environment(settings), begin)
        return supervisor.run(lambda: _say(words), delivers=bool(catalog.rules))


@click.command()
@click.option("--inherit", metavar="FD,FD,FD", hidden=True)
@takes_settings(*ALL_SETTINGS)
def ingest(inherit: str | None, settings: Settings) -> None:
    """Run the ingest role alone, in this process, until Ctrl-C or SIGTERM.

    Any number of them, on any number of machines, may share one PostgreSQL database (--store).
    """
    try:
        if inherit is None:
            with _listen(settings) as listening:
                words = f"postbackd listens on {_address_of(listening)}"
                manager = ServiceManager(os.environ)
                run_ingest(settings, listening, lambda: _announce(words, manager), None)
        else:
            descriptor, ready, lifeline = (int(number) for number in inherit.split(","))
            with socket.socket(fileno=descriptor) as listening:
                run_ingest(settings, listening, lambda: _tell(ready), lifeline)
    except (StoreRefused, StoreUnavailable) as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.option("--inherit", metavar="FD", type=int, hidden=True)
@takes_settings(*ALL_SETTINGS)
def deliver(inherit: int | None, settings: Settings) -> None:
    """Run the deliver role alone, in this process, until Ctrl-C or SIGTERM.

    It tells traffic sources of conversions, by the rules of the catalog. With a PostgreSQL database (--store) there may
    be any number of them, on any number of machines.
    """
    manager = ServiceManager(os.environ)

    def ready() -> None:
        if inherit is None:
            _announce("postbackd delivers", manager)

    try:
        run_deliver(settings, ready, inherit)
    except (StoreRefused, StoreUnavailable) as error:
        raise click.ClickException(str(error)) from error


def _listen(settings: Settings) -> socket.socket:
    try:
        return listen(settings.listen)
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


def _as_environment(settings: Settings) -> dict[str, str]:
    """The secret settings: everybody on the machine can read a command line."""
    secrets = {
        setting.variable: getattr(settings, setting.name) for setting in list_settings() if setting.secret
    }
    return {variable: str(value) for variable, value in secrets.items() if value is not None}


def _as_arguments(settings: Settings) -> list[str]:
    """The other settings as the command line of a role, so that it does not depend on the environment."""
    arguments = []
    for name in ALL_SETTINGS:
        value = getattr(settings, name)
        if value is not None and not find_setting(name).secret:
            arguments += [f"--{name.replace('_', '-')}", str(value)]
    return arguments


async def _prepare(session: Session, example: bool) -> Catalog:
    """Make or migrate the database, and fill an empty catalog with the example."""
    catalog = await session.load()
    if example and is_empty(catalog):
        await session.change(make_example())
        catalog = await session.load()
    return catalog


def _note_address(settings: Settings, base: str) -> None:
    """Leave the address in the lock file, for commands that print URLs."""
    try:
        Path(settings.data).mkdir(parents=True, exist_ok=True, mode=0o700)
        (Path(settings.data) / LOCK_NAME).write_text(f"{base}\n", "ascii")
    except (OSError, UnicodeEncodeError) as error:
        logging.getLogger(__name__).info("the address was not noted: %s", error)


def _describe_start(settings: Settings, base: str, address: str, catalog: Catalog | None) -> str:
    lines = [f"postbackd listens on {address}, data in {settings.place}; Ctrl-C stops it"]
    example = find_example(catalog) if catalog is not None else None
    if example is not None:
        lines += ["", describe_example(example, base, _program())]
    return "\n".join(lines)


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
