"""One request of the API: decode, ask who sends it, let the endpoint work, answer or name the problem."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, get_type_hints

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from postbackd.admin.desk import DataSet, Desk
from postbackd.admin.endpoints import SAFE_METHODS, Answered, Asked, Endpoint, Principal, Scope
from postbackd.admin.identity import Doorkeeper
from postbackd.admin.problems import Problem
from postbackd.catalog.changes import Unknown
from postbackd.catalog.errors import EntryError, NoEntry, NotNow
from postbackd.store.base import CatalogConflict, CatalogMoved, StoreRefused, StoreUnavailable

log = logging.getLogger("postbackd.admin")

Desks = Callable[[DataSet], Awaitable[Desk | None]]


_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""As JSON writes it.  PostgreSQL stores none, and an argument of a command ends there."""


def serve(
    endpoint: Endpoint, desks: Desks, doorkeeper: Doorkeeper
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint as a function from a request to an answer."""

    async def call(request: Request) -> Response:
        try:
            return await _call(endpoint, desks, doorkeeper, request)
        except Problem as problem:
            return problem.answer()
        except StoreUnavailable as error:  # before or behind the work: who asks, or the audit log
            return name_absence(error).answer()

    return call


async def _call(endpoint: Endpoint, desks: Desks, doorkeeper: Doorkeeper, request: Request) -> Response:
    who = await doorkeeper.identify(request)
    try:
        _permit(endpoint, who)
        response = await _work(endpoint, desks, who, request)
    except Problem as problem:
        response = problem.answer()
    except Exception:  # what was begun is noted, too
        if request.method not in SAFE_METHODS:
            await doorkeeper.note(who, endpoint, request, Response(status_code=500))
        raise
    if request.method not in SAFE_METHODS and endpoint.noted:
        await doorkeeper.note(who, endpoint, request, response)
    return response


def _permit(endpoint: Endpoint, who: Principal) -> None:
    if endpoint.scope is not None and endpoint.scope not in who.scopes:
        raise refuse(endpoint.scope, who.kind)


def refuse(scope: Scope, kind: str) -> Problem:
    """Whoever asks has not this scope."""
    if kind == "nobody":
        return Problem(
            401,
            "sign in, or send a token as 'Authorization: Bearer ...'; 'postbackd token add' makes one",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return Problem(403, f"this needs the scope {scope.value!r}, which this {kind} does not have")


def name_absence(error: StoreUnavailable) -> Problem:
    """The database is away."""
    log.warning("the database did not answer: %s", error)
    detail = "the database did not answer; try again in some seconds"
    return Problem(503, detail, headers={"Retry-After": "2"})


async def _work(endpoint: Endpoint, desks: Desks, who: Principal, request: Request) -> Response:
    try:
        desk = await desks(DataSet.REAL if endpoint.own_data_only else _which_data(request))
        if desk is None:
            raise Problem(404, "there are no simulated data; make some with 'postbackd demo'", field="data")
        query = _read_query(endpoint, request)
        body = await _read_body(endpoint, request)
        answer = await endpoint.run(Asked(request, desk, who, request.path_params, query, body))
    except (EntryError, Unknown) as error:
        raise Problem(422, str(error), field=error.field) from error
    except NoEntry as error:
        raise Problem(404, str(error)) from error
    except CatalogMoved as error:
        raise Problem(412, str(error)) from error
    except (CatalogConflict, NotNow) as error:
        raise Problem(409, str(error)) from error
    except StoreRefused as error:
        raise Problem(503, str(error), headers={"Retry-After": "10"}) from error
    except StoreUnavailable as error:
        raise name_absence(error) from error
    except ClientDisconnect as error:
        raise Problem(400, "the request ended too early") from error
    if isinstance(answer, Response):
        return answer
    headers: Mapping[str, str] = {}
    status = endpoint.status
    if isinstance(answer, Answered):
        headers, status, answer = answer.headers, answer.status or status, answer.value
    if endpoint.answer is None:
        return Response(status_code=204, headers=dict(headers))
    return Response(msgspec.json.encode(answer), status, headers=dict(headers), media_type="application/json")


def _which_data(request: Request) -> DataSet:
    text = request.query_params.get("data") or request.headers.get("postbackd-data") or "real"
    try:
        return DataSet(text)
    except ValueError as error:
        raise Problem(400, f"data is {text!r}; write real or demo", field="data") from error


def _read_query(endpoint: Endpoint, request: Request) -> Any:
    given: dict[str, Any] = {}
    for name, text in request.query_params.multi_items():
        if name in given:
            raise Problem(400, f"the parameter {name!r} is there twice; give it once", field=name)
        given[name] = text
    for name, text in (*given.items(), *request.path_params.items()):
        if "\0" in text:
            raise Problem(400, f"{name} holds a NUL character; leave it out", field=name)
    given.pop("data", None)
    known = _fields(endpoint.query) if endpoint.query is not None else {}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known) or 'none'}"
            raise Problem(400, f"there is no parameter {name!r} here{hint}", field=name)
    if endpoint.query is None:
        return None
    try:
        return msgspec.convert(given, endpoint.query, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(400, f"the parameters are not usable: {error}", field=_field_of(error)) from error


def _fields(struct: type) -> Mapping[str, Any]:
    return get_type_hints(struct, include_extras=True)


def _field_of(error: msgspec.ValidationError) -> str | None:
    """msgspec says ``... - at `$.name` ``."""
    _, _, where = str(error).partition("`$.")
    return where.partition("`")[0] or None


def _say_unusable(error: Exception, field: str | None) -> str:
    """msgspec's words, except for what happens to everybody who fills in a form: a field left empty."""
    if field is not None and "`str` of length >= 1" in str(error):
        return f"{field} is empty; write something there"
    return f"the body is not usable: {error}"


def _given_fields(body: bytearray) -> Sequence[str]:
    """Names of what was given, for the audit log; values may be secret."""
    given = msgspec.json.decode(body)
    return [name[:64] for name in list(given)[:32]] if isinstance(given, dict) else ()


async def _read_body(endpoint: Endpoint, request: Request) -> Any:
    if endpoint.body is None:
        return None
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != endpoint.takes and not (endpoint.body is bytes and media):
        raise Problem(415, f"send the body as {endpoint.takes}")
    if endpoint.streams:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > endpoint.max_body_bytes:
            raise Problem(413, f"the body is over {endpoint.max_body_bytes} bytes")
    if endpoint.body is bytes:
        return bytes(body)
    if _NUL.search(body):
        raise Problem(400, "the body holds a NUL character (\\u0000); leave it out")
    try:
        request.state.fields = _given_fields(body)
        return msgspec.json.decode(body, type=endpoint.body)
    except RecursionError as error:
        raise Problem(400, "the body is not usable: it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        field = _field_of(error) if isinstance(error, msgspec.ValidationError) else None
        raise Problem(400, _say_unusable(error, field), field=field) from error
