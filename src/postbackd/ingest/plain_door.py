"""What is answered on port 80 beside a front door that speaks TLS: challenges of an authority, and where to go.

A postback is refused, not redirected: its key has crossed the network in the open once already, a redirect would make a
sender repeat it there with every conversion, and many senders do not follow one anyway.  A click is redirected (308
keeps the method): the visitor's browser follows, and there is nothing secret in the address.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable

from postbackd.ingest import answers
from postbackd.ingest.exchange import Exchange
from postbackd.ingest.http import Handler
from postbackd.store.base import StoreUnavailable

log = logging.getLogger("postbackd.ingest")

CHALLENGES = "/.well-known/acme-challenge/"

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,512}")
"""RFC 8555 section 8.1: base64 for URLs, at least 128 bits."""

_SECURE_PATH = re.compile(r"/c/[A-Za-z0-9._~%/?=&+:@,;!$'()*{}\[\]|-]*")
"""What may be put into a Location as it came: no space, no line end, nothing above ASCII."""

POSTBACK_NOT_SECURE = answers.write_json(
    403,
    {
        "error": "postbacks are taken over https only",
        "fix": "Change http:// to https:// in the postback URL; then make a new key, because this one crossed "
        "the network in the open.",
    },
)


class PlainDoor:
    """Implements ``http.Handler``."""

    def __init__(
        self,
        front: Handler,
        find_answer: Callable[[str], Awaitable[str | None]],
        secure_url: Callable[[], str],
    ) -> None:
        """``front``: whose connections these are, as far as limits, counts and the end of the process go.

        ``find_answer``: to a challenge's token; ``secure_url``: what https addresses of ours begin with.
        """
        self._front = front
        self._find_answer = find_answer
        self._secure_url = secure_url
        self._answering: set[asyncio.Task[None]] = set()
        self.connections = front.connections
        self.proxies = front.proxies

    @property
    def now(self) -> float:
        return self._front.now

    @property
    def draining(self) -> bool:
        return self._front.draining

    def handle(self, exchange: Exchange) -> None:
        target = exchange.target.decode("utf-8", "replace")
        if target.startswith(CHALLENGES):
            self._handle_challenge(exchange, target[len(CHALLENGES) :])
        elif target.startswith("/p/"):
            exchange.reply(POSTBACK_NOT_SECURE)
            self.refused("plain_postback")
        elif target.startswith("/c/") and _SECURE_PATH.fullmatch(target):
            exchange.reply(answers.write_answer(308, headers=f"Location: {self._secure_url()}{target}\r\n"))
            self.refused("plain_click")
        elif target == "/healthz":
            exchange.reply(answers.OK)
        else:
            exchange.reply(answers.NOT_FOUND)
            self.refused("not_found")

    def _handle_challenge(self, exchange: Exchange, token: str) -> None:
        if not _TOKEN.fullmatch(token) or len(self._answering) >= _MOST_ANSWERING:
            exchange.reply(answers.NOT_FOUND)
            self.refused("not_found")
            return
        task = asyncio.get_running_loop().create_task(self._answer(exchange, token))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, exchange: Exchange, token: str) -> None:
        try:
            answer = await self._find_answer(token)
        except StoreUnavailable as error:
            log.warning("a challenge could not be answered (%s)", error)
            exchange.reply(answers.UNAVAILABLE)
            return
        if answer is None:
            exchange.reply(answers.NOT_FOUND)
            self.refused("not_found")
        else:
            exchange.reply(answers.write_answer(200, answer.encode("ascii"), "application/octet-stream"))

    def refused(self, kind: str) -> None:
        self._front.refused(kind)


_MOST_ANSWERING = 256
"""Challenges that may be looked up at once; an authority asks from half a dozen places."""
