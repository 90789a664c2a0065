"""Capture for Django, synchronous and asynchronous.

    MIDDLEWARE = [..., "postbackd_client.capture.django.CaptureMiddleware"]
    POSTBACKD_CAPTURE = {"names": ["click_id"]}      # what Capture takes; may be left out

The secret is SECRET_KEY, and older ones are SECRET_KEY_FALLBACKS, unless POSTBACKD_CAPTURE holds another.  With
`storage="session"` the middleware stands below SessionMiddleware.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Callable, Optional, Union

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponseBase  # type: ignore[import-untyped]

from postbackd_client.capture import cookies
from postbackd_client.capture.cookies import SetCookie
from postbackd_client.capture.decisions import Capture, Captured, CaptureError
from postbackd_client.capture.visit import KEY, Session, Visit, visit_of

_SETTING = "POSTBACKD_CAPTURE"

Response = Union[HttpResponseBase, Awaitable[HttpResponseBase]]


class CaptureMiddleware:
    """Takes the click id from the address of each request."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._capture = capture_from_settings()
        self._is_async = iscoroutinefunction(get_response)
        # A session and most consents read a database, which Django refuses inside of an event loop.
        self._may_block = self._capture.storage == "session" or self._capture.consent is not None
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Response:
        if self._is_async:
            return self._answer(request)
        visit = self._begin(request)
        return _finish(self._get_response(request), visit)

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        begin = sync_to_async(self._begin) if self._may_block else None
        visit = await begin(request) if begin else self._begin(request)
        return _finish(await self._get_response(request), visit)

    def _begin(self, request: HttpRequest) -> Visit:
        visit = Visit(
            self._capture,
            request,
            query=request.META.get("QUERY_STRING"),
            cookie=request.META.get("HTTP_COOKIE"),
            gpc=request.META.get("HTTP_SEC_GPC"),
            session=lambda: _session(request),
        )
        request.META[KEY] = visit
        return visit


def capture_from_settings() -> Capture:
    """The `Capture` that Django's settings describe.  Raises ``CaptureError`` for settings that cannot work."""
    given = getattr(settings, _SETTING, None) or {}
    if isinstance(given, Capture):
        return given
    if not isinstance(given, Mapping):
        raise CaptureError(
            f'{_SETTING} is a dictionary of what Capture takes, such as {{"names": ["click_id"]}}'
        )
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    try:
        return Capture(**{"secret": secrets, **given})
    except TypeError as error:
        raise CaptureError(f"{_SETTING}: {error}") from error


def _session(request: HttpRequest) -> Session:
    session: Optional[Session] = getattr(request, "session", None)
    if session is None:
        raise CaptureError(
            'storage="session" found no session: put CaptureMiddleware below SessionMiddleware'
        )
    return session


def _finish(response: HttpResponseBase, visit: Visit) -> HttpResponseBase:
    if not visit.is_personal:
        return response
    for name in [name for name in response.headers if cookies.is_override(name)]:
        del response.headers[name]
    response.headers["Cache-Control"] = cookies.private(response.headers.get("Cache-Control"))
    cookie = visit.set_cookie
    if cookie is not None:
        _set_cookie(response, cookie)
    return response


def _set_cookie(response: HttpResponseBase, cookie: SetCookie) -> None:
    response.set_cookie(
        cookie.name,
        cookie.value,
        max_age=cookie.max_age_s,
        domain=cookie.domain,
        secure=cookie.secure,
        httponly=True,
        samesite="Lax",
    )


def captured(request: HttpRequest) -> Optional[Captured]:
    """What is known of the visitor's click, with the ids of ad platforms; ``None`` when nothing is."""
    return visit_of(request.META).captured()


def click_id(request: HttpRequest) -> Optional[str]:
    """The visitor's click id, or ``None``."""
    return visit_of(request.META).click_id()


async def aclick_id(request: HttpRequest) -> Optional[str]:
    """`click_id` for an asynchronous view: a session may have to be read from the database."""
    found: Optional[str] = await sync_to_async(click_id)(request)
    return found
