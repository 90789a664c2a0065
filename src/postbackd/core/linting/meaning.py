"""What a URL says: whether the click id goes the whole way, and whether each parameter means what it is used for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from postbackd.core.hops import mismatched_link, read_link
from postbackd.core.linting.form import NESTED
from postbackd.core.linting.kinds import HIDDEN_KEY, OWN_PATH, is_own, own_hosts
from postbackd.core.linting.records import Edit, Flaw, Kind, Known, Severity, flaw
from postbackd.core.linting.url_parts import Parameter, Parts
from postbackd.core.linting.words import field_of, names_of, words_of
from postbackd.core.macro_syntax import bare, syntax_of
from postbackd.core.macros import looks_like_macro
from postbackd.core.params import MAX_PARAMETERS

_ID_FIELD: Mapping[Kind, str] = {Kind.CLICK: "source_click_id", Kind.POSTBACK: "click_id"}
_TOLD_APART = frozenset({"click_id", "value", "transaction_id", "currency", "source_click_id", "cost"})
"""Fields for which the macro of another one is always wrong."""
_CENTS = re.compile(r"cents?(?![a-z])|minor_?units?", re.IGNORECASE)


def _append(parts: Parts, name: str, macro: str) -> Edit:
    """One more parameter at the end of the query."""
    at = parts.fragment_at
    joint = "?" if parts.query_at == at else "" if not parts.query or parts.query.endswith("&") else "&"
    return Edit(at, at, f"{joint}{name}={macro}")


def _macro_of(known: Known, field: str) -> str | None:
    return known.partner.fields.get(field) if known.partner else None


# --- the click id ---------------------------------------------------------------------------------------------


def find_id(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """Whether the id that everything hangs on is in the URL, alone in its parameter."""
    if not parts.scheme:
        return iter(())
    look = {
        Kind.OFFER: _find_id_of_offer,
        Kind.TARGET: _find_id_of_target,
        Kind.POSTBACK: _find_id_of_theirs,
        Kind.CLICK: _find_id_of_theirs,
    }
    return look[kind](parts, known, kind)


def _find_id_of_offer(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    carrying = [value for value in parts.values if any(macro.text == "{click_id}" for macro in value.macros)]
    theirs = _macro_of(known, "click_id")
    syntax = syntax_of(theirs or "")
    word = (theirs or "")[len(syntax.opener) : -len(syntax.closer)] if syntax else ""
    if not carrying and ("{click_id}" in parts.query or "{click_id}" in parts.fragment):
        return  # in a parameter that is encoded, such as the URL of a callback; or see find_fragment
    if not carrying:
        where = f"the parameter {word}" if word else "the sub id that the network hands back"
        yield flaw(
            "click_id_missing",
            (parts.path_at, parts.fragment_at),
            "The offer URL does not hand {click_id} on, so no conversion of this offer can ever be matched.",
            f"Put {{click_id}} into {where}.",
            _fill_or_add(parts, word),
            safe=bool(word),
        )
        return
    for value in carrying:
        yield from _not_alone(value, "{click_id}")
    named = [value for value in carrying if value.name]
    if not word or not named or any(bare(value.name) == bare(word) for value in carrying):
        return
    mismatch = mismatched_link(theirs, [read_link("this link", parts.text)])
    if mismatch is not None:
        yield flaw(
            "click_id_place",
            (named[0].start, named[0].end),
            f"The id is passed as {named[0].name}, and {_name(known)} is known to hand back {theirs}.",
            f"Pass it as {word}, or write the macro of {named[0].name} into the postback URL.",
            Edit(named[0].start, named[0].at - 1, word),
            severity=Severity.WARNING,
            safe=False,
        )


def _fill_or_add(parts: Parts, word: str) -> Edit | None:
    if not word:
        return None
    empty = next((one for one in parts.parameters if bare(one.name) == bare(word)), None)
    if empty is None:
        return _append(parts, word, "{click_id}")
    if empty.value:
        return None  # somebody put something else there
    return Edit(
        empty.start, empty.end, f"{parts.text[empty.start : empty.at].removesuffix('=')}={{click_id}}"
    )


def _name(known: Known) -> str:
    return known.partner.name if known.partner else "the network"


def _not_alone(value: Parameter, macro: str) -> Iterator[Flaw]:
    """Text around an id makes it another id; a piece of a path has its own rules."""
    if value.name and value.value != macro and not value.is_macro and not NESTED.match(value.value):
        yield flaw(
            "click_id_surrounded",
            (value.at, value.end),
            f"{macro} does not stand alone in {value.name}: it comes back with the text around it, and that is no id.",
            f"Write {value.name}={macro}, and the rest into another parameter.",
        )


def _find_id_of_target(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    macros = {macro.text for macro in parts.macros}
    preset = Parts(known.partner.target_url) if known.partner and known.partner.target_url else None
    wanted = (
        next((one.name for one in preset.parameters if one.value == "{source_click_id}"), "")
        if preset
        else ""
    )
    same_host = preset is not None and preset.host == parts.host
    if "{source_click_id}" in macros:
        carrying = next((one for one in parts.parameters if one.value == "{source_click_id}"), None)
        if same_host and wanted and carrying is not None and carrying.name != wanted:
            yield flaw(
                "click_id_place",
                (carrying.start, carrying.end),
                f"{_name(known)} is known to read its click id from {wanted}, not from {carrying.name}.",
                f"Name the parameter {wanted}.",
                Edit(carrying.start, carrying.at - 1, wanted),
                severity=Severity.WARNING,
                safe=False,
            )
        return
    ours = next((macro for macro in parts.macros if macro.text == "{click_id}"), None)
    if ours is not None:
        in_its_place = any(one.value == "{click_id}" and one.name == wanted for one in parts.parameters)
        yield flaw(
            "macro_misplaced",
            (ours.start, ours.end),
            "{click_id} is this server's id, and the source waits for its own.",
            "Write {source_click_id}, unless the receiver keeps ids of this server.",
            Edit(ours.start, ours.end, "{source_click_id}"),
            severity=Severity.ERROR if in_its_place else Severity.WARNING,
            safe=same_host and in_its_place,
        )
        return
    yield flaw(
        "click_id_missing",
        (parts.path_at, parts.fragment_at),
        "Nothing in it says which click it is about.",
        f"Add {f'{wanted}=' if wanted else ''}{{source_click_id}}, unless the body carries it.",
        _append(parts, wanted, "{source_click_id}") if wanted and same_host else None,
        severity=Severity.ERROR if same_host else Severity.WARNING,
        safe=wanted not in {one.name for one in parts.parameters},
    )


def _find_id_of_theirs(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """In a click or postback URL: what the source or network fills with the id."""
    field = _ID_FIELD[kind]
    macro = _macro_of(known, field)
    names = names_of(kind, known)
    if kind is Kind.CLICK and (macro is None or (known.partner and known.partner.appended)):
        return
    carrying = [one for one in parts.parameters if field_of(one, names) == field]
    elsewhere = [one for one in parts.values if macro is not None and one.value == macro]
    if not is_own(parts, kind):
        if not carrying and not elsewhere and not parts.macros:
            yield _missing(parts, kind, None, macro)
        return
    if not carrying:
        if any(field_of(one, names) is None for one in elsewhere if one.name):
            return  # see find_parameters
        name = names[field][0] if names[field] else field
        yield _missing(parts, kind, _append(parts, name, macro) if macro else None, macro)
    for one in carrying:
        yield from _look_at_id(one, kind, macro, known)


def _missing(parts: Parts, kind: Kind, edit: Edit | None, macro: str | None) -> Flaw:
    if kind is Kind.CLICK:
        cause = (
            "It does not hand in the source's click id, so the source cannot be told which click converted."
        )
    else:
        cause = "No parameter brings the click id back, so none of its postbacks can be matched."
    what = macro or "the macro of the sub id that carries {click_id}"
    severity = Severity.WARNING if kind is Kind.CLICK else Severity.ERROR
    fix = f"Add {edit.text.lstrip('?&')}." if edit else f"Add click_id= with {what}."
    return flaw("click_id_missing", (parts.path_at, parts.fragment_at), cause, fix, edit, severity=severity)


def _look_at_id(one: Parameter, kind: Kind, macro: str | None, known: Known) -> Iterator[Flaw]:
    place, who = (one.start, one.end), _name(known)
    if not one.value:
        edit = (
            Edit(one.at, one.at, macro if one.at > one.start + len(one.name) else f"={macro}")
            if macro
            else None
        )
        fix = f"Write {macro}." if macro else "Write the macro that fills it."
        yield flaw("click_id_missing", place, f"{one.name} is empty: {who} fills nothing there.", fix, edit)
    elif not one.macros and not looks_like_macro(one.value) and not re.search(r"[{}\[\]#%$<>]|__", one.value):
        yield flaw(
            "click_id_missing",
            place,
            f"{one.name} is always {one.value}: no macro stands there for {who} to fill.",
            f"Write {macro or 'its macro'}.",
            Edit(one.at, one.end, macro) if macro else None,
            safe=False,
        )
    elif one.macros and not one.is_macro and kind is Kind.POSTBACK:
        yield from _not_alone(one, one.macros[0].text)
    elif kind is Kind.POSTBACK and one.is_macro and _is_filled(one, known):
        mismatch = mismatched_link(one.macros[0].text, known.links)
        if mismatch is not None:
            fix = "Let both name the same sub id."
            yield flaw("click_id_place", place, mismatch, fix, severity=Severity.WARNING)


def _is_filled(one: Parameter, known: Known) -> bool:
    """Whether the network is known to fill the macro, so that it can be compared with links."""
    words, first = words_of(Kind.POSTBACK, known), one.macros[0]
    return words is not None and (words.holds(first) or words.has_sibling(first.word))


# --- parameters -----------------------------------------------------------------------------------------------


def find_parameters(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """Parameters that this server does not read, macros of another field, hundredths, two names for one field."""
    if not kind.is_theirs:
        for one in parts.parameters:
            if kind is Kind.TARGET and _CENTS.search(one.name) and one.value == "{value}":
                yield _in_cents(
                    (one.at, one.end), f"{one.name} wants hundredths, and {{value}} is in whole units."
                )
        return
    names, seen = names_of(kind, known), dict[str, str]()
    given = {field_of(one, names) for one in parts.parameters}
    for one in parts.parameters[:MAX_PARAMETERS]:  # more are refused as a whole
        field = field_of(one, names)
        if field is None:
            yield from _unread(parts, one, known, kind, given) if is_own(parts, kind) else ()
            continue
        yield from _of_another_field(one, field, known)
        before = seen.setdefault(field, one.name)
        if is_own(parts, kind) and before.lower() != one.name.lower():
            yield flaw(
                "field_twice",
                (one.start, one.end),
                f"{one.name} and {before} both mean {field}; one wins.",
                f"Keep the one that is right; {' wins over '.join(names[field][:3])}.",
                severity=Severity.WARNING,
            )


def _of_another_field(one: Parameter, field: str, known: Known) -> Iterator[Flaw]:
    partner = known.partner
    for macro in one.macros if partner else ():
        assert partner is not None
        right = partner.fields.get(field)
        edit = Edit(macro.start, macro.end, right) if right else None
        if macro.text in partner.in_cents and field in ("value", "cost"):
            yield _in_cents(
                (macro.start, macro.end),
                f"{macro.text} is an amount in hundredths: it would count a hundredfold.",
                edit,
            )
            continue
        meant = partner.macros.get(macro.text)
        if meant != field and meant in _TOLD_APART and field in _TOLD_APART and macro.text != right:
            yield flaw(
                "macro_of_other_field",
                (macro.start, macro.end),
                f"{macro.text} is {_in_words(meant)} of {partner.name}, and {one.name} is read as {_in_words(field)}.",
                f"Write {right}." if right else "Write the macro that belongs there.",
                edit,
                safe=False,
            )
        elif macro.text not in partner.macros and _CENTS.search(macro.word) and field in ("value", "cost"):
            yield _in_cents((macro.start, macro.end), f"By its name {macro.text} is an amount in hundredths.")


def _in_words(field: str | None) -> str:
    return f"the {(field or '').replace('_', ' ')}"


def _in_cents(place: tuple[int, int], cause: str, edit: Edit | None = None) -> Flaw:
    fix = f"Write {edit.text}." if edit else "Take a macro that is in whole units, such as 12.50."
    return flaw("cents", place, cause, fix, edit)


def _unread(parts: Parts, one: Parameter, known: Known, kind: Kind, given: set[str | None]) -> Iterator[Flaw]:
    """A parameter that no field claims; nearest to one that is missing, it is probably misspelt."""
    if one.name in known.asked:
        return
    names = names_of(kind, known)
    missing = {name: field for field, accepted in names.items() if field not in given for name in accepted}
    near = next((name for name in missing if bare(name) == bare(one.name)), None)
    by_macro = known.partner.macros.get(one.value) if known.partner else None
    edit_to = near
    if near is None and by_macro == _ID_FIELD[kind] and by_macro not in given and names[by_macro]:
        edit_to = near = names[by_macro][0]
    near = near or _nearest_name(one.name, missing)
    if near is None:
        severity, fix = Severity.ADVICE, "Map it to a field of the network or source, or leave it out."
    else:
        severity, fix = Severity.ERROR, f"Write {near}." if edit_to else f"Did you mean {near}?"
    yield flaw(
        "parameter_unknown",
        (one.start, one.end),
        f"No field reads the parameter {one.name}: it is counted and forgotten.",
        fix,
        Edit(one.start, one.start + _name_length(parts, one), near) if near else None,
        severity=severity,
        safe=edit_to is not None,
    )


def _name_length(parts: Parts, one: Parameter) -> int:
    written = parts.text[one.start : one.at]
    return len(written.removesuffix("="))


def _nearest_name(name: str, missing: Mapping[str, str]) -> str | None:
    digits = re.sub(r"[^0-9]", "", name)
    fitting = [other for other in missing if len(other) > 3 and re.sub(r"[^0-9]", "", other) == digits]
    near = get_close_matches(name.lower(), fitting, 1, 0.8)
    return near[0] if near else None


# --- whose --------------------------------------------------------------------------------------------------


def find_owner(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """Whether the host is this server's where it must be, and the key or campaign one that there is."""
    hosts, host = own_hosts(known), parts.authority.lower()
    place = (parts.host_at, parts.path_at)
    own = OWN_PATH.fullmatch(parts.path) if is_own(parts, kind) else None
    if own is None:
        if host in hosts:
            takes = "it takes clicks at /c/ and postbacks at /p/"
            what = takes if kind.is_theirs else "what is sent there comes back"
            cause = f"The host is this server: {what}."
            yield flaw("not_ours", place, cause, "Write the address that was meant.")
        return
    if parts.scheme and hosts and host not in hosts:
        yield flaw(
            "not_ours",
            place,
            f"The path is this server's, and the host is not: it is reached as {min(hosts)}.",
            "Write that host, unless this one leads here, too.",
            severity=Severity.WARNING,
        )
    start = parts.path_at + own.start(2)
    yield from _look_up(own[1], own[2], (start, start + len(own[2])), known)


def _look_up(letter: str, name: str, place: tuple[int, int], known: Known) -> Iterator[Flaw]:
    if letter == "c" and known.slugs is not None and name not in known.slugs:
        yield flaw(
            "address_unknown", place, f"There is no campaign {name!r}.", "See 'postbackd campaign list'."
        )
    if letter == "p" and known.keys is not None:
        owner = known.keys.get(name)
        if owner is None and name == HIDDEN_KEY:
            cause = "KEY stands for the key, which is shown to whoever may change the catalog."
            yield flaw("address_unknown", place, cause, "Write the key.", severity=Severity.ADVICE)
        elif owner is None:
            yield flaw(
                "address_unknown",
                place,
                "No network has this key.",
                "See 'postbackd network show NAME' for its URL.",
            )
        elif known.network is not None and owner != known.network:
            yield flaw(
                "address_unknown",
                place,
                f"This is the key of {owner!r}, not of {known.network!r}.",
                "Give each network its own URL.",
            )
