"""Postback requests: from an exchange to judged postbacks in the queue, and from outcomes back to an answer."""

from __future__ import annotations

from time import perf_counter
from typing import Any, Protocol

from msgspec.structs import replace

from postbackd.core.diagnosis import Reason
from postbackd.core.model import Channel, Postback, Request
from postbackd.core.params import BYTE_ORDER_MARK, BodyMalformed, Received, decode_form, read_json_body
from postbackd.core.rules import judge, unusable
from postbackd.core.sender_rules import Finding
from postbackd.core.tracing import read_trace
from postbackd.ingest import answers
from postbackd.ingest.batcher import Batcher, now_ms
from postbackd.ingest.catalog import Endpoint, Snapshot
from postbackd.ingest.exchange import Exchange
from postbackd.ingest.flow import Flow
from postbackd.ingest.gate import mark, refuse
from postbackd.ingest.http_bytes import TRACE_HEADER
from postbackd.store.base import Outcome

MAX_BATCH_ITEMS = 10_000


_FORM_TYPES = (b"", b"application/x-www-form-urlencoded", b"text/plain")
"""Content types under which a body of unmapped names only is a form all the same."""


class Mint(Protocol):
    def mint(self, now_ms: int) -> int: ...


class Reply:
    """Waits for the outcome of the one postback of an exchange."""

    __slots__ = ("_endpoint", "_exchange", "_flow")

    def __init__(self, exchange: Exchange, endpoint: Endpoint, flow: Flow) -> None:
        self._exchange = exchange
        self._endpoint = endpoint
        self._flow = flow

    def settled(self, postback: Postback, outcome: Outcome) -> None:
        request = postback.request
        exchange = self._exchange
        if request.channel == 2:  # the value of ``Channel.PIXEL``: looking it up would cost the hot path
            answer = answers.write_pixel(outcome, request.request_id)
        else:
            network = self._endpoint.network
            answer = answers.write_verdict(outcome, request.request_id, network.answer, network.strict)
        exchange.reply(answer)
        self._flow.answered(request.now_ms // 60_000, int((perf_counter() - exchange.started) * 1e6))

    def failed(self) -> None:
        self._flow.refused(now_ms() // 60_000, "unavailable")
        self._exchange.reply(answers.UNAVAILABLE)


class BatchReply:
    """Waits for the outcomes of all postbacks of one exchange."""

    def __init__(self, exchange: Exchange, flow: Flow, count: int, ndjson: bool) -> None:
        self._exchange = exchange
        self._flow = flow
        self._documents: list[dict[str, str]] = [{}] * count
        self._missing = count
        self._explained: set[int] = set()
        """Reasons whose cause and fix have been given: once a batch is enough."""
        self._failed = False
        self._ndjson = ndjson
        self._first_request = 0

    def part(self, index: int) -> BatchPart:
        return BatchPart(self, index)

    def settled(self, index: int, postback: Postback, outcome: Outcome) -> None:
        request_id = postback.request.request_id
        if index == 0:
            self._first_request = request_id
        explain = outcome.reason not in self._explained
        self._explained.add(outcome.reason)
        self._documents[index] = answers.verdict_document(outcome, request_id, explain=explain)
        self._missing -= 1
        if self._missing or self._failed:
            return
        self._exchange.reply(answers.write_documents(self._documents, self._first_request, self._ndjson))
        microseconds = int((perf_counter() - self._exchange.started) * 1e6)
        self._flow.answered(postback.request.now_ms // 60_000, microseconds)

    def failed(self) -> None:
        """One part failed: the sender must send the whole batch again; what was stored answers ``duplicate`` then."""
        if not self._failed:
            self._failed = True
            self._flow.refused(now_ms() // 60_000, "unavailable")
            self._exchange.reply(answers.UNAVAILABLE)


class BatchPart:
    """One postback of a batch."""

    __slots__ = ("_index", "_whole")

    def __init__(self, whole: BatchReply, index: int) -> None:
        self._whole = whole
        self._index = index

    def settled(self, postback: Postback, outcome: Outcome) -> None:
        self._whole.settled(self._index, postback, outcome)

    def failed(self) -> None:
        self._whole.failed()


class Unheard:
    """Nobody waits: the sender was told before, and nothing of this."""

    __slots__ = ("_flow",)

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def settled(self, postback: Postback, outcome: Outcome) -> None:
        """The row is in the log."""

    def failed(self) -> None:
        self._flow.refused(now_ms() // 60_000, UNLOGGED)


UNLOGGED = "sender_refused"
"""Kind of refusal: of a sender that may not send, where no row could be written."""


class PostbackDesk:
    """Takes postback requests in."""

    def __init__(self, batcher: Batcher, mint: Mint, flow: Flow) -> None:
        self._batcher = batcher
        self._mint = mint
        self._flow = flow

    def take(
        self,
        exchange: Exchange,
        endpoint: Endpoint,
        snapshot: Snapshot,
        query: str,
        channel: Channel,
        finding: Finding | None = None,
    ) -> int:
        """Judge the request's postback, or postbacks, and queue them; returns how many there are.

        ``finding``: of the endpoint's guard.
        """
        now = now_ms()
        body = exchange.body
        network = endpoint.network.id
        body_bytes = len(query) + len(body)
        try:
            if not body:
                received = endpoint.rules.field_map.read_query(query)
            else:
                content = _read_body(exchange, endpoint, query)
                if not isinstance(content, Received):
                    return self._take_batch(exchange, endpoint, snapshot, query, content, now, finding)
                received = content
        except BodyMalformed:
            request = Request(self._mint.mint(now), network, channel, body_bytes, now)
            postback = unusable(request, Reason.BODY_MALFORMED)
        else:
            request = Request(self._mint.mint(now), network, channel, body_bytes, now)
            rulebook = snapshot.rulebook
            postback = judge(received, endpoint.rules, rulebook.keys, rulebook.masker, request)
            if postback.finds:
                self._count_finds(postback)
        if finding is not None and endpoint.guard is not None:
            postback = mark(postback, finding, endpoint.guard, exchange.client)
        if TRACE_HEADER in exchange.headers:
            postback = _within_trace(postback, exchange)
        self._batcher.add_postback(postback, Reply(exchange, endpoint, self._flow))
        return 1

    def note_refused(
        self,
        exchange: Exchange,
        endpoint: Endpoint,
        snapshot: Snapshot,
        query: str,
        channel: Channel,
        finding: Finding,
    ) -> None:
        """Log a request whose sender may not send, and which has been answered.  Of a batch one row says it all."""
        now = now_ms()
        body_bytes = len(query) + len(exchange.body)
        request = Request(self._mint.mint(now), endpoint.network.id, channel, body_bytes, now)
        try:
            content = _read_body(exchange, endpoint, query)
        except BodyMalformed:
            content = []
        if isinstance(content, Received):
            rulebook = snapshot.rulebook
            postback = judge(content, endpoint.rules, rulebook.keys, rulebook.masker, request)
        else:
            postback = unusable(request, Reason(finding.refused))
        self._batcher.add_postback(refuse(postback, finding, exchange.client), Unheard(self._flow))

    def _take_batch(
        self,
        exchange: Exchange,
        endpoint: Endpoint,
        snapshot: Snapshot,
        query: str,
        items: list[Any],
        now: int,
        finding: Finding | None,
    ) -> int:
        if not items or len(items) > MAX_BATCH_ITEMS:
            error = f"a batch holds 1 to {MAX_BATCH_ITEMS} postbacks, this one {len(items)}"
            exchange.reply(answers.write_json(413 if items else 400, {"error": error}))
            self._flow.refused(now // 60_000, "batch_size")
            return 1
        reply = BatchReply(exchange, self._flow, len(items), _is_ndjson(exchange))
        share = max(1, len(exchange.body) // len(items))
        rulebook = snapshot.rulebook
        for index, item in enumerate(items):
            request = Request(self._mint.mint(now), endpoint.network.id, Channel.S2S, share, now)
            if isinstance(item, dict):
                received = endpoint.rules.field_map.read_json(query, item)
                postback = judge(received, endpoint.rules, rulebook.keys, rulebook.masker, request)
                if postback.finds:
                    self._count_finds(postback)
            else:
                postback = unusable(request, Reason.BODY_MALFORMED)
            if finding is not None and endpoint.guard is not None:
                postback = mark(postback, finding, endpoint.guard, exchange.client, index)
            if TRACE_HEADER in exchange.headers:
                postback = _within_trace(postback, exchange)
            self._batcher.add_postback(postback, reply.part(index))
        return len(items)

    def _count_finds(self, postback: Postback) -> None:
        request = postback.request
        for field, kind in postback.finds:
            self._flow.found(request.now_ms // 60_000, request.network, field, kind)


def _within_trace(postback: Postback, exchange: Exchange) -> Postback:
    """With the trace that its request names, for the deliveries that follow from it."""
    trace = read_trace(exchange.headers[TRACE_HEADER])
    return postback if trace is None else replace(postback, trace=trace)


def _is_ndjson(exchange: Exchange) -> bool:
    return exchange.body.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] != b"["


def _read_body(exchange: Exchange, endpoint: Endpoint, query: str) -> Received | list[Any]:
    """The fields of a form or JSON object, or the items of a batch.  Raises ``BodyMalformed``.

    The content decides before the content type does: many senders name the wrong one.  The type is asked only when
    the content says nothing that is mapped: then multipart, XML or an image is told from a form of other names.
    """
    body = exchange.body.removeprefix(BYTE_ORDER_MARK)
    start = body.lstrip()[:1]
    fields = endpoint.rules.field_map
    if b"ndjson" in exchange.content_type or b"jsonl" in exchange.content_type:
        return [_read_line(line) for line in body.splitlines() if line.strip()]
    if start == b"[":
        items = read_json_body(body)
        return items if isinstance(items, list) else [items]
    if start == b"{":
        return _read_object(body, endpoint, query)
    if b"json" in exchange.content_type:
        raise BodyMalformed("neither an object nor an array")
    received = fields.read_form(query, decode_form(body))
    content_type = exchange.content_type.partition(b";")[0].strip()
    if content_type not in _FORM_TYPES and all(text is None for text in received.values):
        raise BodyMalformed("neither a form nor JSON")
    return received


def _read_object(body: bytes, endpoint: Endpoint, query: str) -> Received | list[Any]:
    """One JSON object, or several on lines of their own sent without saying so."""
    try:
        content = read_json_body(body)
    except BodyMalformed:
        lines = [line for line in body.splitlines() if line.strip()]
        if len(lines) < 2 or any(line.lstrip()[:1] != b"{" for line in lines):
            raise
        return [_read_line(line) for line in lines]
    return endpoint.rules.field_map.read_json(query, content)


def _read_line(line: bytes) -> Any:
    """The value of one NDJSON line, ``None`` when it is malformed: its neighbours count all the same."""
    try:
        return read_json_body(line)
    except BodyMalformed:
        return None
