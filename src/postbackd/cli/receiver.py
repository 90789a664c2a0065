"""``postbackd receiver``: a target to try deliveries against, which prints what it gets and can be told to go wrong."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import struct
import sys
import time
from collections import Counter
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

import click
import httptools
import uvloop

from postbackd.cli.options import as_json
from postbackd.core.webhooks import SignatureInvalid, read_secret, verify
from postbackd.settings_values import SettingsError, read_address

MAX_REQUEST = 1024 * 1024
_ID_PARAMETERS = ("delivery_id", "id")
_LIE = b'{"status":"error"}'


class Faults:
    """Which requests go wrong."""

    def __init__(self, wanted: str) -> None:
        """``all``, ``none``, a number (the first so many) or ``every:K``.  Raises ``ValueError``."""
        match = re.fullmatch(r"(all|none)|(every:)?([0-9]{1,9})", wanted.strip().lower())
        if match is None or (match[2] and not int(match[3])):
            raise ValueError(f"{wanted!r} is not usable; write a number, all or every:K")
        first, every = (0, 0) if match[3] is None else (0, int(match[3])) if match[2] else (int(match[3]), 0)
        self._all = match[1] == "all"
        self._first = first
        self._every = every

    def hit(self, number: int) -> bool:
        """Whether request ``number``, counted from 1, goes wrong."""
        return self._all or number <= self._first or bool(self._every and number % self._every == 0)


class Receiver:
    """What is received and how it is answered."""

    def __init__(
        self,
        *,
        status: int = 200,
        faults: Faults,
        stall_s: float = 0.0,
        lie: bool = False,
        reset: bool = False,
        secret: bytes | None = None,
        count: int | None = None,
        json_wanted: bool = False,
    ) -> None:
        self._status = status
        self._faults = faults
        self._stall_s = stall_s
        self._lie = lie
        self._reset = reset
        self._secret = secret
        self._count = count
        self._json_wanted = json_wanted
        self._seen: Counter[str] = Counter()
        self._number = self._answered = self._failed = self._repeats = self._badly_signed = 0
        self.finished = asyncio.Event()
        self.unread = False
        """Whoever read our output has gone."""

    def take(self, request: _Request) -> None:
        """Print a request, and answer it now or after the stall."""
        self._number += 1
        fault = self._faults.hit(self._number)
        record = self._describe(request)
        self._print(record)
        self._failed += fault
        delay_s = self._stall_s if fault else 0.0
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, self._answer, request, fault)
        else:
            self._answer(request, fault)

    def _answer(self, request: _Request, fault: bool) -> None:
        if not fault:
            request.answer(self._status, b'{"status":"ok"}')
        elif self._reset:
            request.reset()
        elif self._lie:
            request.answer(200, _LIE)
        else:
            # A stall is the fault itself: the answer comes, but late.
            request.answer(
                self._status if self._stall_s else 500, b'{"status":"ok"}' if self._stall_s else b""
            )
        self._answered += 1
        if self._answered == self._count:
            self.finished.set()

    def _describe(self, request: _Request) -> dict[str, Any]:
        path, _, query = request.target.partition("?")
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        body = request.body.decode("utf-8", "replace")
        delivery_id = request.headers.get("webhook-id") or _find_id(request, parameters)
        repeat = delivery_id is not None and self._seen[delivery_id] > 0
        if delivery_id is not None:
            self._seen[delivery_id] += 1
        self._repeats += repeat
        return {
            "number": self._number,
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "method": request.method,
            "path": path,
            "parameters": parameters,
            "body": body,
            "delivery_id": delivery_id,
            "repeat": repeat,
            "signature": self._check(request),
        }

    def _check(self, request: _Request) -> str | None:
        """``ok``, what is wrong, or ``None`` when nothing is to be checked."""
        if self._secret is None:
            return None
        try:
            verify(request.headers, request.body, (self._secret,), time.time())
        except SignatureInvalid as wrong:
            self._badly_signed += 1
            return str(wrong)
        return "ok"

    def _print(self, record: dict[str, Any]) -> None:
        try:
            click.echo(json.dumps(record, ensure_ascii=False) if self._json_wanted else _write_line(record))
            sys.stdout.flush()
        except BrokenPipeError:
            self.unread = True
            self.finished.set()

    def summary(self) -> str:
        """One line about all that came."""
        counts = {
            "requests": self._number,
            "deliveries": len(self._seen),
            "repeats": self._repeats,
            "made to fail": self._failed,
        }
        if self._secret is not None:
            counts["badly signed"] = self._badly_signed
        return ", ".join(f"{what}: {count}" for what, count in counts.items())


def _find_id(request: _Request, parameters: dict[str, str]) -> str | None:
    """A delivery id in the query, a form or a JSON body."""
    fields: dict[str, Any] = dict(parameters)
    if "json" in request.headers.get("content-type", ""):
        try:
            document = json.loads(request.body)
        except (ValueError, RecursionError):
            document = None
        fields |= document if isinstance(document, dict) else {}
    elif request.body:
        fields |= dict(parse_qsl(request.body.decode("utf-8", "replace")))
    found = [fields[name] for name in _ID_PARAMETERS if isinstance(fields.get(name), str) and fields[name]]
    return found[0] if found else None


def _write_line(record: dict[str, Any]) -> str:
    words = [record["time"][11:23], f"#{record['number']}", record["method"], record["path"]]
    words += [f"{name}={value}" for name, value in record["parameters"].items()]
    if record["body"]:
        words.append(f"body {record['body']}")
    if record["delivery_id"] is not None:
        words.append(f"[delivery {record['delivery_id']}{', repeat' if record['repeat'] else ''}]")
    if record["signature"] is not None:
        words.append(f"[signature {record['signature']}]")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in "  ".join(words))


class _Request:
    """One request, complete, and the way back."""

    def __init__(
        self, transport: Any, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> None:
        self._transport = transport
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body

    def answer(self, status: int, body: bytes) -> None:
        if status in (204, 304):
            body = b""
        head = f"HTTP/1.1 {status} Postbackd\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        if not self._transport.is_closing():
            self._transport.write(head.encode("ascii") + body)

    def reset(self) -> None:
        """End the connection with RST."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None and not self._transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class _Connection(asyncio.Protocol):
    """Cuts what comes into requests."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._reset()

    def _reset(self) -> None:
        self._target = self._body = b""
        self._headers: dict[str, str] = {}
        self._size = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._size = MAX_REQUEST + 1
        if self._size > MAX_REQUEST:
            self._transport.write(
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method, target = self._parser.get_method().decode("ascii"), self._target.decode("utf-8", "replace")
        request = _Request(self._transport, method, target, self._headers, self._body)
        self._reset()
        self._receiver.take(request)


@click.command()
@click.option(
    "--listen", default="127.0.0.1:8090", show_default=True, help="Address and port; port 0 takes any."
)
@click.option("--status", type=click.IntRange(200, 599), default=200, show_default=True, help="Answer this.")
@click.option(
    "--fail",
    metavar="N|all|every:K",
    help="Requests that go wrong: the first N, all, or every K-th. They are answered 500, or as --stall, --lie or "
    "--reset say.  [default: all with one of these, otherwise none]",
)
@click.option(
    "--stall",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    default=0,
    help="Answer them only after this.",
)
@click.option("--lie", is_flag=True, help='Answer them 200 with the body {"status":"error"}.')
@click.option("--reset", is_flag=True, help="Reset their connection instead of answering.")
@click.option(
    "--secret",
    metavar="whsec_...",
    envvar="POSTBACKD_RECEIVER_SECRET",
    help="Verify Standard Webhooks signatures.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N requests.")
@as_json
def receiver(
    listen: str,
    status: int,
    fail: str | None,
    stall: float,
    lie: bool,
    reset: bool,
    secret: str | None,
    count: int | None,
    json_wanted: bool,
) -> None:
    """Receive deliveries and print them, to try targets and rules against; Ctrl-C ends with a summary.

    One line a request: time, method, path, parameters, body, delivery id, and whether that id was there before.
    """
    if lie and reset:
        raise click.UsageError("--lie and --reset exclude each other")
    try:
        host, port = read_address(listen, "--listen")
        faults = Faults(fail or ("all" if stall or lie or reset else "none"))
        key = None if secret is None else read_secret(secret)
    except (SettingsError, ValueError) as error:
        raise click.UsageError(str(error)) from error

    async def work() -> Receiver:
        made = Receiver(
            status=status,
            faults=faults,
            stall_s=stall,
            lie=lie,
            reset=reset,
            secret=key,
            count=count,
            json_wanted=json_wanted,
        )
        await _serve(made, host, port, to_errors=json_wanted)
        return made

    try:
        done = uvloop.run(work())
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {listen}: {error.strerror or error}; choose another --listen"
        ) from error
    if done.unread:
        raise BrokenPipeError
    click.echo(done.summary(), err=json_wanted)


async def _serve(receiver: Receiver, host: str, port: int, *, to_errors: bool) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, receiver.finished.set)
    server = await loop.create_server(lambda: _Connection(receiver), host or None, port)
    bound = server.sockets[0].getsockname()
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    click.echo(f"postbackd receiver listens on http://{shown}:{bound[1]}; Ctrl-C stops it", err=to_errors)
    sys.stdout.flush()
    await receiver.finished.wait()
    server.close()
