"""The description of the API by OpenAPI 3.1, made from the endpoints; nothing of it is written by hand."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from postbackd.admin.endpoints import PREFIX, Endpoint, Scope
from postbackd.admin.problems import MEDIA_TYPE, ProblemDocument

_REF = "#/components/schemas/{name}"

_ALWAYS = (400, 503)
_GUARDED = (401, 403)


def describe(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """The whole document."""
    endpoints = tuple(endpoints)
    types = [type_ for one in endpoints for type_ in (one.query, one.body, one.answer) if _is_json(type_)]
    schemas, components = msgspec.json.schema_components([*types, ProblemDocument], ref_template=_REF)
    known = {repr(type_): schema for type_, schema in zip([*types, ProblemDocument], schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        path = paths.setdefault(PREFIX + one.path, {})
        path[one.method.lower()] = _operation(one, known, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "postbackd",
            "version": version,
            "description": "Clicks, postbacks, conversions and deliveries: see, explain, set up and repair them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}],
        "tags": [{"name": topic} for topic in dict.fromkeys(one.topic for one in endpoints)],
        "paths": paths,
        "components": {
            "schemas": _without_parameters(components, endpoints),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Made by 'postbackd token add'.",
                },
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-postbackd"},
            },
        },
    }


def _is_json(type_: Any) -> bool:
    return type_ is not None and type_ is not bytes


def _without_parameters(components: Mapping[str, Any], endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    queries = {one.query.__name__ for one in endpoints if one.query is not None}
    return {name: schema for name, schema in components.items() if name not in queries}


def _operation(one: Endpoint, known: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(one),
        "tags": [one.topic],
        "summary": one.does,
        "parameters": [
            *_path_parameters(one.path),
            *_query_parameters(one, known, components),
            *_condition(one),
        ],
        "responses": _responses(one, known),
    }
    description = inspect.getdoc(one.run)
    if description and description != one.does:
        operation["description"] = description
    if one.scope is None:
        operation["security"] = []
    else:
        operation["x-scope"] = Scope(one.scope).value
    if one.body is not None:
        schema = {"type": "string"} if one.body is bytes else known[repr(one.body)]
        content = {"schema": schema, **({} if one.example is None else {"example": one.example})}
        operation["requestBody"] = {"required": True, "content": {one.takes: content}}
    return operation


def _operation_id(one: Endpoint) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", one.path.lower()).strip("_")
    return f"{one.method.lower()}_{words}"


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[^/]+$"}}
        for name in re.findall(r"{(\w+)}", path)
    ]


def _condition(one: Endpoint) -> list[dict[str, Any]]:
    if not one.conditional:
        return []
    return [
        {
            "name": "If-Match",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "pattern": r'^(\*|"[0-9]{1,18}")$'},
            "description": "The ETag of an earlier answer: change it only if the catalog is still the same.",
        }
    ]


def _query_parameters(
    one: Endpoint, known: Mapping[str, Any], components: Mapping[str, Any]
) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    if one.query is not None:
        schema = components[known[repr(one.query)]["$ref"].rpartition("/")[2]]
        required = schema.get("required", ())
        for name, property_ in schema["properties"].items():
            rest = dict(property_)
            parameter = {"name": name, "in": "query", "required": name in required, "schema": rest}
            if "description" in rest:
                parameter["description"] = rest.pop("description")
            parameters.append(parameter)
    if not one.own_data_only:
        schema = {"enum": ["real", "demo"], "default": "real"}
        says = "Real data, or those that 'postbackd demo' has made."
        parameters.append(
            {"name": "data", "in": "query", "required": False, "schema": schema, "description": says}
        )
    return parameters


def _responses(one: Endpoint, known: Mapping[str, Any]) -> dict[str, Any]:
    if one.gives != "application/json":
        success: dict[str, Any] = {"content": {one.gives: {"schema": {"type": "string"}}}}
    elif one.answer is not None:
        success = {"content": {"application/json": {"schema": known[repr(one.answer)]}}}
    else:
        success = {}
    if one.conditional:
        success = {**success, "headers": {"ETag": {"schema": {"type": "string"}}}}
    status = 204 if one.answer is None and one.gives == "application/json" else one.status
    responses = {str(status): {"description": one.does, **success}}
    problems = {*_ALWAYS, *one.problems, *(_GUARDED if one.scope is not None else ())}
    if one.conditional:
        problems |= {412}
    if not one.own_data_only or "{" in one.path:
        problems.add(404)
    if one.body is not None:
        problems |= {413, 415}
    for problem in sorted(problems):
        schema = known[repr(ProblemDocument)]
        responses[str(problem)] = {
            "description": HTTPStatus(problem).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
    return responses
