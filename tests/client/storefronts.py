"""One small shop in each framework, asked as a server would ask it.

Two pages: `/` (a landing page, with a header for caches) and `/checkout`; both answer what is known of a click.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

from postbackd_client.capture import Capture, Captured
from postbackd_client.capture import asgi as asgi_capture
from postbackd_client.capture import wsgi as wsgi_capture

SHOP_CACHES = "public, max-age=600"
DJANGO_SECRET = "not a secret: this is a shop that exists in tests alone"


@dataclass(frozen=True)
class Answer:
    """What a visitor receives."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def all(self, name: str) -> list[str]:
        """The values of all headers of this name."""
        return [value for given, value in self.headers if given.lower() == name]

    def cookies(self) -> dict[str, str]:
        """Name and value of what is set."""
        pairs = [text.partition(";")[0].partition("=") for text in self.all("set-cookie")]
        return {name.strip(): value for name, _, value in pairs}


Ask = Callable[[str, Mapping[str, str]], Answer]
"""Path with query, request headers -> answer."""


def shown(captured: Captured | None) -> dict[str, Any]:
    """What the pages show."""
    return {
        "click_id": captured.click_id if captured else None,
        "others": dict(captured.others) if captured else {},
    }


# --- the two interfaces ---------------------------------------------------------------------------------------


def through_wsgi(application: Any) -> Ask:
    """Ask a WSGI application."""

    def ask(target: str, headers: Mapping[str, str]) -> Answer:
        path, _, query = target.partition("?")
        environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query, "wsgi.input": io.BytesIO()}
        setup_testing_defaults(environ)
        environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        started: list[Any] = []

        def start_response(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> None:
            started[:] = [int(status.split(maxsplit=1)[0]), fields]

        chunks: Iterable[bytes] = application(environ, start_response)
        body = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        return Answer(started[0], started[1], body)

    return ask


def through_asgi(application: Any) -> Ask:
    """Ask an ASGI application."""

    def ask(target: str, headers: Mapping[str, str]) -> Answer:
        path, _, query = target.partition("?")
        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode("latin-1"),
            "headers": [(b"host", b"shop.example"), *fields],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        return asyncio.run(_exchange(application, scope))

    return ask


async def _exchange(application: Any, scope: dict[str, Any]) -> Answer:
    answered = asyncio.Event()
    asked = False
    messages: list[Any] = []

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await answered.wait()  # a visitor stays until the answer is there
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            answered.set()

    await application(scope, receive, send)
    start = messages[0]
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    return Answer(start["status"], headers, b"".join(message.get("body", b"") for message in messages[1:]))


# --- the shops ------------------------------------------------------------------------------------------------


def wsgi_shop(capture: Capture) -> Ask:
    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        body = json.dumps(shown(wsgi_capture.captured(environ)))
        start_response("200 OK", [("Content-Type", "application/json"), ("Cache-Control", SHOP_CACHES)])
        return [body.encode()]

    return through_wsgi(wsgi_capture.CaptureMiddleware(application, capture))


def asgi_shop(capture: Capture) -> Ask:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        body = json.dumps(shown(asgi_capture.captured(scope))).encode()
        headers = [(b"content-type", b"application/json"), (b"cache-control", SHOP_CACHES.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return through_asgi(asgi_capture.CaptureMiddleware(application, capture))


def flask_shop(capture: Capture) -> Ask:
    import flask

    from postbackd_client.capture import flask as flask_capture

    app = flask.Flask("shop")
    app.secret_key = "not a secret"
    flask_capture.CaptureMiddleware(app, capture)

    def page() -> flask.Response:
        response = flask.jsonify(shown(flask_capture.captured()))
        response.headers["Cache-Control"] = SHOP_CACHES
        return response

    app.add_url_rule("/", "landing", page)
    app.add_url_rule("/checkout", "checkout", page)
    return through_wsgi(app)


def starlette_shop(capture: Capture) -> Ask:
    from starlette.applications import Starlette
    from starlette.middleware.sessions import SessionMiddleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from postbackd_client.capture import starlette as starlette_capture

    def page(request: Request) -> JSONResponse:
        found = shown(starlette_capture.captured(request))
        return JSONResponse(found, headers={"Cache-Control": SHOP_CACHES})

    app = Starlette(routes=[Route("/", page), Route("/checkout", page)])
    app.add_middleware(starlette_capture.CaptureMiddleware, capture=capture)
    app.add_middleware(SessionMiddleware, secret_key="not a secret")
    return through_asgi(app)


def fastapi_shop(capture: Capture) -> Ask:
    from fastapi import Depends, FastAPI
    from starlette.middleware.sessions import SessionMiddleware
    from starlette.responses import JSONResponse

    from postbackd_client.capture import starlette as starlette_capture

    app = FastAPI()
    app.add_middleware(starlette_capture.CaptureMiddleware, capture=capture)
    app.add_middleware(SessionMiddleware, secret_key="not a secret")
    known = Depends(starlette_capture.captured)

    def page(captured: Any = known) -> JSONResponse:
        return JSONResponse(shown(captured), headers={"Cache-Control": SHOP_CACHES})

    for path in ("/", "/checkout"):
        app.get(path, response_model=None)(page)
    return through_asgi(app)


# --- Django, which has one configuration a process -------------------------------------------------------------


urlpatterns: list[Any] = []


viewed: list[str] = []
"""The paths for which Django's view was asked, and not a cache."""


def _view(request: Any) -> Any:
    from django.http import JsonResponse  # type: ignore[import-untyped]

    from postbackd_client.capture import django as django_capture

    viewed.append(request.get_full_path())
    return JsonResponse(
        shown(django_capture.captured(request)),
        headers={"Cache-Control": SHOP_CACHES, "CDN-Cache-Control": "max-age=60"},
    )


async def _async_view(request: Any) -> Any:
    from asgiref.sync import sync_to_async

    return await sync_to_async(_view)(request)


def configure_django(directory: Path) -> None:
    """Once a process: sessions lie in a database, because that is what an event loop must not wait for."""
    import django  # type: ignore[import-untyped]
    from django.conf import settings  # type: ignore[import-untyped]
    from django.urls import path  # type: ignore[import-untyped]

    if settings.configured:
        return
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY=DJANGO_SECRET,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": directory / "shop.db",
            }
        },
        INSTALLED_APPS=["django.contrib.sessions"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "postbackd_client.capture.django.CaptureMiddleware",
        ],
    )
    django.setup()
    urlpatterns[:] = [
        path("", _view),
        path("checkout", _view),
        path("async/", _async_view),
        path("async/checkout", _async_view),
    ]
    from django.contrib.sessions.models import Session  # type: ignore[import-untyped]
    from django.db import connection  # type: ignore[import-untyped]

    with connection.schema_editor() as editor:
        editor.create_model(Session)
    connection.close()


def django_shop(capture: Capture) -> Ask:
    from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]

    return through_wsgi(_with_settings(capture, WSGIHandler))


def async_django_shop(capture: Capture) -> Ask:
    from django.core.handlers.asgi import ASGIHandler  # type: ignore[import-untyped]

    ask = through_asgi(_with_settings(capture, ASGIHandler))
    return lambda target, headers: ask(f"/async{target}", headers)


def _with_settings(capture: Capture, handler: Callable[[], Any]) -> Any:
    from django.test.utils import override_settings  # type: ignore[import-untyped]

    with override_settings(POSTBACKD_CAPTURE=capture):
        return handler()


COOKIE_SHOPS = {
    "wsgi": wsgi_shop,
    "asgi": asgi_shop,
    "flask": flask_shop,
    "starlette": starlette_shop,
    "fastapi": fastapi_shop,
    "django": django_shop,
    "django-async": async_django_shop,
}
SESSION_SHOPS = {name: shop for name, shop in COOKIE_SHOPS.items() if name not in ("wsgi", "asgi")}
