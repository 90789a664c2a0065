"""The bytes of an answer.  Nothing here decides anything."""

from __future__ import annotations

from math import ceil

import msgspec

from postbackd.core.click_id import write_stamp
from postbackd.core.diagnosis import Reason
from postbackd.core.verdicts import Verdict
from postbackd.store.base import Outcome

REASON_PHRASES = {
    200: "OK",
    201: "Created",
    204: "No Content",
    302: "Found",
    308: "Permanent Redirect",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}

REFUSAL_KINDS = {
    408: "too_slow",
    413: "body_too_large",
    414: "line_too_long",
    431: "headers_too_large",
    503: "restarting",
}
"""Status of a message that never became a request -> what it is counted as."""

PIXEL = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)
"""A transparent 1x1 GIF, 43 bytes."""

JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"

_json = msgspec.json.Encoder()
_VERDICT_WORDS = {verdict: verdict.word for verdict in Verdict}
_ACCEPTED_LENGTH = len('{"verdict":"accepted","conversion":"","request":""}') + 26


def write_answer(status: int, body: bytes = b"", content_type: str = TEXT, headers: str = "") -> bytes:
    """A whole answer.  ``headers``: further lines, each ended by CR LF."""
    start = f"HTTP/1.1 {status} {REASON_PHRASES[status]}\r\n{headers}Cache-Control: no-store\r\n"
    if status == 204:
        return f"{start}\r\n".encode("latin-1")
    if body:
        start += f"Content-Type: {content_type}\r\n"
    return f"{start}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


def without_body(answer: bytes) -> bytes:
    """The answer to HEAD: the same head, Content-Length included, and no body (RFC 9110 section 9.3.2)."""
    head, blank, _ = answer.partition(b"\r\n\r\n")
    return head + blank


def closing(answer: bytes) -> bytes:
    """The same answer, saying that the connection ends with it."""
    return answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


def verdict_document(outcome: Outcome, request_id: int, *, explain: bool = True) -> dict[str, str]:
    """What became of a postback, as the sender reads it; ``explain`` adds cause and fix to a reason."""
    document = {"verdict": _VERDICT_WORDS[outcome.verdict]}
    if outcome.conversion_id is not None:
        document["conversion"] = write_stamp(outcome.conversion_id)
    if outcome.reason:
        reason = Reason(outcome.reason)
        document["reason"] = reason.word
        if explain:
            document |= {"cause": reason.cause, "fix": reason.fix}
    document["request"] = write_stamp(request_id)
    return document


def write_accepted(request_id: int) -> bytes:
    """The answer to most postbacks, made in one step: a new conversion, nothing to remark."""
    text = write_stamp(request_id)
    return (
        "HTTP/1.1 200 OK\r\nPostbackd-Verdict: accepted\r\n"
        f"X-Request-Id: {text}\r\nCache-Control: no-store\r\n"
        f"Content-Type: application/json\r\nContent-Length: {_ACCEPTED_LENGTH}\r\n\r\n"
        f'{{"verdict":"accepted","conversion":"{text}","request":"{text}"}}'
    ).encode("ascii")


def write_verdict(outcome: Outcome, request_id: int, style: str, strict: bool) -> bytes:
    """The answer to one postback in the form its network asked for (``json``, ``ok`` or ``204``)."""
    if outcome.verdict is Verdict.ACCEPTED and not outcome.reason and style == "json":
        return write_accepted(request_id)
    headers = _verdict_headers(outcome, request_id)
    status = 422 if strict and outcome.verdict is Verdict.REJECTED else 200
    if status == 200 and style == "ok":
        return write_answer(200, b"OK", TEXT, headers)
    if status == 200 and style == "204":
        return write_answer(204, headers=headers)
    return write_answer(status, _json.encode(verdict_document(outcome, request_id)), JSON, headers)


def _verdict_headers(outcome: Outcome, request_id: int) -> str:
    headers = f"Postbackd-Verdict: {_VERDICT_WORDS[outcome.verdict]}\r\n"
    if outcome.reason:
        headers += f"Postbackd-Reason: {Reason(outcome.reason).word}\r\n"
    return f"{headers}X-Request-Id: {write_stamp(request_id)}\r\n"


def write_pixel(outcome: Outcome, request_id: int) -> bytes:
    """The GIF, whatever became of the postback; the headers say it."""
    return write_answer(200, PIXEL, "image/gif", _verdict_headers(outcome, request_id))


def write_documents(documents: list[dict[str, str]], request_id: int, ndjson: bool) -> bytes:
    """The verdicts of a batch in its order, in the form in which the batch came."""
    headers = f"X-Request-Id: {write_stamp(request_id)}\r\n"
    if ndjson:
        return write_answer(200, _json.encode_lines(documents), NDJSON, headers)
    return write_answer(200, _json.encode(documents), JSON, headers)


def write_json(status: int, document: dict[str, str], headers: str = "") -> bytes:
    return write_answer(status, _json.encode(document), JSON, headers)


def write_redirect(url: str) -> bytes:
    """302 to a URL that is printable ASCII (``core.macros`` promises it)."""
    return write_answer(302, headers=f"Location: {url}\r\n")


NOT_FOUND = write_json(404, {"error": "not found"})
"""One answer for everything that does not exist, so that it tells nothing."""

UNAVAILABLE = write_json(
    503, {"error": "the store cannot be written now; send the same request again"}, "Retry-After: 1\r\n"
)

BUSY = write_json(
    503, {"error": "too many requests are waiting; send the same request again"}, "Retry-After: 1\r\n"
)

UNVERIFIABLE = write_json(
    503, {"error": "the sender cannot be verified now; send the same request again"}, "Retry-After: 60\r\n"
)


def write_too_many(wait_s: float) -> bytes:
    """The answer to somebody who asks too often."""
    error = "too many requests from here; send the same request again later"
    return write_json(429, {"error": error}, f"Retry-After: {ceil(wait_s)}\r\n")


NOT_A_CLICK = write_json(405, {"error": "use GET, HEAD or POST"}, "Allow: GET, HEAD, POST\r\n")

NOT_A_POSTBACK = write_json(405, {"error": "use GET or POST"}, "Allow: GET, POST\r\n")

FAULT = write_json(500, {"error": "a fault of this server; it has been logged"})

OK = write_answer(200, b"ok\n")


def write_refusal(status: int, error: str) -> bytes:
    """An answer after which the connection ends."""
    headers = "Retry-After: 1\r\n" if status == 503 else ""
    return closing(write_json(status, {"error": error}, headers))
