"""Orders as the bytes of requests, and the bytes of answers as ``Answer``."""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import urlencode

from tests.trust.ledger import CLICK, Answer, Order

_STATUS_WORDS = {1: "pending", 2: "approved", 3: "rejected", 4: "reversed"}
_CLICK_ID = re.compile(r"sub1=([0-9a-z]{26})")
FORMS = ("query", "form", "json")


def micros_text(micros: int) -> str:
    """Millionths of a unit as decimal text."""
    return f"{micros // 1_000_000}.{micros % 1_000_000:06}"


def write_click(order: Order, slug: str) -> bytes:
    """``GET`` for a visitor's click, ``POST`` with JSON for one with the caller's own id."""
    cost = micros_text(order.value_micros)
    if order.own_id:
        return _post(f"/c/{slug}", json.dumps({"click_id": order.ref, "cost": cost}), "application/json")
    return _get(f"/c/{slug}?" + urlencode({"source_click_id": order.ref, "cost": cost}))


def fields_of(order: Order) -> dict[str, str]:
    """The parameters of a postback under their first default names."""
    return {
        "click_id": order.click_id,
        "type": order.type,
        "value": micros_text(order.value_micros),
        "currency": order.currency,
        "txid": order.ref,
        "status": _STATUS_WORDS[order.status],
    }


def write_postback(order: Order, key: str, form: str = "query") -> bytes:
    """One postback as query string, form body or JSON body."""
    fields = fields_of(order)
    if form == "json":
        return _post(f"/p/{key}", json.dumps(fields), "application/json")
    if form == "form":
        return _post(f"/p/{key}", urlencode(fields), "application/x-www-form-urlencoded")
    return _get(f"/p/{key}?{urlencode(fields)}")


def write_order(order: Order, key: str, slug: str, form: str = "query") -> bytes:
    return write_click(order, slug) if order.kind == CLICK else write_postback(order, key, form)


def _get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: trust.test\r\n\r\n".encode()


def _post(target: str, body: str, content_type: str) -> bytes:
    content = body.encode()
    head = f"POST {target} HTTP/1.1\r\nHost: trust.test\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """One whole answer.  Raises ``asyncio.IncompleteReadError`` when the server ended in the middle."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    headers = read_headers(head)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return parse_answer(head, body)


def read_headers(head: str) -> dict[str, str]:
    """Header fields by lower-case name."""
    pairs = (line.partition(":") for line in head.split("\r\n")[1:] if line)
    return {name.lower(): value.strip() for name, _, value in pairs}


def parse_answer(head: str, body: bytes) -> Answer:
    """Head (status line and fields) and body as an ``Answer``."""
    headers = read_headers(head)
    status = int(head.split(" ", 2)[1])
    answer = Answer(
        status,
        verdict=headers.get("postbackd-verdict", ""),
        request=headers.get("x-request-id", ""),
        reason=headers.get("postbackd-reason", ""),
    )
    if status == 302:
        found = _CLICK_ID.search(headers.get("location", ""))
        return Answer(status, click_id=found[1] if found else "")
    if status not in (200, 201) or "json" not in headers.get("content-type", ""):
        return answer
    document = json.loads(body)
    if status == 201:
        return Answer(status, click_id=document.get("click_id", ""))
    if not isinstance(document, dict):
        return answer
    return Answer(
        status, answer.verdict, answer.request, document.get("conversion", ""), "", document.get("reason", "")
    )
