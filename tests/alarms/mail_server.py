"""A mail server for tests: real SMTP on a real socket, with STARTTLS, TLS and AUTH, that answers by script."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time

from postbackd.tls.pair import make_self_signed


def make_contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server called localhost, and of a client that trusts it."""
    pair = make_self_signed(["localhost"], int(time() * 1000))
    file = directory / "mail.pem"
    file.write_bytes(pair.pem)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file)
    certificate = pair.pem[pair.pem.index(b"-----BEGIN CERTIFICATE") :].decode()
    return server, ssl.create_default_context(cadata=certificate)


@dataclass
class MailBox:
    """What the server was given."""

    port: int = 0
    mails: list[bytes] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    answers: dict[str, list[bytes]] = field(default_factory=dict)
    """Verb -> what is answered to it, once each, before the usual."""


class _Talk:
    def __init__(
        self,
        box: MailBox,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.box, self.reader, self.writer, self.tls = box, reader, writer, tls

    async def say(self, line: bytes) -> None:
        self.writer.write(line + b"\r\n")
        await self.writer.drain()

    async def run(self) -> None:
        await self.say(b"220 localhost ESMTP")
        while line := await self.reader.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            verb = verb.upper()
            if scripted := self.box.answers.get(verb):
                await self.say(scripted.pop(0))
            elif verb == "QUIT":
                await self.say(b"221 bye")
                return
            else:
                await self.do(verb, rest)

    async def do(self, verb: str, rest: str) -> None:
        encrypted = self.writer.get_extra_info("ssl_object") is not None
        if verb == "EHLO":
            offers = [
                b"localhost",
                *([b"STARTTLS"] if self.tls and not encrypted else []),
                b"AUTH PLAIN",
                b"8BITMIME",
            ]
            for offer in offers[:-1]:
                await self.say(b"250-" + offer)
            await self.say(b"250 " + offers[-1])
        elif verb == "STARTTLS" and self.tls:
            await self.say(b"220 go")
            await self.writer.start_tls(self.tls)
        elif verb == "AUTH":
            self.box.logins.append(base64.b64decode(rest.rsplit(maxsplit=1)[-1]).decode())
            await self.say(b"235 welcome")
        elif verb == "DATA":
            await self.say(b"354 go on")
            self.box.mails.append(await self.reader.readuntil(b"\r\n.\r\n"))
            self.box.encrypted.append(encrypted)
            await self.say(b"250 kept")
        else:
            await self.say(b"250 ok")


@asynccontextmanager
async def mail_server(
    starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[MailBox]:
    """Run one for as long as the block runs."""
    box = MailBox()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _Talk(box, reader, writer, starttls).run()
        except (OSError, asyncio.IncompleteReadError):
            return  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
