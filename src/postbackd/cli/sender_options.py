"""The options of ``postbackd network add`` and ``set`` that say who may send."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from secrets import token_urlsafe
from typing import Any

import click
from msgspec import Struct
from msgspec.structs import replace

from postbackd.cli.account_values import ask_values, read_value, seal_values
from postbackd.cli.options import as_duration
from postbackd.core.client_address import write_range
from postbackd.core.model import Network
from postbackd.core.sender_rules import hash_token
from postbackd.core.senders import STEPS, Mode, Scheme, Secret, Senders, Token, modes
from postbackd.presets import find_signing, load_signings
from postbackd.settings import Settings
from postbackd.store.sealed import SENDER_SECRET

TOKEN_BYTES = 32
SECRET_BYTES = 32
_LONGEST_SECRET = 1024

_SPELLED = re.compile(r"(?P<keyed>hmac-)?(?P<hash>md5|sha1|sha256|sha512):(?P<template>.+)", re.IGNORECASE)
_OVER_ALL = re.compile(r"(?P<kind>url|query):(?P<hash>md5|sha1|sha256|sha512)", re.IGNORECASE)

_STEP = click.Choice([*STEPS, "all"])

_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--token/--no-token",
        "token",
        default=None,
        help="Have a token made, which is shown once; or take all tokens away.",
    ),
    click.option(
        "--allow-ip",
        "allowed",
        multiple=True,
        metavar="ADDRESS",
        help="An address or range it sends from, such as 203.0.113.0/24 or 2001:db8::/48; added to the list.",
    ),
    click.option(
        "--forbid-ip",
        "forbidden",
        multiple=True,
        metavar="ADDRESS",
        help="Take one off that list; 'all' of them.",
    ),
    click.option(
        "--signature",
        metavar="SCHEME",
        help="How it signs: hmac (our own), the name of a known sender, HASH:TEMPLATE such as "
        "md5:{sub_id}{txid}{secret}, hmac-HASH:TEMPLATE, url:HASH, query:HASH, or none.",
    ),
    click.option("--signature-parameter", metavar="NAME", help="The parameter that holds the signature."),
    click.option(
        "--signed-url",
        metavar="URL",
        help="For url:HASH: what the addresses begin with that the network calls.  [default: as in its postback URL]",
    ),
    click.option(
        "--window",
        "window_s",
        callback=as_duration,
        metavar="TIME",
        help="How far a signed time may be from ours.  [default: 300s]",
    ),
    click.option(
        "--secret",
        metavar="SECRET",
        help="The signing secret that the network gave you; sealed at once. Others on this machine can read a command "
        "line: write - to be asked for it, or to have a line of standard input read. With hmac one is made.",
    ),
    click.option(
        "--observe",
        "observed",
        multiple=True,
        type=_STEP,
        help="Refuse nobody at this step, but note what it would refuse; how a step begins.",
    ),
    click.option(
        "--enforce", "enforced", multiple=True, type=_STEP, help="Refuse whoever fails at this step."
    ),
    click.option("--off", "left_out", multiple=True, type=_STEP, help="Do not look at this step."),
    click.option(
        "--pixel",
        type=click.Choice(["checked", "open"]),
        help="Whether the browser pixel has to pass the steps too; browsers cannot.  [default: checked]",
    ),
)

NAMES = (
    *(
        "token",
        "allowed",
        "forbidden",
        "signature",
        "signature_parameter",
        "signed_url",
        "window_s",
        "secret",
    ),
    *("observed", "enforced", "left_out", "pixel"),
)
"""The arguments that these options become."""


def sender_options(command: Any) -> Any:
    """The options that ``add`` and ``set`` share; ``None`` and an empty list are not given."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class Made(Struct, frozen=True):
    """What was made and is shown this once."""

    token: str = ""
    secret: str = ""

    def document(self) -> dict[str, str]:
        """What there is of it."""
        found = {"token": self.token, "signing_secret": self.secret}
        return {name: text for name, text in found.items() if text}

    def print(self) -> None:
        """For people."""
        if self.token:
            click.echo(
                "\nThe token, which is not shown again; the network sends it as token=, or in the header "
                f"X-Postback-Token:\n\n  {self.token}\n"
            )
        if self.secret:
            click.echo(f"\nThe signing secret, which is not shown again:\n\n  {self.secret}\n")


def change_senders(
    network: Network, options: Mapping[str, Any], settings: Settings, base: str
) -> tuple[Senders, Made]:
    """Who may send, with the given options applied; not checked yet."""
    senders, token = _change_token(network.senders, options["token"])
    senders = _change_ips(senders, options["allowed"], options["forbidden"])
    senders, secret = _change_signature(senders, options, settings, base)
    if options["pixel"] is not None:
        senders = replace(senders, pixel=options["pixel"])
    wanted: tuple[tuple[Mode, Sequence[str]], ...] = (
        ("off", options["left_out"]), ("observe", options["observed"]), ("enforce", options["enforced"]),
    )  # fmt: skip
    for mode, steps in wanted:
        senders = set_modes(senders, steps, mode)
    return senders, Made(token, secret)


def set_modes(senders: Senders, steps: Sequence[str], mode: Mode) -> Senders:
    """The ladder with these steps in this mode; ``all``: of every step that is looked at, or can be."""
    if "all" in steps:
        has = {"token": senders.tokens, "ip": senders.ips, "signature": senders.secrets}
        steps = [step for step in STEPS if has[step] or mode == "off"]
    return replace(senders, **{f"{step}_mode": mode for step in steps})


def _begin(senders: Senders, step: str) -> Senders:
    """A step that has just been given what it needs is observed first."""
    return set_modes(senders, [step], "observe") if modes(senders)[step] == "off" else senders


def _change_token(senders: Senders, wanted: bool | None) -> tuple[Senders, str]:
    if wanted is None:
        return senders, ""
    if not wanted:
        return replace(senders, tokens=(), token_mode="off"), ""  # noqa: S106 - a mode
    if any(not token.until_ms for token in senders.tokens):
        raise click.UsageError("there is a token; replace it with 'postbackd network rotate NAME token'")
    made = make_token()
    return _begin(replace(senders, tokens=(Token(hash_token(made)),)), "token"), made


def make_token() -> str:
    """A new token: 256 random bits."""
    return f"pbt_{token_urlsafe(TOKEN_BYTES)}"


def make_secret() -> str:
    """A new signing secret of our own scheme."""
    return f"pbs_{token_urlsafe(SECRET_BYTES)}"


def _change_ips(senders: Senders, allowed: Sequence[str], forbidden: Sequence[str]) -> Senders:
    try:
        added = [write_range(part) for text in allowed for part in text.split(",")]
        gone = {write_range(part) for text in forbidden for part in text.split(",") if part != "all"}
    except ValueError as error:
        raise click.UsageError(f"--allow-ip or --forbid-ip: {error}") from error
    kept = () if "all" in forbidden else senders.ips
    unknown = sorted(gone - set(kept))
    if unknown:
        raise click.UsageError(
            f"--forbid-ip {unknown[0]}: it is not on the list ({', '.join(kept) or 'empty'})"
        )
    ips = tuple(dict.fromkeys([ip for ip in kept if ip not in gone] + added))
    senders = replace(senders, ips=ips)
    return _begin(senders, "ip") if added else senders


def _change_signature(
    senders: Senders, options: Mapping[str, Any], settings: Settings, base: str
) -> tuple[Senders, str]:
    wanted = options["signature"]
    if wanted is not None and wanted.casefold() == "none":
        return replace(senders, scheme=None, secrets=(), signature_mode="off"), ""
    scheme = senders.scheme if wanted is None else read_scheme(wanted)
    changes = {"parameter": options["signature_parameter"], "base": options["signed_url"]}
    changes["window_s"] = options["window_s"]
    changes = {field: value for field, value in changes.items() if value is not None}
    if scheme is None:
        if changes or options["secret"] is not None:
            raise click.UsageError("it is not said how the network signs; add --signature, such as hmac")
        return senders, ""
    if scheme.kind == "url" and not scheme.base:
        changes.setdefault("base", base)
    before = senders.scheme
    if before is None or before.kind != scheme.kind:  # another secret, and not trusted blindly
        senders = replace(senders, secrets=(), signature_mode="off")
    senders = replace(senders, scheme=replace(scheme, **changes))
    given, made = options["secret"], ""
    if given is None and not senders.secrets:
        if scheme.kind == "request":
            given = made = make_secret()
        else:
            given = ask_values(["SECRET"], "--secret", hidden=True)["SECRET"]
    if given is not None:
        senders = replace(senders, secrets=(Secret(seal_secret(given, settings)),))
    return _begin(senders, "signature"), made


def seal_secret(given: str, settings: Settings) -> str:
    """A signing secret as it is stored; ``-`` is read first."""
    secret = read_value("the signing secret") if given == "-" else given
    if not 1 <= len(secret) <= _LONGEST_SECRET or not secret.isprintable():
        raise click.UsageError(
            f"--secret: 1 to {_LONGEST_SECRET} printable characters (it is not shown here)"
        )
    return seal_values({"secret": secret}, settings, SENDER_SECRET)["secret"]


def read_scheme(text: str) -> Scheme:
    """The scheme that a text names or spells."""
    known = find_signing(text)
    if known is not None:
        return known.scheme
    if spelled := _SPELLED.fullmatch(text.strip()):
        hash_: Any = spelled["hash"].lower()
        return Scheme(
            kind="fields", hash=hash_, keyed=spelled["keyed"] is not None, template=spelled["template"]
        )
    if over := _OVER_ALL.fullmatch(text.strip()):
        kind: Any = over["kind"].lower()
        of_url: Any = over["hash"].lower()
        return Scheme(kind=kind, hash=of_url)
    names = ", ".join(one.id for one in load_signings())
    raise click.UsageError(
        f"--signature {text!r} is not known; known are {names}, and HASH:TEMPLATE, hmac-HASH:TEMPLATE, url:HASH, "
        "query:HASH with md5, sha1, sha256 or sha512"
    )
