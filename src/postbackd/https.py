"""HTTPS as the settings want it: where the certificate comes from, and what the front door shows.

Used by ``runtime`` only, and only when TLS is on: a server without it loads nothing of it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import Coroutine, Mapping
from pathlib import Path
from random import random
from typing import Any

from postbackd.core.acme_steps import HANDSHAKE
from postbackd.ingest.batcher import now_ms
from postbackd.ingest.front_door import FrontDoor
from postbackd.ingest.plain_door import PlainDoor
from postbackd.sealing import Sealer, SealError, find_sealer
from postbackd.settings import Settings
from postbackd.settings_values import read_address, read_hmac_key
from postbackd.store.base import StoreRefused, StoreUnavailable
from postbackd.store.sealed import CERTIFICATE
from postbackd.store.shelf import FileShelf, Shelf
from postbackd.tls.call import Caller
from postbackd.tls.documents import CERTIFICATE as CERTIFICATE_NAME
from postbackd.tls.documents import TROUBLE, Binding, Plan, read_certificate
from postbackd.tls.keeper import Keeper
from postbackd.tls.pair import UnusablePair, make_self_signed, read_files
from postbackd.tls.serving import HandshakeChallenges, Showcase, check_loads
from postbackd.tls.watching import Challenges, FileSource, ShelfSource

log = logging.getLogger("postbackd.tls")

SHELF_NAME = "tls"
"""Directory of the embedded shelf, in the data directory."""


class SecureDoor:
    """What a front door needs for https: the certificate of the moment, and who keeps it up to date."""

    def __init__(self, settings: Settings, shelf: Shelf | None, tray: int | None) -> None:
        """``shelf``: for ``--domain``; ``tray``: see ``tls.watching.FileSource``."""
        self._settings = settings
        self._shelf = shelf
        self._tray = tray
        in_handshakes = shelf is not None and settings.acme_challenge == HANDSHAKE
        self._challenges = HandshakeChallenges(now_ms) if in_handshakes else None
        self._showcase = Showcase(self._challenges)
        self._files: FileSource | None = None

    async def open(
        self, door: FrontDoor, sockets: Mapping[str, socket.socket]
    ) -> list[Coroutine[Any, Any, None]]:
        """Begin to accept connections; returns the work that has to be done beside.  Raises ``StoreRefused``."""
        work = await self.find_certificate()
        await door.start_tls(sockets["https"], self._showcase.context)
        if "http" in sockets:
            port = sockets["https"].getsockname()[1]
            challenges = Challenges(self._shelf) if self._shelf is not None else None
            find = challenges.find if challenges is not None else _find_nothing
            await door.start(sockets["http"], PlainDoor(door, find, lambda: self._secure_url(port)))
        return work

    @property
    def context(self) -> ssl.SSLContext:
        """For another listening socket, behind which the same certificate is shown."""
        return self._showcase.context

    async def find_certificate(self) -> list[Coroutine[Any, Any, None]]:
        """Show the certificate of the moment; returns the work that keeps it so.  Raises ``StoreRefused``."""
        settings, showcase = self._settings, self._showcase
        if settings.tls == "self-signed":
            log.warning(
                "UNSAFE: --tls self-signed is for tests only: no sender has reason to trust this certificate"
            )
            showcase.show(make_self_signed(self_signed_names(settings), now_ms()))
            return []
        if settings.cert is not None:
            self._files = FileSource(*certificate_files(settings), showcase, self._tray)
            try:
                self._files.start()
            except UnusablePair as error:
                raise StoreRefused(f"the certificate cannot be used: {error}") from error
            return [self._files.keep()]
        assert self._shelf is not None
        source = ShelfSource(self._shelf, showcase, settings.domains, self._challenges)
        await source.look_for_challenges()
        await source.look()
        if showcase.pair is None:
            log.warning(
                "there is no certificate for %s yet: https connections are refused until there is",
                ", ".join(settings.domains),
            )
        return [source.keep()]

    def look_now(self) -> None:
        """Read the files again; for SIGHUP."""
        if self._files is not None:
            self._files.look()

    def hear_hangup(self) -> None:
        """For a role that runs alone: SIGHUP means that there is a new certificate."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.look_now)

    def _secure_url(self, port: int) -> str:
        """What addresses of ours begin with.  Never made of what a client sent, or it could be sent anywhere."""
        settings = self._settings
        if (settings.public_url or "").startswith("https://"):
            return str(settings.public_url)
        names = settings.domains
        if not names and self._showcase.pair is not None:
            names = tuple(name for name in self._showcase.pair.term.names if "*" not in name)
        host = names[0] if names else "localhost"
        host = f"[{host}]" if ":" in host else host
        return f"https://{host}" if port == 443 else f"https://{host}:{port}"


async def _find_nothing(token: str) -> str | None:
    return None


def certificate_files(settings: Settings) -> tuple[Path, Path]:
    """Of certificate and key; one file may hold both."""
    assert settings.cert is not None
    return Path(settings.cert), Path(settings.key or settings.cert)


def self_signed_names(settings: Settings) -> list[str]:
    """The domains, or what the machine calls itself on loopback, and the address to listen on."""
    host, _ = read_address(settings.https_listen)
    names = list(settings.domains) or ["localhost", "127.0.0.1", "::1"]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return names
    return names if address.is_unspecified or host in names else [*names, host]


def check_certificate(settings: Settings) -> None:
    """Raises ``StoreRefused`` when the files of ``--cert`` and ``--key`` cannot be used."""
    if settings.cert is None:
        return
    try:
        check_loads(read_files(*certificate_files(settings)))
    except UnusablePair as error:
        raise StoreRefused(f"the certificate cannot be used: {error}") from error


async def certificate_until_ms(settings: Settings) -> int | None:
    """When the certificate that is served runs out; ``None`` where none is, or it cannot be read."""
    if settings.cert is not None:
        try:
            return read_files(*certificate_files(settings)).term.until_ms
        except UnusablePair:
            return None
    if not (settings.domain and settings.tls == "auto"):
        return None
    shelf = open_shelf(settings)
    try:
        held = read_certificate(await shelf.load(CERTIFICATE_NAME))
    except (StoreRefused, StoreUnavailable):
        return None
    finally:
        await shelf.close()
    return None if held is None else held.pair.term.until_ms


def make_keeper(settings: Settings, shelf: Shelf) -> Keeper:
    """Who looks after the certificate of ``--domain``."""
    binding = None
    if settings.acme_eab_kid is not None and settings.acme_eab_hmac_key is not None:
        binding = Binding(settings.acme_eab_kid, read_hmac_key(settings.acme_eab_hmac_key))
    plan = Plan(settings.acme_url, settings.domains, settings.email, settings.acme_challenge, binding)
    return Keeper(shelf, plan, lambda: Caller(settings.acme_ca_file), now_ms, random)


def open_shelf(settings: Settings) -> Shelf:
    """Where the documents of the certificate are kept."""
    if settings.store is None:
        return FileShelf(Path(settings.data) / SHELF_NAME)
    from postbackd.store.postgres_shelf import PostgresShelf

    return PostgresShelf(settings.store, _Seal(settings))


class _Seal:
    """Seals documents with the key of the settings, which is looked for when there is something to seal or to open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def seal(self, secret: str) -> str:
        try:
            return self._find(create=True).seal(secret, CERTIFICATE)
        except SealError as error:
            raise StoreUnavailable(str(error)) from error

    def open(self, sealed: str) -> str:
        try:
            return self._find(create=False).open(sealed, CERTIFICATE)
        except SealError as error:
            raise ValueError(str(error)) from error

    def _find(self, *, create: bool) -> Sealer:
        return find_sealer(self._settings.secret_key, Path(self._settings.data), create=create)


async def forget_trouble(settings: Settings) -> str:
    """Let whoever looks after the certificate try again at once; says what was done.  Raises ``StoreUnavailable``."""
    shelf = open_shelf(settings)
    try:
        if await shelf.load(TROUBLE) is None:
            return "no failure is waited out"
        if not await shelf.hold():
            return "somebody is trying at this moment"
        await shelf.remove(TROUBLE)
        return "the failure is forgotten; it is tried again within seconds"
    finally:
        await shelf.close()
