"""Who asks: what the application wants to know of whoever lets people in."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from postbackd.admin.endpoints import Endpoint, Principal


class Doorkeeper(Protocol):
    """Knows people and tokens."""

    async def identify(self, request: Request) -> Principal:
        """Who sends this request; ``endpoints.NOBODY`` when it names nobody.

        Raises ``Problem`` (401, 403, 429) when it names somebody who must not be believed: a wrong token, a foreign
        ``Host``, a session without its proof against forged requests.
        """
        ...

    async def note(self, who: Principal, endpoint: Endpoint, request: Request, response: Response) -> None:
        """Keep in the audit log that something was changed, or was tried to be."""
        ...
