"""The closed list of reasons, for whoever shows them: what is wrong, and what mends it."""

from __future__ import annotations

from msgspec import Struct

from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.pages import Page
from postbackd.core.diagnosis import Reason


class ReasonText(Struct, frozen=True):
    """One reason in words."""

    word: str
    cause: str
    fix: str


async def list_reasons(asked: Asked[None, None]) -> Page[ReasonText]:
    del asked
    return Page([ReasonText(reason.word, reason.cause, reason.fix) for reason in Reason if reason])


ENDPOINTS = (
    Endpoint(
        "GET", "/reasons", Scope.READ, "Health", "What each reason means, and what mends it.", list_reasons,
        answer=Page[ReasonText], own_data_only=True,
    ),
)  # fmt: skip
