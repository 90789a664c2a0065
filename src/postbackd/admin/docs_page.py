"""The documentation of the API as one page: made from its description, without scripts, readable on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from http import HTTPStatus
from typing import Any

from postbackd.admin.curl import curl_of
from postbackd.admin.endpoints import PREFIX, Endpoint

STYLE = """\
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: light-dark(#0b5394, #8ab8ff) }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
a { color: var(--accent) }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: 0 .75rem }
summary { cursor: pointer; padding: .5rem 0; overflow-wrap: anywhere }
summary span { display: block; opacity: .8 }
code, pre { font: 13px/1.5 ui-monospace, monospace }
pre { overflow-x: auto; background: var(--soft); padding: .5rem; border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 }
td, th { text-align: left; vertical-align: top; padding: .25rem .5rem .25rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere }
@media (max-width: 40rem) {
  thead { display: none } tr { display: block; border-bottom: 1px solid var(--line) } td { display: block; border: 0 }
}
"""

_INTRO = (
    "JSON over HTTP. Send a token as <code>Authorization: Bearer ...</code>; errors are "
    "<code>application/problem+json</code> with a sentence in <code>detail</code> that says what to do. Lists answer "
    "<code>items</code> and <code>next</code>: give that as <code>cursor</code> to see more. What answers an "
    "<code>ETag</code> takes it as <code>If-Match</code>, so that nobody's change is lost. Long work answers 202 and "
    'goes on as a job. The same as a file: <a href="/api/openapi.json">openapi.json</a>.'
)

_PROBLEMS: Mapping[int, str] = {
    400: "The request cannot be read: a parameter or a member that is not known, or of the wrong form.",
    401: "Nobody has signed in, or the token is none.",
    403: "Whoever asks may not do this.",
    404: "There is no such thing.",
    405: "This path does not take this method; the header Allow names those it takes.",
    409: "What is stored stands against it; the sentence says what to do first.",
    410: "It was used already, or its time is over.",
    412: "The catalog has changed since; look at it again, then change it.",
    413: "The body is too large.",
    415: "The body is of another type than the endpoint takes.",
    422: "It can be read, but it cannot be so; the field is named.",
    429: "Too many tries; Retry-After says when to try again.",
    500: "Something went wrong here; the log of the admin role says what.",
    503: "The database or the work behind it cannot be reached now; Retry-After says when to try again.",
}


def render(endpoints: Sequence[Endpoint], document: Mapping[str, Any]) -> str:
    """The page.  ``document``: the description of the same endpoints."""
    topics = list(dict.fromkeys(one.topic for one in endpoints))
    links = "".join(
        f'<a href="#{_slug(topic)}">{escape(topic)}</a>' for topic in [*topics, "Schemas", "Problems"]
    )
    body = "".join(
        f'<h2 id="{_slug(topic)}">{escape(topic)}</h2>'
        + "".join(_endpoint(one, document) for one in endpoints if one.topic == topic)
        for topic in topics
    )
    title = "The API of postbackd"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><link rel="stylesheet" href="/api/docs.css"></head><body><main>'
        f'<h1>{title}</h1><p>{_INTRO}</p><nav aria-label="Topics">{links}</nav>{body}'
        f'<h2 id="schemas">Schemas</h2>{"".join(_schemas(document))}'
        f'<h2 id="problems">Problems</h2>{"".join(_problems())}</main></body></html>'
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


def _endpoint(one: Endpoint, document: Mapping[str, Any]) -> str:
    operation = document["paths"][PREFIX + one.path][one.method.lower()]
    parts = [f"<p>{escape(operation.get('description', one.does))}</p>"]
    rights = "anybody may ask" if one.scope is None else f"needs the scope <b>{one.scope.value}</b>"
    parts.append(f"<p>Who: {rights}.</p>")
    if operation["parameters"]:
        rows = (
            (
                parameter["name"],
                _type(parameter["schema"]),
                _needed(parameter),
                parameter.get("description", ""),
            )
            for parameter in operation["parameters"]
        )
        parts.append("<h3>Parameters</h3>" + _table(("name", "value", "", "meaning"), rows))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<p>Body: <code>{escape(media)}</code>, {_type(content['schema'])}</p>")
    for status, response in operation["responses"].items():
        for media, content in response.get("content", {}).items():
            if status.startswith("2"):
                answer = f"{status}, <code>{escape(media)}</code>, {_type(content['schema'])}"
                parts.append(f"<p>Answer: {answer}</p>")
    problems = [status for status in operation["responses"] if not status.startswith("2")]
    links = ", ".join(f'<a href="#status-{status}">{status}</a>' for status in problems)
    parts.append(f"<p>Problems: {links}</p><pre>{escape(curl_of(one))}</pre>")
    head = f"<code><b>{one.method}</b> {PREFIX}{escape(one.path)}</code><span>{escape(one.does)}</span>"
    return f'<details id="{operation["operationId"]}"><summary>{head}</summary>{"".join(parts)}</details>'


def _needed(parameter: Mapping[str, Any]) -> str:
    return "required" if parameter.get("required") else ""


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, as HTML."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value)) or '(empty)'}</code>" for value in schema["enum"])
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    words = {
        "minimum": "from",
        "maximum": "to",
        "maxLength": "at most",
        "pattern": "like",
        "default": "default",
    }
    limits = [
        f"{word} <code>{escape(str(schema[key]))}</code>" for key, word in words.items() if key in schema
    ]
    return " ".join([escape(kind), *limits])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr><td><code>{escape(row[0])}</code></td><td>{row[1]}</td>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[2:])
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _schemas(document: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in sorted(document["components"]["schemas"].items()):
        needed = schema.get("required", ())
        rows = (
            (field, _type(its), "required" if field in needed else "", its.get("description", ""))
            for field, its in schema.get("properties", {}).items()
        )
        yield (
            f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code>'
            f"<span>{escape(schema.get('description', ''))}</span></summary>"
            f"{_table(('field', 'value', '', 'meaning'), rows)}</details>"
        )


def _problems() -> Iterator[str]:
    for status, meaning in _PROBLEMS.items():
        yield f'<p id="status-{status}"><b>{status} {HTTPStatus(status).phrase}</b>: {escape(meaning)}</p>'
