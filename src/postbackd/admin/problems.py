"""Errors of the API, as RFC 9457 writes them (``application/problem+json``)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from msgspec import Struct
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


class ProblemDocument(Struct, frozen=True, omit_defaults=True):
    """What went wrong, for programs and people."""

    type: str
    title: str
    status: int
    detail: str
    """What exactly is wrong, and what to do."""
    field: str | None = None
    """The parameter or the member of the body that is meant."""


class Problem(Exception):
    """Ends a request with an error answer."""

    def __init__(
        self, status: int, detail: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """``detail``: one or two sentences that name the next step; nothing secret, it goes to the client."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.headers = headers or {}

    def answer(self) -> Response:
        """The answer that says so."""
        title = HTTPStatus(self.status).phrase
        document = ProblemDocument(
            f"/api/docs#status-{self.status}", title, self.status, self.detail, self.field
        )
        return Response(
            msgspec.json.encode(document), self.status, headers=dict(self.headers), media_type=MEDIA_TYPE
        )


def not_found(what: str, name: str, hint: str = "") -> Problem:
    """There is no such thing."""
    return Problem(404, f"there is no {what} {name!r}" + (f"; {hint}" if hint else ""))
