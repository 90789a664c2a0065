"""The application of the admin role: the API, its description, the dashboard's files, and what guards them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from postbackd import __version__
from postbackd.admin.calls import Desks, serve
from postbackd.admin.docs_page import STYLE, render
from postbackd.admin.endpoints import PREFIX, Endpoint
from postbackd.admin.files import Files
from postbackd.admin.identity import Doorkeeper
from postbackd.admin.openapi import describe
from postbackd.admin.problems import Problem

STATIC = Path(__file__).parent / "static"

GZIP_FROM_BYTES = 1000

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""On every answer: nothing but our own files may run or be loaded, and nobody may frame us."""

NO_STORE = "no-store"


class _Headers:
    """Adds ``HEADERS``, and forbids every cache to keep what has no rule of its own."""

    def __init__(self, app: ASGIApp, more: Sequence[tuple[str, str]]) -> None:
        self._app = app
        self._headers = [(name.lower().encode(), text.encode()) for name, text in (*HEADERS.items(), *more)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                added = [header for header in self._headers if header[0] not in names]
                if b"cache-control" not in names:
                    added.append((b"cache-control", NO_STORE.encode()))
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


def build_app(
    endpoints: Sequence[Endpoint],
    desks: Desks,
    doorkeeper: Doorkeeper,
    *,
    routes: Iterable[BaseRoute] = (),
    headers: Sequence[tuple[str, str]] = (),
) -> Starlette:
    """``routes``: beside the API and the dashboard's files.  ``headers``: on every answer, beside ``HEADERS``."""
    described = describe(endpoints, __version__)
    api = _route(endpoints, desks, doorkeeper)
    return Starlette(
        routes=[
            *api,
            _fixed("/api/openapi.json", msgspec.json.encode(described), "application/json"),
            _fixed("/api/docs", render(endpoints, described).encode(), "text/html"),
            _fixed("/api/docs.css", STYLE.encode(), "text/css"),
            *routes,
            *Files(STATIC).routes(),
        ],
        middleware=[
            Middleware(_Headers, more=tuple(headers)),
            Middleware(GZipMiddleware, minimum_size=GZIP_FROM_BYTES),
        ],
        exception_handlers={HTTPException: _name_problem, Exception: _name_surprise},
    )


def _fixed(path: str, body: bytes, media_type: str) -> Route:
    """What is the same for everybody until the program changes; nothing of it is secret."""

    async def answer(_: Request) -> Response:
        return Response(body, media_type=media_type)

    return Route(path, answer)


def _route(endpoints: Sequence[Endpoint], desks: Desks, doorkeeper: Doorkeeper) -> list[BaseRoute]:
    """One route a path, which takes every method, so that whoever uses a wrong one is told which there are."""
    paths: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method] = serve(one, desks, doorkeeper)
    # What has no parameter in it is looked for first: /rules/test is no rule.
    order = sorted(paths, key=lambda path: path.count("{"))
    return [Route(PREFIX + path, _Choice(paths[path])) for path in order]


class _Choice:
    """The endpoints of one path, by method."""

    def __init__(self, by_method: Mapping[str, Callable[[Request], Awaitable[Response]]]) -> None:
        self._by_method = dict(by_method)
        if "GET" in self._by_method:
            self._by_method.setdefault("HEAD", self._by_method["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        call = self._by_method.get(request.method)
        if call is None:
            allowed = {"Allow": ", ".join(self._by_method)}
            raise HTTPException(405, headers=allowed)
        await (await call(request))(scope, receive, send)


async def _name_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        detail = f"there is nothing at {request.url.path}; the API is described at /api/docs"
    elif error.status_code == 405:
        detail = f"{request.url.path} does not take {request.method}"
    else:
        detail = error.detail
    return Problem(error.status_code, detail, headers=error.headers).answer()


async def _name_surprise(_: Request, error: Exception) -> Response:
    """Starlette raises it again, so that it reaches the log.  What adds headers to the other answers is within it."""
    del error
    detail = "something went wrong on our side; the log of the admin role says what"
    return Problem(500, detail, headers={**HEADERS, "Cache-Control": NO_STORE}).answer()
