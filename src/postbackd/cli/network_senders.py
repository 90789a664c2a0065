"""``postbackd network rotate`` and ``sign``: replace what a network shows, and try it out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

import click
from msgspec.structs import replace

from postbackd.cli.catalog import check_arguments, find_entry, read_pairs
from postbackd.cli.entries import make_key
from postbackd.cli.options import as_duration, as_json, now_ms, takes_settings
from postbackd.cli.sender_options import Made, make_secret, make_token, seal_secret
from postbackd.cli.session import Session, base_url, print_json, visit
from postbackd.core.model import Network
from postbackd.core.sender_rules import hash_token
from postbackd.core.senders import FormerKey, Secret, Senders, Token
from postbackd.core.signature import HEADER, Signed, sign
from postbackd.reports.period import write_moment
from postbackd.runtime import open_secrets
from postbackd.settings import Settings
from postbackd.store.sealed import SENDER_SECRET

WHAT = ("key", "token", "secret")


@click.command("rotate")
@click.argument("name")
@click.argument("what", type=click.Choice(WHAT))
@click.option(
    "--overlap",
    "overlap_s",
    callback=as_duration,
    default="7d",
    show_default=True,
    metavar="TIME",
    help="How long the former one is still good.",
)
@click.option("--end-former", is_flag=True, help="Make nothing new; end the former one now.")
@click.option(
    "--secret", metavar="SECRET", help="The new signing secret, if the network made it; - reads it."
)
@as_json
@takes_settings("data", "store", "public_url", "secret_key")
def rotate(
    name: str,
    what: str,
    overlap_s: int,
    end_former: bool,
    secret: str | None,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Replace a network's key, token or signing secret; the former one is good for a while."""
    if secret is not None and (what != "secret" or end_former):
        raise click.UsageError("--secret is for: network rotate NAME secret")
    now = now_ms()

    async def work(session: Session) -> tuple[Network, Made]:
        entry = find_entry((await session.load()).networks, name, "network")
        if end_former:
            entry, made = replace(entry, senders=_end_former(entry.senders, what)), Made()
        else:
            entry, made = _rotate(entry, what, now, now + overlap_s * 1000, secret, settings)
        check_arguments(entry)
        (saved,) = await session.change([entry])
        assert isinstance(saved, Network)
        return saved, made

    saved, made = visit(settings, work)
    former = [] if end_former else [write_moment(now + overlap_s * 1000)]
    document = {"name": saved.name, **made.document()}
    if what == "key":
        document["key"] = saved.key
        document["postback_url"] = f"{base_url(settings)}/p/{saved.key}"
    if json_wanted:
        print_json({**document, "former_until": former[0] if former else None})
        return
    made.print()
    if what == "key" and not end_former:
        click.echo(f"its postback URLs now begin with:\n\n  {document['postback_url']}\n")
    click.echo(
        f"the former {what} is good until {former[0]}" if former else f"only the current {what} is good now"
    )


def _end_former(senders: Senders, what: str) -> Senders:
    if what == "key":
        return replace(senders, former_keys=())
    if what == "token":
        return replace(senders, tokens=tuple(one for one in senders.tokens if not one.until_ms))
    return replace(senders, secrets=tuple(one for one in senders.secrets if not one.until_ms))


def _rotate(
    entry: Network, what: str, now: int, until_ms: int, given: str | None, settings: Settings
) -> tuple[Network, Made]:
    senders = entry.senders
    if what == "key":
        _refuse_third(senders.former_keys, what, entry.name, now)
        former = (FormerKey(entry.key, until_ms),)
        return replace(entry, key=make_key(), senders=replace(senders, former_keys=former)), Made()
    if what == "token":
        _refuse_third(senders.tokens, what, entry.name, now)
        current = [one for one in senders.tokens if not one.until_ms]
        if not current:
            raise click.ClickException(
                f"network {entry.name!r} has no token; make one: {_set(entry, '--token')}"
            )
        made = make_token()
        tokens = (Token(hash_token(made)), *(replace(one, until_ms=until_ms) for one in current))
        return replace(entry, senders=replace(senders, tokens=tokens)), Made(token=made)
    _refuse_third(senders.secrets, what, entry.name, now)
    if senders.scheme is None:
        raise click.ClickException(
            f"network {entry.name!r} does not sign; begin with: {_set(entry, '--signature hmac')}"
        )
    if given is None and senders.scheme.kind != "request":
        raise click.UsageError("the network makes this secret; give it with --secret -")
    made = make_secret() if given is None else ""
    sealed = Secret(seal_secret(given or made, settings))
    old = (replace(one, until_ms=until_ms) for one in senders.secrets if not one.until_ms)
    return replace(entry, senders=replace(senders, secrets=(sealed, *old))), Made(secret=made)


def _refuse_third(entries: Sequence[Any], what: str, name: str, now: int) -> None:
    """Whoever still uses the former one must not be cut off by accident."""
    for one in entries:
        if one.until_ms > now:
            end = shlex.join(["postbackd", "network", "rotate", name, what, "--end-former"])
            raise click.ClickException(
                f"the former {what} is good until {write_moment(one.until_ms)}, and two at a time are enough; "
                f"end it first: {end}"
            )


def _set(entry: Network, option: str) -> str:
    return f"postbackd network set {shlex.quote(entry.name)} {option}"


# --- trying it out -----------------------------------------------------------------------------------------------


@click.command("sign")
@click.argument("name")
@click.option(
    "--param", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the postback."
)
@click.option("--body", metavar="TEXT", default="", help="A body; makes it a POST.")
@click.option("--as-parameters", is_flag=True, help="Put an hmac signature into the URL instead of a header.")
@as_json
@takes_settings("data", "store", "public_url", "secret_key")
def sign_postback(
    name: str,
    parameters: Sequence[str],
    body: str,
    as_parameters: bool,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Print a curl line for a postback with a valid signature, to try a network's ladder out.

    The token is not in it, because nobody knows it any more: put it in the place of TOKEN.
    """
    entry = visit(settings, lambda session: _find(session, name))
    query = urlencode(read_pairs(parameters, "--param", "NAME=VALUE"), quote_via=quote)
    line = _curl(entry, settings, query, body, as_parameters)
    if json_wanted:
        print_json({"curl": line})
    else:
        click.echo(line)


async def _find(session: Session, name: str) -> Network:
    return find_entry((await session.load()).networks, name, "network")


def _curl(entry: Network, settings: Settings, query: str, body: str, as_parameters: bool) -> str:
    scheme, headers = entry.senders.scheme, []
    path, method = f"/p/{entry.key}", "POST" if body else "GET"
    if scheme is not None:
        try:
            secret = open_secrets(settings, SENDER_SECRET)(entry.senders.secrets[0].sealed)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        time_text = str(now_ms() // 1000) if scheme.kind == "request" else ""
        signature = sign(scheme, Signed(method, path, query, body.encode()), secret, time_text)
        if signature is None:
            raise click.UsageError(f"the signature covers {scheme.template}; give each with --param")
        if scheme.kind == "request" and not as_parameters:
            headers.append(f"{HEADER}: t={time_text},v1={signature}")
        elif scheme.header:
            headers.append(f"{scheme.header}: {signature}")
        else:
            more = {"sig_time": time_text} if time_text else {}
            query = "&".join(filter(None, [query, urlencode({**more, scheme.parameter: signature})]))
    if entry.senders.token_mode != "off":  # noqa: S105 - a mode
        headers.append("x-postback-token: TOKEN")
    address = f"{base_url(settings)}{path}" + (f"?{query}" if query else "")
    words = ["curl", "-i", *(word for header in headers for word in ("-H", header))]
    words += ["--data-raw", body] if body else []
    return shlex.join([*words, address])
