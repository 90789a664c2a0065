"""Requests to targets: written down with macros, taken apart once, filled for every delivery.

Our macros are ``{name}``; ``{account.NAME}`` is a secret of the target.  The macros of other systems (``{{x}}``,
``${x}``, ``[x]``, ``#x#`` …) pass through: they are text here.  So a template is never parsed as a URL; it is cut at
the separators that stand outside of macros, and values are percent-encoded for the place they are put in.

What is sent differs from what is written in two ways only.  Characters beyond ASCII are percent-encoded, and so is
``#``: HTTP never sends a fragment, what follows it would be lost.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from postbackd.core.click_id import stamp_ms, write_stamp
from postbackd.core.deliveries import Delivery, Message, Outgoing
from postbackd.core.macros import AUTHORITY_END, FORBIDDEN, HOST, LAST_PORT, SCHEME
from postbackd.core.model import How, RequestForm
from postbackd.core.moments import write_moment
from postbackd.core.money import write_micros
from postbackd.core.statuses import Status
from postbackd.core.templates import (
    ACCOUNT,
    KNOWN,
    Parameter,
    Place,
    TemplateError,
    Text,
    Values,
    compile_document,
    compile_parameters,
    compile_text,
    fill_document,
    fill_parameters,
    header_value,
    macros_in,
    path_value,
    split,
    tokenize,
    url_literal,
)

__all__ = [
    "KNOWN",
    "RequestTemplate",
    "TemplateError",
    "compile_form",
    "compile_forms",
    "convert_preset_url",
    "delivery_values",
    "placeholders_left",
]

METHODS = ("GET", "POST")
ON_EMPTY = ("drop", "empty")

_CONTENT_TYPES = {"form": "application/x-www-form-urlencoded", "json": "application/json"}
_FITTING_TYPE = {
    "form": re.compile(r"application/x-www-form-urlencoded\s*(?:;.*)?", re.IGNORECASE),
    "json": re.compile(r"application/(?:[a-z0-9.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE),
}
_OWN_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade"}
    | {"expect", "accept-encoding", "proxy-connection"}
)
"""They say how the message is framed and which answers can be read: that is the sender's business."""
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


# --- the presets' way of writing ------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"<([A-Z][A-Z0-9_]*)>")
_PRESET_MACROS = {
    "CLICK_ID": "{source_click_id}",
    "PAYOUT": "{value}",
    "CURRENCY": "{currency}",
    "GOAL": "{goal}",
    "TXID": "{transaction_id}",
    "STATUS": "{status}",
}


def convert_preset_url(pattern: str, given: Mapping[str, str] | None = None) -> str:
    """The ``postback_url`` of a preset with our macros: ``<CLICK_ID>`` is the source's id, ``<ACCOUNT_X>`` a secret.

    ``given``: what stands for other placeholders (``ADCASH_HOST``), a text or a macro of ours; the ones not given
    stay, see ``placeholders_left``.  Raises ``TemplateError`` for an API that is no postback URL.
    """
    if not SCHEME.match(pattern):
        raise TemplateError(
            f"{pattern!r} is not a postback URL but an API; make a target of that platform's kind"
        )

    def convert(found: re.Match[str]) -> str:
        return (given or {}).get(found[1]) or _macro_for(found[1]) or found[0]

    return _PLACEHOLDER.sub(convert, pattern)


def placeholders_left(text: str) -> tuple[str, ...]:
    """The ``<PLACEHOLDERS>`` in a text, without their brackets, each once.  Lower-case ones are foreign macros."""
    return tuple(dict.fromkeys(_PLACEHOLDER.findall(text)))


def _macro_for(placeholder: str) -> str:
    if placeholder.startswith("ACCOUNT_"):
        return "{" + ACCOUNT + placeholder.removeprefix("ACCOUNT_") + "}"
    return _PRESET_MACROS.get(placeholder, "")


def _refuse_placeholders(place: Place) -> None:
    first = _PLACEHOLDER.search(place.text)
    if first is None:
        return
    left = placeholders_left(place.text)
    advice = [f"for <{name}> write {_macro_for(name) or 'what it stands for'}" for name in left]
    if any(name.startswith("ACCOUNT_") for name in left):
        advice.append("give the account values with the target")
    what = f"not filled in: {', '.join(f'<{name}>' for name in left)}; {', '.join(advice)}"
    raise place.refuse_found(what, first)


# --- what a delivery says -------------------------------------------------------------------------------------


def delivery_values(delivery: Delivery, how: How, names: Mapping[str, str]) -> dict[str, str | None]:
    """Every macro value of a delivery, in the words of its target.

    ``names``: click_id, campaign, source, network and offer.  The times are those of the conversion, so that every
    attempt says the same.
    """
    owed, facts = delivery.owed, delivery.owed.facts
    at_ms = stamp_ms(owed.conversion_id)
    word = Status(owed.status).word
    return {
        "source_click_id": facts.source_click_id,
        "country": facts.country,
        **dict(zip((f"sub{n}" for n in range(1, 11)), facts.subs, strict=False)),
        "type": owed.type,
        "currency": owed.currency,
        "transaction_id": owed.transaction_id or None,
        "conversion_id": write_stamp(owed.conversion_id),
        "delivery_id": delivery.id,
        **names,
        "goal": how.types.get(owed.type, owed.type),
        "status": how.statuses.get(word, word),
        "value": write_micros(owed.value_micros),
        "timestamp": str(at_ms // 1000),
        "timestamp_ms": str(at_ms),
        "time": write_moment(at_ms),
    }


# --- requests -------------------------------------------------------------------------------------------------


class _Target(Struct, frozen=True):
    """A URL in parts."""

    origin: str
    """Scheme, host and port as they are sent."""
    host: str
    port: int
    path: Text
    query: tuple[Parameter, ...] | None


class RequestTemplate(Struct, frozen=True):
    """A request, ready to be filled."""

    method: str
    target: _Target
    headers: tuple[tuple[str, Text], ...]
    content_type: str
    """Empty when a header says it, or there is no body."""
    body: Any
    """``None``, parameters of a form, or a JSON document (see ``core.templates``)."""
    drop: bool

    @property
    def host(self) -> str:
        """Where it goes to, lower case; an IPv6 address without brackets."""
        return self.target.host

    @property
    def port(self) -> int:
        return self.target.port

    @property
    def macros(self) -> frozenset[str]:
        """The macros it holds, without those of the account."""
        return frozenset(name for name in self._names() if not name.startswith(ACCOUNT))

    @property
    def accounts(self) -> frozenset[str]:
        """The account values it needs."""
        return frozenset(name.removeprefix(ACCOUNT) for name in self._names() if name.startswith(ACCOUNT))

    def fill(self, values: Mapping[str, str | None], accounts: Mapping[str, str]) -> Outgoing:
        """The request that says these values; absent and ``None`` are empty.

        Whatever the values hold, host, path structure and parameter names stay as they were saved, and no text but
        the body has anything but printable ASCII.  Raises ``TemplateError`` for an account value that is missing.
        """
        return self._fill(Values(values, accounts, shown=False))

    def show(self, values: Mapping[str, str | None], accounts: Mapping[str, str]) -> Outgoing:
        """The same for people: ``(AID)`` stands for the account value ``AID``, whether it is known or not."""
        return self._fill(Values(values, accounts, shown=True))

    def _fill(self, values: Values) -> Outgoing:
        url = self.target.origin + self.target.path.fill(values, path_value)
        if self.target.query is not None:
            query = fill_parameters(self.target.query, values, drop=self.drop)
            url += "" if query is None else f"?{query}"
        headers = [("Content-Type", self.content_type)] if self.content_type else []
        for name, text in self.headers:
            value = text.fill(values, header_value)
            if value or not (self.drop and text.bare):
                headers.append((name, value))
        return Outgoing(self.method, url, tuple(headers), self._fill_body(values))

    def _fill_body(self, values: Values) -> bytes:
        if self.body is None:
            return b""
        if isinstance(self.body, tuple):
            return (fill_parameters(self.body, values, drop=self.drop) or "").encode("ascii")
        return msgspec.json.encode(fill_document(self.body, values, drop=self.drop))

    def _names(self) -> set[str]:
        return macros_in([self.target.path, self.target.query, [text for _, text in self.headers], self.body])


def compile_forms(
    forms: Mapping[str, RequestForm], on_empty: str, accounts: Collection[str]
) -> dict[str, RequestTemplate]:
    """The requests of a target by the word of their message.

    Raises ``TemplateError``, which says of which one it is, unless of a conversion: many targets have no other.
    """
    compiled = {}
    for word, form in forms.items():
        try:
            compiled[word] = compile_form(form, on_empty, accounts)
        except TemplateError as error:
            which = "" if word == Message.CONVERSION.word else f"of the {word}, "
            raise TemplateError(f"{which}{error}") from error
    return compiled


def compile_form(form: RequestForm, on_empty: str, accounts: Collection[str]) -> RequestTemplate:
    """Take a request apart.  ``accounts``: the names of the account values that the target has.

    Raises ``TemplateError`` for whatever cannot be sent or would not say what it looks like.
    """
    if form.method not in METHODS:
        raise TemplateError(f"the method {form.method!a} is not one of {' and '.join(METHODS)}")
    if on_empty not in ON_EMPTY:
        raise TemplateError(
            f"an empty parameter can be dropped or sent empty: {on_empty!a} is not 'drop' or 'empty'"
        )
    headers = _compile_headers(form, accounts)
    typed = any(name.lower() == "content-type" for name, _ in headers)
    return RequestTemplate(
        method=form.method,
        target=_compile_url(form.url, accounts),
        headers=headers,
        content_type="" if typed else _CONTENT_TYPES.get(form.body_type, ""),
        body=_compile_body(form, accounts),
        drop=on_empty == "drop",
    )


def _compile_url(url: str, accounts: Collection[str]) -> _Target:
    place = Place("the URL", url)
    _refuse_placeholders(place)
    scheme = SCHEME.match(url)
    if scheme is None:
        shown = "" if "@" in url else f" {url[:40]!a}"  # it may hold a password
        raise TemplateError(f"the URL{shown} must start with https:// or http://; write the whole address")
    end = len(url)
    found = AUTHORITY_END.search(url, scheme.end())
    if found is not None:
        end = found.start()
    _refuse_userinfo(place, scheme.end(), end)
    _refuse_forbidden(place)
    host, port = _read_authority(place, scheme.end(), end)
    if url[end : end + 1] == "#":
        raise place.refuse("a # right behind the host starts a fragment, which is never sent", end, end + 1)
    path, *query = split(tokenize(place, accounts, end), "?", 1)
    text = compile_text(path, url_literal)
    if not url.startswith("/", end):
        text = Text("/")
    secure = scheme[0].lower() == "https://"
    return _Target(
        origin=scheme[0].lower() + url[scheme.end() : end].lower(),
        host=host,
        port=port or (443 if secure else 80),
        path=text,
        query=compile_parameters(query[0]) if query else None,
    )


def _read_authority(place: Place, start: int, end: int) -> tuple[str, int]:
    """Host and port, 0 when there is none."""
    authority = place.text[start:end]
    if "{" in authority or "}" in authority:
        what = "a macro in the host; write the host out, macros go behind it"
        raise place.refuse(what, start, end)
    found = HOST.fullmatch(authority)
    if found is None or ".." in authority or not authority.isascii():
        what = "no usable host; write it like ads.example, letters beyond ASCII in their xn-- form"
        raise place.refuse(what, start, end)
    port = found[1]
    if port is not None and not 1 <= int(port) <= LAST_PORT:
        raise place.refuse(f"a port is a number from 1 to {LAST_PORT}", end - len(port), end)
    host = authority.removesuffix(f":{port}") if port else authority
    return host.strip("[]").lower(), int(port or 0)


def _refuse_userinfo(place: Place, start: int, end: int) -> None:
    """A password may hold what ends a host.  The place is told and not shown: the log is no place for passwords."""
    authority = place.text[start:end]
    cut_off = "@" in place.text[end:] and "{" not in authority and not HOST.fullmatch(authority)
    if "@" in authority or cut_off:
        what = "a user name or password before the host; take it away (a header can carry it)"
        raise TemplateError(f"{place.name}, position {start + 1}: {what}")


def _refuse_forbidden(place: Place) -> None:
    found = FORBIDDEN.search(place.text)
    if found is not None:
        raise place.refuse_found(
            "a character that must not stand here; percent-encode it (a space is %20)", found
        )


def _compile_body(form: RequestForm, accounts: Collection[str]) -> Any:
    if form.body_type not in ("", *_CONTENT_TYPES):
        raise TemplateError(
            f"the body type {form.body_type!a} is not 'form' or 'json', nor empty for no body"
        )
    if not form.body_type:
        if form.body:
            raise TemplateError("the request has a body but no body type; say 'form' or 'json'")
        return None
    if form.method == "GET":
        raise TemplateError("a GET request has no body; use POST, or put the parameters into the URL")
    place = Place("the body", form.body)
    _refuse_placeholders(place)
    if form.body_type == "json":
        return compile_document(form.body, accounts)
    _refuse_forbidden(place)
    return compile_parameters(tokenize(place, accounts))


def _compile_headers(form: RequestForm, accounts: Collection[str]) -> tuple[tuple[str, Text], ...]:
    seen: set[str] = set()
    headers = []
    for name, value in form.headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise TemplateError(f"{name!a} is not the name of a header; it has letters, digits and dashes")
        lower = name.lower()
        if lower in _OWN_HEADERS:
            raise TemplateError(f"the header {name} is set by the sender; leave it out")
        if lower in seen:
            raise TemplateError(f"the header {name} is there twice; write it once")
        if lower == "content-type":
            _check_content_type(form.body_type, value)
        seen.add(lower)
        headers.append((name, _compile_header(name, value, accounts)))
    return tuple(headers)


def _compile_header(name: str, value: str, accounts: Collection[str]) -> Text:
    place = Place(f"the header {name}", value)
    _refuse_placeholders(place)
    found = _CONTROL.search(value)
    if found is not None:
        raise place.refuse_found("a line break or control character; take it away", found)
    return compile_text(tokenize(place, accounts), header_value)


def _check_content_type(body_type: str, value: str) -> None:
    fitting = _FITTING_TYPE.get(body_type)
    if fitting is None:
        raise TemplateError("the request has a Content-Type but no body; leave the header out")
    if not fitting.fullmatch(value):
        raise TemplateError(
            f"the Content-Type {value!a} does not fit a body of type {body_type}; leave it out"
        )
