"""Capture for Flask.

    CaptureMiddleware(app, capture)

    @app.post("/checkout")
    def checkout():
        client.conversion(click_id(), ...)

Hooks of the application rather than a WSGI layer, so that `consent` and the session see Flask's own request.
"""

from __future__ import annotations

from typing import Optional

import flask

from postbackd_client.capture import cookies
from postbackd_client.capture.decisions import Capture, Captured
from postbackd_client.capture.visit import KEY, Session, Visit, visit_of


class CaptureMiddleware:
    """Takes the click id from the address of each request of an application."""

    def __init__(self, app: flask.Flask, capture: Capture) -> None:
        self._capture = capture
        app.before_request(self._begin)
        app.after_request(self._finish)

    def _begin(self) -> None:
        request = flask.request
        request.environ[KEY] = Visit(
            self._capture,
            request,
            query=request.environ.get("QUERY_STRING"),
            cookie=request.environ.get("HTTP_COOKIE"),
            gpc=request.environ.get("HTTP_SEC_GPC"),
            session=_session,
        )

    def _finish(self, response: flask.Response) -> flask.Response:
        if KEY not in flask.request.environ:
            self._begin()  # another hook answered first: a redirect to a language, for example
        visit = visit_of(flask.request.environ)
        if visit.is_personal:
            for name in [name for name, _ in response.headers if cookies.is_override(name)]:
                del response.headers[name]
            response.headers["Cache-Control"] = cookies.private(response.headers.get("Cache-Control"))
        if visit.set_cookie is not None:
            response.headers.add("Set-Cookie", visit.set_cookie.header())
        return response


def _session() -> Session:
    return flask.session


def captured(request: Optional[flask.Request] = None) -> Optional[Captured]:
    """What is known of the visitor's click, with the ids of ad platforms; ``None`` when nothing is."""
    return visit_of((request or flask.request).environ).captured()


def click_id(request: Optional[flask.Request] = None) -> Optional[str]:
    """The visitor's click id, or ``None``; of the current request unless another is given."""
    return visit_of((request or flask.request).environ).click_id()
