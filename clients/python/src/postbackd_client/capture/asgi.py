"""Capture for any ASGI application, without touching bodies or websockets.

    app = CaptureMiddleware(app, capture)

`storage="session"` uses `scope["session"]`, where Starlette's SessionMiddleware and others put it; the session's
middleware then has to stand outside of this one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, MutableMapping
from typing import Any, Callable, Optional

from postbackd_client.capture import cookies
from postbackd_client.capture.cookies import SetCookie
from postbackd_client.capture.decisions import Capture, Captured, CaptureError
from postbackd_client.capture.landing import as_text
from postbackd_client.capture.visit import KEY, Session, Visit, visit_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class CaptureMiddleware:
    """Takes the click id from the address of each HTTP request."""

    def __init__(self, app: Application, capture: Capture) -> None:
        self.app = app
        self.capture = capture

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            visit = self._begin(scope)
            if visit.is_personal:
                send = _personal(send, visit.set_cookie)
        await self.app(scope, receive, send)

    def request(self, scope: Scope) -> object:
        """What `consent` is asked with: the scope itself."""
        return scope

    def _begin(self, scope: Scope) -> Visit:
        visit = Visit(
            self.capture,
            self.request(scope),
            query=as_text(scope.get("query_string")),
            cookie=_header(scope, b"cookie", "; "),
            gpc=_header(scope, b"sec-gpc", ","),
            session=lambda: _session(scope),
        )
        scope[KEY] = visit
        return visit


def _header(scope: Scope, wanted: bytes, joint: str) -> Optional[str]:
    """A request header; HTTP/2 may send the cookies of one request in several (RFC 9113, section 8.2.3)."""
    found = [as_text(value) for name, value in scope.get("headers", ()) if name.lower() == wanted]
    return joint.join(found) if found else None


def _session(scope: Scope) -> Session:
    session = scope.get("session")
    if session is None:
        raise CaptureError(
            'storage="session" found no session: add SessionMiddleware outside of CaptureMiddleware '
            "(with add_middleware: after it)"
        )
    found: Session = session
    return found


def _personal(send: Send, cookie: Optional[SetCookie]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(as_text(name), as_text(value)) for name, value in message.get("headers", ())]
            headers = cookies.shielded(headers, cookie)
            # ASGI wants names in lower case.
            raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            message = {**message, "headers": raw}
        await send(message)

    return sending


def captured(scope: Mapping[str, Any]) -> Optional[Captured]:
    """What is known of the visitor's click, with the ids of ad platforms; ``None`` when nothing is."""
    return visit_of(scope).captured()


def click_id(scope: Mapping[str, Any]) -> Optional[str]:
    """The visitor's click id, or ``None``."""
    return visit_of(scope).click_id()
