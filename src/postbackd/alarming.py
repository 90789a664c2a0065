"""Alarms as the settings want them: where notices go, what is looked at on this machine, and who keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from postbackd.alarms.keeper import AlarmKeeper
from postbackd.alarms.machine import Machine, MachinePlaces
from postbackd.alarms.places import Mail, MailServer, Places, Webhook, make_places
from postbackd.core.addresses import read_allowed
from postbackd.core.alarm_notices import Notice, write_body
from postbackd.core.alarm_troubles import Certificate
from postbackd.core.alarms import Said
from postbackd.core.moments import write_moment
from postbackd.delivery.client import Client
from postbackd.https import open_shelf
from postbackd.settings import Settings
from postbackd.store.base import Store, StoreRefused, StoreUnavailable
from postbackd.tls.documents import CERTIFICATE, TROUBLE, Trouble, load_document, read_certificate


def build_places(settings: Settings, client: Client, now_ms: Callable[[], int]) -> Places:
    """Where notices go.  ``client``: whoever made it closes it."""
    webhook = mail = None
    if settings.alarm_webhook and settings.alarm_webhook_secret:
        webhook = Webhook(settings.alarm_webhook, settings.alarm_webhook_secret, client.send, now_ms)
    if settings.alarm_recipients and settings.smtp_host and settings.smtp_sender:
        mail = Mail(
            MailServer(
                host=settings.smtp_host,
                port=settings.smtp_port,
                tls=settings.smtp_tls,
                user=settings.smtp_user,
                password=settings.smtp_password,
                sender=settings.smtp_sender,
                to=settings.alarm_recipients,
            )
        )
    return make_places(webhook, mail)


def make_client(settings: Settings) -> Client:
    """The guarded client: alarms reach what deliveries reach, and nothing behind our own walls."""
    return Client(read_allowed(settings.deliver_ranges, settings.deliver_ports))


def make_keeper(settings: Settings, store: Store, client: Client, now_ms: Callable[[], int]) -> AlarmKeeper:
    """Who keeps the alarms in this process.  ``store``: one that may be asked beside others; not closed here."""
    machine = Machine(_machine_places(settings), now_ms, lambda: look_at_certificate(settings))
    return AlarmKeeper(
        store,
        build_places(settings, client, now_ms),
        now_ms,
        server=name_server(settings),
        machine=machine.look,
        keep_days=settings.keep_postbacks_days,
    )


def name_server(settings: Settings) -> str:
    """What notices call this installation."""
    return urlsplit(settings.base_url).netloc or settings.base_url


def _machine_places(settings: Settings) -> MachinePlaces:
    return MachinePlaces(
        data=Path(settings.data),
        certificate=Path(settings.cert) if settings.cert else None,
        key=Path(settings.key) if settings.key else None,
        spools=bool(settings.spool_mb),
        backups=Path(settings.backup_dir) if settings.backup_dir else None,
        backup_every_h=settings.backup_every_h,
    )


def look_at_certificate(settings: Settings) -> Certificate | None:
    """The certificate of ``--domain``.  Blocks for a moment: not for an event loop."""
    if not settings.domain or settings.tls != "auto":
        return None
    return asyncio.run(_look_at_shelf(settings))


async def _look_at_shelf(settings: Settings) -> Certificate | None:
    try:
        shelf = open_shelf(settings)
        try:
            held = read_certificate(await shelf.load(CERTIFICATE))
            trouble = await load_document(shelf, TROUBLE, Trouble)
        finally:
            await shelf.close()
    except (StoreRefused, StoreUnavailable, OSError):
        return None  # that is another trouble, and has a word of its own
    said = "" if trouble is None else trouble.what
    if held is None and not said:
        return None
    return Certificate(None if held is None else held.pair.term, ours=True, trouble=said)


def make_test_tool(
    settings: Settings, client: Client, now_ms: Callable[[], int]
) -> Callable[[], Awaitable[Sequence[dict[str, Any]]]]:
    """The tool of the API's desk (``admin.api.alarms.TEST_TOOL``)."""

    async def test() -> Sequence[dict[str, Any]]:
        return await send_test(settings, build_places(settings, client, now_ms), now_ms())

    return test


async def send_test(settings: Settings, places: Places, now_ms: int) -> Sequence[dict[str, Any]]:
    """Send a notice to every place that is configured, past the store; returns what became of each."""
    document = {
        "id": 0,
        "kind": "test",
        "title": "a test",
        "subject": {"type": "server"},
        "state": "ended",
        "urgent": False,
        "seen": "somebody asked for a test of the alarms' notices",
        "normal": "this message arrives",
        "todo": "nothing",
        "raised": write_moment(now_ms),
        "last_seen": write_moment(now_ms),
        "ended": write_moment(now_ms),
    }
    body = write_body(document, Said.TEST, now_ms, name_server(settings))
    told = []
    for place in places.names:
        notice = Notice(id=0, alarm=0, place=place, said=Said.TEST, body=body, made_ms=now_ms, due_ms=now_ms)
        answer = await places.send(notice)
        told.append({"place": place, "ok": answer.ok, "detail": answer.detail})
    return told
