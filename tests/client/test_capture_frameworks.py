"""The same journey in each framework: what a visitor carries away from the landing page is there at checkout."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import postbackd_client.capture
from postbackd_client.capture import Capture, CaptureError
from postbackd_client.capture import asgi as asgi_capture
from postbackd_client.capture import wsgi as wsgi_capture
from tests.client import storefronts
from tests.client.storefronts import Answer, Ask

SECRET = b"a secret that is long enough"
OURS = "0cmfxxv01zzzzg001a1e618bfz"
OTHER = "0e72zm0000400g0001jtja4h6m"

Shop = Callable[[Capture], Ask]


@pytest.fixture(autouse=True, scope="module")
def django_is_configured(tmp_path_factory: pytest.TempPathFactory) -> None:
    storefronts.configure_django(tmp_path_factory.mktemp("django"))


@pytest.fixture(params=list(storefronts.COOKIE_SHOPS))
def shop(request: pytest.FixtureRequest) -> Shop:
    return storefronts.COOKIE_SHOPS[request.param]


@pytest.fixture(params=list(storefronts.SESSION_SHOPS))
def session_shop(request: pytest.FixtureRequest) -> Shop:
    return storefronts.SESSION_SHOPS[request.param]


def opened(shop: Shop, **settings: Any) -> Ask:
    return shop(Capture(**{"secret": SECRET, "also": ("gclid",), **settings}))


def jar(answer: Answer) -> dict[str, str]:
    """The request header with which a browser brings back what was set."""
    return {"cookie": "; ".join(f"{name}={value}" for name, value in answer.cookies().items())}


# --- in a cookie ------------------------------------------------------------------------------------------------


def test_the_click_of_the_landing_page_is_known_there_and_at_checkout(shop: Shop) -> None:
    ask = opened(shop)
    landing = ask(f"/?utm_source=ads&click_id={OURS}&gclid=Cj0KCQiA", {})
    known = {"click_id": OURS, "others": {"gclid": "Cj0KCQiA"}}
    assert (landing.status, landing.json) == (200, known)
    (cookie,) = landing.all("set-cookie")
    assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=7776000"} <= set(cookie.split("; "))
    checkout = ask("/checkout", jar(landing))
    assert (checkout.json, checkout.all("set-cookie")) == (known, [])


def test_the_answer_that_sets_the_cookie_alone_is_kept_out_of_shared_caches(shop: Shop) -> None:
    ask = opened(shop)
    landing = ask(f"/?click_id={OURS}", {})
    assert landing.all("cache-control") == ["max-age=600, private"]
    assert landing.all("cdn-cache-control") == []
    for plain in (ask("/", {}), ask("/checkout", jar(landing)), ask("/?click_id={clickid}", {})):
        assert plain.all("cache-control") == [storefronts.SHOP_CACHES]
        assert "cookie" not in ", ".join(plain.all("vary")).lower()


def test_a_visitor_without_a_click_is_served_and_nothing_is_known(shop: Shop) -> None:
    answer = opened(shop)("/checkout", {})
    assert (answer.status, answer.json) == (200, {"click_id": None, "others": {}})


def test_an_empty_or_literal_id_does_not_push_out_a_good_one(shop: Shop) -> None:
    ask = opened(shop)
    carried = jar(ask(f"/?click_id={OURS}", {}))
    for query in (
        "click_id=",
        "click_id={clickid}",
        "click_id=%7Bclickid%7D",
        "click_id=REPLACE_ME",
        "click_id=%00",
    ):
        again = ask(f"/?{query}", carried)
        assert (again.json["click_id"], again.all("set-cookie")) == (OURS, [])


def test_consent_is_asked_with_the_request_and_its_withdrawal_deletes_the_cookie(shop: Shop) -> None:
    asked: list[str] = []

    def agrees(request: Any) -> bool:
        asked.append(path_of(request))
        return len(asked) == 1

    ask = opened(shop, consent=agrees)
    landing = ask(f"/?click_id={OURS}", {})
    assert landing.json["click_id"] == OURS
    withdrawn = ask("/checkout", jar(landing))
    assert withdrawn.json["click_id"] is None
    (cookie,) = withdrawn.all("set-cookie")
    assert asked[1].endswith("/checkout")
    assert "Max-Age=0" in cookie.split("; ")
    assert withdrawn.cookies()["pbk"].strip('"') == ""


def path_of(request: Any) -> str:
    """Each framework hands its own request to `consent`; WSGI and ASGI their dictionaries."""
    if isinstance(request, dict):
        return str(request.get("PATH_INFO") or request["path"])
    return str(getattr(request, "path", None) or request.url.path)


def test_global_privacy_control_is_honoured_unless_it_is_switched_off(shop: Shop) -> None:
    refused = opened(shop)(f"/?click_id={OURS}", {"sec-gpc": "1"})
    assert (refused.json["click_id"], refused.all("set-cookie")) == (None, [])
    kept = opened(shop, honour_gpc=False)(f"/?click_id={OURS}", {"sec-gpc": "1"})
    assert kept.json["click_id"] == OURS


@pytest.mark.parametrize(
    "headers",
    [
        {"cookie": "pbk=" + "\xff\xfe" * 40},
        {"cookie": "pbk=1:click_id:%FF%FE:1:x; ;;=;=x; pbk"},
        {"cookie": "pbk=" + "A" * 60_000},
        {"cookie": "pbk=1:click_id:x:" + "9" * 5_000 + ":y"},
        {"cookie": 'pbk="\\377\\000"; pbk="'},
        {"cookie": "; ".join(f"c{n}=x" for n in range(3_000))},
        {"sec-gpc": "\xff"},
    ],
    ids=["bytes", "pieces", "huge", "digits", "quotes", "many", "gpc"],
)
def test_nothing_that_a_visitor_sends_breaks_a_page(shop: Shop, headers: dict[str, str]) -> None:
    ask = opened(shop, consent=lambda _: True)
    for query in (
        f"click_id={OURS}",
        f"click_id={OURS}&x=%FF%&=&&%00",
        f"click_id={OURS}&{'a=%F0&' * 20_000}",
    ):
        answer = ask(f"/?{query}", headers)
        assert (answer.status, answer.json["click_id"]) == (200, OURS)


@pytest.mark.parametrize("name", ["wsgi", "asgi", "flask", "starlette"])
def test_bytes_that_are_no_text_in_an_address_break_no_page(name: str) -> None:
    answer = opened(storefronts.COOKIE_SHOPS[name])(f"/?\xff=\xfe&click_id={OURS}&clickid=\xff", {})
    assert (answer.status, answer.json["click_id"]) == (200, OURS)


# --- in the session -----------------------------------------------------------------------------------------------


def test_a_session_keeps_the_click_as_well_and_no_cookie_of_ours_is_set(session_shop: Shop) -> None:
    ask = opened(session_shop, secret=None, storage="session")
    landing = ask(f"/?click_id={OURS}", {})
    assert landing.json["click_id"] == OURS
    assert [name for name in landing.cookies() if name.startswith("pbk")] == []
    assert landing.all("cache-control") == ["max-age=600, private"]
    assert ask("/checkout", jar(landing)).json["click_id"] == OURS


def test_a_session_is_not_opened_for_visitors_without_a_click(session_shop: Shop) -> None:
    def unasked(_request: Any) -> bool:
        return True

    ask = opened(session_shop, secret=None, storage="session", consent=unasked)
    assert ask("/", {}).all("set-cookie") == []


def test_first_click_last_click_and_withdrawal_in_a_session(session_shop: Shop) -> None:
    last = opened(session_shop, secret=None, storage="session")
    first = opened(session_shop, secret=None, storage="session", keep="first")
    carried = jar(last(f"/?click_id={OURS}", {}))
    assert first(f"/?click_id={OTHER}", carried).json["click_id"] == OURS
    moved = last(f"/?click_id={OTHER}", carried)
    assert moved.json["click_id"] == OTHER
    carried = jar(moved) if moved.cookies() else carried
    withdrawn = last("/checkout", carried | {"sec-gpc": "1"})
    assert withdrawn.json["click_id"] is None
    carried = jar(withdrawn) if withdrawn.cookies() else carried
    assert last("/checkout", carried).json["click_id"] is None


# --- what each interface alone has ----------------------------------------------------------------------------------


def test_a_body_passes_through_wsgi_piece_by_piece_and_is_closed() -> None:
    class Body:
        closed = False

        def __iter__(self) -> Any:
            return iter([b"a", b"b"])

        def close(self) -> None:
            self.closed = True

    body = Body()

    def application(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    capture = Capture(SECRET)
    middleware = wsgi_capture.CaptureMiddleware(application, capture)
    assert middleware({"QUERY_STRING": f"click_id={OURS}"}, lambda *_: None) is body  # type: ignore[arg-type]
    assert storefronts.through_wsgi(middleware)(f"/?click_id={OURS}", {}).body == b"ab"
    assert body.closed


def test_websockets_and_lifespans_pass_through_asgi_untouched() -> None:
    seen: list[Any] = []

    async def application(*passed: Any) -> None:
        seen.append(passed)

    async def receive() -> Any: ...

    async def send(_message: Any) -> None: ...

    middleware = asgi_capture.CaptureMiddleware(application, Capture(SECRET))
    for kind in ("websocket", "lifespan"):
        scope: dict[str, Any] = {"type": kind, "query_string": f"click_id={OURS}".encode(), "headers": []}
        before = dict(scope)
        asyncio.run(middleware(scope, receive, send))
        assert seen.pop() == (scope, receive, send)
        assert scope == before


def test_cookies_that_arrive_in_several_fields_are_read_together() -> None:
    capture = Capture(SECRET)
    landing = storefronts.asgi_shop(capture)(f"/?click_id={OURS}", {})
    scope: dict[str, Any] = {
        "type": "http",
        "query_string": b"",
        "headers": [(b"cookie", b"a=b"), (b"cookie", jar(landing)["cookie"].encode())],
    }

    async def application(scope: Any, _receive: Any, _send: Any) -> None:
        assert asgi_capture.click_id(scope) == OURS
        scope["asked"] = True

    async def unused(*_: Any) -> Any: ...

    asyncio.run(asgi_capture.CaptureMiddleware(application, capture)(scope, unused, unused))
    assert scope["asked"]


def test_a_hook_of_flask_that_answers_first_loses_no_click() -> None:
    import flask

    from postbackd_client.capture import flask as flask_capture

    app = flask.Flask("shop")
    app.before_request(lambda: flask.redirect("/en/"))
    flask_capture.CaptureMiddleware(app, Capture(SECRET))
    answer = storefronts.through_wsgi(app)(f"/?click_id={OURS}", {})
    assert (answer.status, list(answer.cookies())) == (302, ["pbk"])


def test_an_error_page_of_flask_and_starlette_keeps_the_click() -> None:
    for shop in (storefronts.flask_shop, storefronts.starlette_shop, storefronts.django_shop):
        answer = shop(Capture(SECRET))(f"/missing?click_id={OURS}", {})
        assert (answer.status, list(answer.cookies())) == (404, ["pbk"])


def test_an_asynchronous_view_of_django_asks_without_blocking_the_loop() -> None:
    from django.http import HttpResponse  # type: ignore[import-untyped]
    from django.test import AsyncRequestFactory  # type: ignore[import-untyped]

    from postbackd_client.capture import django as django_capture

    async def view(request: Any) -> Any:
        return HttpResponse(await django_capture.aclick_id(request))

    request = AsyncRequestFactory().get(f"/?click_id={OURS}")
    answer = asyncio.run(_django_middleware(view)(request))
    assert (answer.content.decode(), list(answer.cookies)) == (OURS, ["pbk"])


def _django_middleware(view: Any) -> Any:
    from postbackd_client.capture import django as django_capture

    return django_capture.CaptureMiddleware(view)


def test_a_cached_page_of_django_still_takes_the_click_of_every_visitor() -> None:
    from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]
    from django.test.utils import override_settings  # type: ignore[import-untyped]

    order = [
        "django.middleware.cache.UpdateCacheMiddleware",
        "postbackd_client.capture.django.CaptureMiddleware",
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]
    memory = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with override_settings(MIDDLEWARE=order, CACHES=memory, POSTBACKD_CAPTURE={"also": ("gclid",)}):
        ask = storefronts.through_wsgi(WSGIHandler())
        asked = len(storefronts.viewed)
        for _ in range(2):
            ask("/?plain", {})
        assert storefronts.viewed[asked:] == ["/?plain"], "the second came from the cache"
        for _ in range(2):
            assert list(ask(f"/?click_id={OURS}", {}).cookies()) == ["pbk"]


# --- mistakes of the shop's own program -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": ["click_id"]}, "name"),
        (["click_id"], "dictionary"),
        ({"keep": "both"}, '"last" or "first"'),
    ],
)
def test_settings_of_django_that_cannot_work_stop_it_with_the_next_step(given: Any, words: str) -> None:
    from django.test.utils import override_settings

    with override_settings(POSTBACKD_CAPTURE=given), pytest.raises(CaptureError, match=words):
        _django_middleware(lambda _: None)


def test_django_needs_no_settings_and_takes_its_older_secrets_along() -> None:
    from django.test.utils import override_settings

    from postbackd_client.capture.django import capture_from_settings

    old = Capture(storefronts.DJANGO_SECRET)
    text = old.encode(old.decide({}, old.landing(f"click_id={OURS}"), old.now()).record)
    assert capture_from_settings().decode(text, old.now())
    with override_settings(SECRET_KEY="x" * 50, SECRET_KEY_FALLBACKS=[storefronts.DJANGO_SECRET]):
        assert capture_from_settings().decode(text, old.now())
    with override_settings(SECRET_KEY="x" * 50):
        assert not capture_from_settings().decode(text, old.now())


def test_asking_without_the_middleware_and_a_session_without_its_own_are_refused_in_words() -> None:
    with pytest.raises(CaptureError, match="CaptureMiddleware"):
        wsgi_capture.click_id({})
    with pytest.raises(CaptureError, match='storage="cookie"'):
        wsgi_capture.CaptureMiddleware(lambda *_: [], Capture(storage="session"))
    with pytest.raises(CaptureError, match="SessionMiddleware"):
        storefronts.asgi_shop(Capture(storage="session"))(f"/?click_id={OURS}", {})


def test_the_capture_itself_imports_no_framework() -> None:
    program = (
        "import sys, postbackd_client.capture, postbackd_client.capture.wsgi, postbackd_client.capture.asgi\n"
        "frameworks = {'flask', 'django', 'starlette', 'fastapi', 'werkzeug', 'asgiref'}\n"
        "print(sorted(frameworks & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True
    )
    assert (done.stdout, done.stderr) == (b"[]\n", b"")


def test_the_capture_needs_nothing_of_the_rest_of_the_client() -> None:
    package = Path(postbackd_client.capture.__file__).parent
    imported = {
        node.module
        for path in package.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("postbackd_client")
    }
    assert imported
    assert [
        name for name in sorted(map(str, imported)) if not name.startswith("postbackd_client.capture")
    ] == []
