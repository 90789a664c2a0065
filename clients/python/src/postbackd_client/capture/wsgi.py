"""Capture for any WSGI application.

    application = CaptureMiddleware(application, capture)

WSGI has no session of its own, so ids are kept in the cookie here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Optional

from postbackd_client.capture import cookies
from postbackd_client.capture.decisions import Capture, Captured, CaptureError
from postbackd_client.capture.visit import KEY, Visit, visit_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class CaptureMiddleware:
    """Takes the click id from the address of each request; answers pass through unbuffered."""

    def __init__(self, application: WSGIApplication, capture: Capture) -> None:
        if capture.storage != "cookie":
            raise CaptureError('WSGI has no session: use storage="cookie", or the module of your framework')
        self._application = application
        self._capture = capture

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        visit = begin(self._capture, environ, environ)
        if not visit.is_personal:
            return self._application(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, cookies.shielded(headers, visit.set_cookie), *exc_info)

        return self._application(environ, start)


def begin(capture: Capture, environ: WSGIEnvironment, request: object) -> Visit:
    """Judge a request and leave its visit in the environ; ``request`` is what `consent` is asked with."""
    visit = Visit(
        capture,
        request,
        query=environ.get("QUERY_STRING"),
        cookie=environ.get("HTTP_COOKIE"),
        gpc=environ.get("HTTP_SEC_GPC"),
    )
    environ[KEY] = visit
    return visit


def captured(environ: WSGIEnvironment) -> Optional[Captured]:
    """What is known of the visitor's click, with the ids of ad platforms; ``None`` when nothing is."""
    return visit_of(environ).captured()


def click_id(environ: WSGIEnvironment) -> Optional[str]:
    """The visitor's click id, or ``None``."""
    return visit_of(environ).click_id()
