"""Where notices go: a signed webhook, an e-mail.  Each takes a notice and says what became of it; none raises.

The webhook goes through the same guarded client as deliveries, and is signed as they are (Standard Webhooks).  The
e-mail goes by SMTP, in a thread, encrypted unless somebody has said otherwise.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate
from typing import Literal, Protocol

from msgspec import Struct

from postbackd.core.alarm_notices import EMAIL, WEBHOOK, Answer, Notice, write_mail
from postbackd.core.deliveries import Answer as Heard
from postbackd.core.deliveries import Outgoing
from postbackd.core.webhooks import read_secret, sign

_CONNECT_MS, _TOTAL_MS = 5_000, 15_000

_SMTP_TIMEOUT_S = 20.0

_GONE = 410
"""The receiver says that it does not want any more."""

_FINAL_SMTP = (535, 550, 553, 554)
"""Answers to a wrong password or an address that does not exist: said again they are the same."""

Tls = Literal["starttls", "tls", "off"]


class Send(Protocol):
    """``delivery.client.Client.send``."""

    async def __call__(self, request: Outgoing, *, connect_ms: int, total_ms: int) -> Heard: ...


class Place(Protocol):
    """One place."""

    async def send(self, notice: Notice) -> Answer: ...


class Webhook:
    """An address that hears of alarms."""

    def __init__(self, url: str, secret: str, send: Send, now_ms: Callable[[], int]) -> None:
        """Raises ``ValueError`` when the secret is none."""
        self._url = url
        self._secrets = (read_secret(secret),)
        self._send = send
        self._now_ms = now_ms

    async def send(self, notice: Notice) -> Answer:
        body, timestamp_s = notice.body.encode(), self._now_ms() // 1000
        headers = (
            ("Content-Type", "application/json"),
            ("User-Agent", "postbackd-alarms"),
            ("webhook-id", notice.webhook_id),
            ("webhook-timestamp", str(timestamp_s)),
            ("webhook-signature", sign(self._secrets, notice.webhook_id, timestamp_s, body)),
        )
        request = Outgoing("POST", self._url, headers, body)
        heard = await self._send(request, connect_ms=_CONNECT_MS, total_ms=_TOTAL_MS)
        if heard.error and not heard.status:
            return Answer(ok=False, detail=heard.error)
        taken = 200 <= heard.status < 300
        return Answer(ok=taken, detail=f"answered {heard.status}", final=heard.status == _GONE)


class MailServer(Struct, frozen=True, kw_only=True):
    """Where e-mail is handed over."""

    host: str
    port: int
    tls: Tls
    user: str | None = None
    password: str | None = None
    sender: str
    to: Sequence[str]


class Mail:
    """Addresses that hear of alarms by e-mail."""

    def __init__(self, server: MailServer, trusted: ssl.SSLContext | None = None) -> None:
        """``trusted``: other authorities than those of this machine."""
        self._server = server
        self._trusted = trusted

    async def send(self, notice: Notice) -> Answer:
        try:
            await asyncio.to_thread(self._deliver, self._write(notice))
        except smtplib.SMTPResponseException as error:
            said = error.smtp_error
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            return Answer(
                ok=False,
                detail=f"the mail server answered {error.smtp_code}: {text}",
                final=error.smtp_code in _FINAL_SMTP,
            )
        except smtplib.SMTPRecipientsRefused as error:
            return Answer(ok=False, detail=f"the mail server refused {', '.join(error.recipients)}")
        except (OSError, smtplib.SMTPException, ValueError) as error:
            return Answer(ok=False, detail=f"{self._server.host}:{self._server.port}: {error}")
        return Answer(ok=True, detail=f"handed over to {self._server.host}")

    def _write(self, notice: Notice) -> EmailMessage:
        subject, text = write_mail(notice.body)
        message = EmailMessage()
        message["Subject"] = subject
        message["From"] = self._server.sender
        message["To"] = ", ".join(self._server.to)
        message["Date"] = formatdate(notice.made_ms / 1000)
        # The same in every attempt: what is sent twice is shown once.
        message["Message-ID"] = (
            f"<{notice.webhook_id}@{self._server.sender.rpartition('@')[2] or 'postbackd'}>"
        )
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        return message

    def _deliver(self, message: EmailMessage) -> None:
        server, context = self._server, self._trusted or ssl.create_default_context()
        client: smtplib.SMTP
        if server.tls == "tls":
            client = smtplib.SMTP_SSL(server.host, server.port, timeout=_SMTP_TIMEOUT_S, context=context)
        else:
            client = smtplib.SMTP(server.host, server.port, timeout=_SMTP_TIMEOUT_S)
        with client:
            if server.tls == "starttls":
                client.starttls(context=context)  # raises when the server does not offer it
            if server.user:
                client.login(server.user, server.password or "")
            client.send_message(message)


class Places(Struct, frozen=True):
    """All places, by name (``core.alarm_notices.PLACES``)."""

    by_name: Mapping[str, Place]

    @property
    def names(self) -> Sequence[str]:
        return tuple(self.by_name)

    async def send(self, notice: Notice) -> Answer:
        place = self.by_name.get(notice.place)
        if place is None:
            return Answer(ok=False, detail=f"no {notice.place} is configured any more", final=True)
        return await place.send(notice)


def make_places(webhook: Webhook | None, mail: Mail | None) -> Places:
    """The places that are configured."""
    found: dict[str, Place] = {}
    if webhook is not None:
        found[WEBHOOK] = webhook
    if mail is not None:
        found[EMAIL] = mail
    return Places(found)
