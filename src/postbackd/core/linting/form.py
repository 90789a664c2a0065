"""The form of a URL: scheme, host, separators, fragment, encoding, doubled parameters, size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import quote, unquote, unquote_to_bytes

from postbackd.core.addresses import Allowed
from postbackd.core.linting.kinds import is_own
from postbackd.core.linting.records import Edit, Flaw, Kind, Known, Severity, flaw
from postbackd.core.linting.url_parts import Parameter, Parts
from postbackd.core.macros import HOST, LAST_PORT, SCHEME
from postbackd.core.params import MAX_PARAMETERS

SMALL_BYTES = 200
"""What operators are told to keep the parameters of a request below, so that every hop carries them."""
FEW_PARAMETERS = 10

_NEAR_SCHEME = re.compile(r"(https?)(?::/?|//|:/{3,}|:/{1,2}(?=https?:/))(?=[A-Za-z0-9\[])", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:(?![0-9])")
_LOCAL = re.compile(r"localhost|.*\.(?:localhost|local|internal|lan|home|corp|test|invalid)|[^.:\[\]]+")
_NAMED = re.compile(r"[&?]([A-Za-z_][\w.\-]*)=", re.ASCII)
NESTED = re.compile(r"https?(?::|%(?:25)*3A)", re.IGNORECASE)
"""How a value begins that is a URL of its own."""
_TWICE = re.compile(r"(?:%(?:25)+[0-9A-Fa-f]{2})+")
_MORE_THAN_ONCE = re.compile(r"%(?:25)+(?=[0-9A-Fa-f]{2})")
_BARE = re.compile(r"[\x00-\x20\x7f-\x9f\"<>\\^`|\ud800-\udfff\u00a0\u3000]|%(?![0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9\-._~]+")


# --- scheme and host ------------------------------------------------------------------------------------------


def find_scheme(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """No scheme, or one that is misspelt or is none of the web."""
    text = parts.text
    if parts.scheme and not _NEAR_SCHEME.match(text):
        return
    near = _NEAR_SCHEME.match(text)
    start, end, edit, safe = 0, min(len(text), 8), None, False
    cause, fix = "It does not begin with https://, so nothing can call it.", "Write the whole address."
    if near is not None:
        last, end = near, near.end()
        while (again := _NEAR_SCHEME.match(text, end)) is not None:
            last, end = again, again.end()
        edit, safe = Edit(0, end, "" if SCHEME.match(text, end) else f"{last[1].lower()}://"), True
        cause, fix = f"{text[:end]!a} is no scheme of the web.", "Begin it with https:// once."
    elif (other := _OTHER_SCHEME.match(text)) is not None:
        end, cause = other.end(), f"{other[0]!a} is no scheme that visitors and networks call."
    elif parts.host_at < parts.path_at:
        base = next((base for base in known.bases if base.endswith(f"//{parts.authority.lower()}")), None)
        edit = Edit(0, parts.host_at, f"{base.partition('//')[0]}//" if base else "https://")
        end, safe = parts.path_at, base is not None
        cause = "It has no scheme, so what it is depends on the page where it stands."
        fix = f"Begin it with {edit.text}."
    yield flaw("scheme", place=(start, end), cause=cause, fix=fix, edit=edit, safe=safe)


def find_http(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """``http``: mended where it is known that the host answers ``https``; a preset may know it by ``http`` alone."""
    if parts.scheme != "http":
        return
    secure = {base.removeprefix("https://").lower() for base in known.bases if base.startswith("https://")}
    theirs = known.partner.target_url if known.partner else ""
    documented = Parts(theirs)
    if documented.scheme == "https":
        secure.add(documented.authority.lower())
    as_documented = documented.scheme == "http" and documented.host == parts.host != ""
    safe = parts.authority.lower() in secure
    who = known.partner.name if known.partner else "the host"
    if as_documented:
        cause = (
            f"{who} is known by this address with http alone, which everybody on the way can read and change."
        )
    else:
        cause = "Everybody on the way can read and change what goes over http."
    yield flaw(
        "not_https",
        severity=Severity.ADVICE if as_documented else Severity.WARNING,
        place=(0, parts.host_at),
        cause=cause,
        fix="Write https://."
        if safe
        else "Write https:// if the host answers it: open it in a browser once.",
        edit=Edit(0, 4, "https"),
        safe=safe,
    )


def find_host(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """A host that cannot be one."""
    if not parts.scheme or _NEAR_SCHEME.match(parts.text):
        return
    authority = parts.authority
    cause = fix = ""
    if "@" in authority:
        cause = "A user name or password stands before the host, where browsers and logs show it."
        fix = "Take everything up to the @ away; a header can carry it."
    elif re.search(r"[{}\[\]<>$%#]", re.sub(r"\[[0-9A-Fa-f:.]+\]", "", authority)):
        cause, fix = "The host holds a macro, and hosts are never filled.", "Write the host out."
    elif not authority.isascii():
        cause, fix = "The host has letters beyond ASCII.", "Write it in its xn-- form."
    else:
        host = HOST.fullmatch(authority)
        if host is None or ".." in authority or not 0 < int(host[1] or "1") <= LAST_PORT:
            cause, fix = "This is no usable host.", "Write it like track.example.com."
    if cause:
        yield flaw(
            "host",
            place=(parts.host_at, parts.path_at),
            cause=cause,
            fix=fix,
        )


def find_local(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """A host that nobody else can reach."""
    if parts.scheme and HOST.fullmatch(parts.authority) and is_local(parts.host):
        yield flaw(
            "host_local",
            severity=Severity.WARNING,
            place=(parts.host_at, parts.path_at),
            cause="Nobody beyond this machine or its network can reach the host.",
            fix="Write the name under which it is reached from outside (the setting public_url).",
        )


def is_local(host: str) -> bool:
    """Whether a host is known on this machine or network alone."""
    bare_host = host.strip("[]")
    try:
        return bool(Allowed().refusal(str(ip_address(bare_host)), 443))
    except ValueError:
        return _LOCAL.fullmatch(bare_host) is not None


# --- separators and fragment ----------------------------------------------------------------------------------


def find_separators(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """``/p/KEY&a=1`` and ``?a=1?b=2``; a ``?`` inside of a nested URL is that URL's."""
    in_path = _NAMED.search(parts.path)
    if in_path is not None and parts.query_at == parts.fragment_at and in_path[0][0] == "&":
        yield _separator(parts.path_at + in_path.start(), "&", "?", "No ? stands before the first parameter")
    if "=" not in parts.query and re.search(r"%3D", parts.query, re.IGNORECASE):
        start, end = parts.query_at + 1, parts.fragment_at
        yield flaw(
            "separator",
            place=(start, end),
            cause="The whole query is percent-encoded, so that it is one name without a value.",
            fix="Leave = and & as they are, and encode values alone.",
            edit=Edit(start, end, unquote(parts.query)),
            safe=not re.search(r"%25", parts.query),
        )
    for parameter in parts.parameters:
        if NESTED.match(parameter.value):
            continue
        for found in _NAMED.finditer(parameter.value):
            place = parameter.at + found.start()
            yield _separator(place, "?", "&", "A second ? does not separate parameters")


def _separator(place: int, was: str, should: str, cause: str) -> Flaw:
    return flaw(
        "separator",
        place=(place, place + 1),
        cause=f"{cause}, so what follows is part of what stands before it.",
        fix=f"Write {should} in the place of {was}.",
        edit=Edit(place, place + 1, should),
        safe=True,
    )


def find_fragment(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """What stands behind ``#`` stays in the browser.  ``#x#`` macros are none (see ``core.macro_syntax``)."""
    at, end = parts.fragment_at, len(parts.text)
    if at == end:
        return
    fragment = parts.fragment
    names = [pair.partition("=")[0] for pair in fragment.split("&")] if "=" in fragment else []
    carries = bool(names) or any(macro.start >= at for macro in parts.macros)
    movable = bool(names) and all(re.fullmatch(r"[\w.\-]+", name, re.ASCII) for name in names)
    id_is_lost = "{click_id}" in fragment and "{click_id}" not in parts.text[:at]
    loses = carries and (
        kind is not Kind.OFFER or id_is_lost
    )  # the page of an offer may read a fragment itself
    edit, safe, fix = None, False, "Put parameters before the #, or take it away."
    if movable and "#" not in fragment:
        joint = "&" if parts.query else "" if parts.query_at < at else "?"
        edit, fix = Edit(at, at + 1, joint), f"Write {joint or 'nothing'} in the place of #."
        safe = kind is Kind.POSTBACK or (kind is Kind.CLICK and _are_ours(names, known))
    elif not carries and kind is Kind.POSTBACK:
        edit, safe, fix = Edit(at, end, ""), True, "Take it away."
    yield flaw(
        "fragment",
        severity=Severity.ERROR if loses else Severity.WARNING,
        place=(at, end),
        cause=(
            "Parameters behind # never reach a server."
            if carries
            else "What stands behind # never reaches a server."
        ),
        fix=fix,
        edit=edit,
        safe=safe,
    )


def _are_ours(names: list[str], known: Known) -> bool:
    accepted = {name for names in known.names.get(Kind.CLICK, {}).values() for name in names}
    return all(name in accepted for name in names)


# --- encoding -------------------------------------------------------------------------------------------------


def find_double_encoding(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """``%2520``: a value that was encoded twice arrives encoded.  Inside of a nested URL that is right."""
    for value in parts.values:
        nested = NESTED.match(value.value)
        if nested is not None and "%25" not in nested[0]:
            continue
        if nested is None and re.search(r"%(?!25)[0-9A-Fa-f]{2}", value.value):
            continue  # some of it is encoded once: then %25 is a percent sign that was meant
        for found in _TWICE.finditer(value.value):
            if _is_encoding(_MORE_THAN_ONCE.sub("%", found[0])):
                place, once = value.at + found.start(), _MORE_THAN_ONCE.sub("%", found[0])
                yield flaw(
                    "double_encoding",
                    severity=Severity.WARNING,
                    place=(place, value.at + found.end()),
                    cause=f"{found[0]} was encoded twice: it arrives as {once}.",
                    fix="Encode it once.",
                    edit=Edit(place, value.at + found.end(), once),
                )


def _is_encoding(escapes: str) -> bool:
    """Whether the escapes are what an encoder writes: UTF-8, of characters that need it."""
    try:
        text = unquote_to_bytes(escapes).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return not _UNRESERVED.search(text)


def find_unencoded(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """Characters that must not stand in a URL (RFC 3986); those of macros are no part of it."""
    for found in _BARE.finditer(parts.text, parts.path_at):
        if parts.is_inside(found.start()):
            continue
        written = quote(found[0].encode("utf-8", "replace"), safe="")
        percent = found[0] == "%"
        yield flaw(
            "unencoded",
            severity=Severity.WARNING,
            place=(found.start(), found.end()),
            cause=(
                "A % that is followed by no two hexadecimal digits stands for nothing."
                if percent
                else f"{found[0]!a} must not stand in a URL as it is; some send it, some cut the URL there."
            ),
            fix=f"Write {written}.",
            edit=Edit(found.start(), found.end(), written),
            safe=not percent and found[0] != "\\",
        )


# --- twice, and too much --------------------------------------------------------------------------------------


def find_twice(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """The same parameter twice: receivers differ in which of them they take."""
    first: dict[str, Parameter] = {}
    for parameter in parts.parameters:
        name = parameter.name.lower() if is_own(parts, kind) else parameter.name
        if name.endswith("[]") or not name:
            continue
        before = first.setdefault(name, parameter)
        if before is parameter:
            continue
        same = before.value == parameter.value
        taken = (
            "This server takes the first"
            if is_own(parts, kind)
            else "Which one counts is the receiver's choice"
        )
        yield flaw(
            "twice",
            severity=Severity.WARNING,
            place=(parameter.start, parameter.end),
            cause=f"The parameter {parameter.name!a} is there twice. {taken}.",
            fix="Take the second one away." if same else "Keep the one that is right.",
            edit=Edit(parameter.start - 1, parameter.end, "") if same else None,
            safe=same,
        )


def find_size(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """More than hops are sure to carry, or than this server reads."""
    size, count = len(parts.query.encode("utf-8", "replace")), len(parts.parameters)
    if size > SMALL_BYTES:
        cause = (
            f"The parameters have {size} bytes as they are written; over {SMALL_BYTES} some hop may cut them."
        )
        yield _too_much(parts, "long", Severity.ADVICE, cause)
    if is_own(parts, kind) and count > MAX_PARAMETERS:
        cause = f"It has {count} parameters, and this server reads {MAX_PARAMETERS}."
        yield _too_much(parts, "many", Severity.ERROR, cause)
    elif count > FEW_PARAMETERS:
        cause = f"It has {count} parameters; over {FEW_PARAMETERS} some hop may drop some."
        yield _too_much(parts, "many", Severity.ADVICE, cause)


def _too_much(parts: Parts, check: str, severity: Severity, cause: str) -> Flaw:
    return flaw(
        check,
        severity=severity,
        place=(parts.query_at, parts.fragment_at),
        cause=cause,
        fix="Leave out what no report is grouped by.",
    )
