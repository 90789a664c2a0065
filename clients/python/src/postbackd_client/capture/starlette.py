"""Capture for Starlette and FastAPI.

    app.add_middleware(CaptureMiddleware, capture=capture)

    @app.post("/checkout")
    def checkout(click_id: Annotated[Optional[str], Depends(click_id)]): ...

In FastAPI `click_id` is a dependency as it stands; in Starlette call it with the request.
"""

from __future__ import annotations

from typing import Optional

from starlette.requests import HTTPConnection, Request

from postbackd_client.capture import asgi
from postbackd_client.capture.decisions import Captured
from postbackd_client.capture.visit import visit_of


class CaptureMiddleware(asgi.CaptureMiddleware):
    """As for ASGI; `consent` is asked with a Starlette request."""

    def request(self, scope: asgi.Scope) -> object:
        """A view of the scope; it has no body, which is the shop's to read."""
        return HTTPConnection(scope)


def captured(request: Request) -> Optional[Captured]:
    """What is known of the visitor's click, with the ids of ad platforms; ``None`` when nothing is."""
    return visit_of(request.scope).captured()


def click_id(request: Request) -> Optional[str]:
    """The visitor's click id, or ``None``."""
    return visit_of(request.scope).click_id()
