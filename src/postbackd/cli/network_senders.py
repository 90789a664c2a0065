"""``postbackd network rotate`` and ``sign``: replace what a network shows, and try it out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from urllib.parse import quote, urlencode

import click

from postbackd.catalog import senders
from postbackd.catalog.documents import find_entry
from postbackd.catalog.entries import check_entry
from postbackd.catalog.senders import Made
from postbackd.cli.account_values import sealing
from postbackd.cli.catalog import read_pairs
from postbackd.cli.options import as_duration, as_json, now_ms, takes_settings
from postbackd.cli.sender_options import print_made, read_secret
from postbackd.cli.session import Session, base_url, print_json, visit
from postbackd.core.model import Network
from postbackd.core.moments import write_moment
from postbackd.exchanges.postback import OddPostback, Signing, sign_request
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
    what: senders.What,
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
            entry, made = senders.end_former(entry, what), Made()
        else:
            given = None if secret is None else read_secret(secret)
            until = now + overlap_s * 1000
            entry, made = senders.rotate(entry, what, now, until, given, sealing(settings))
        check_entry(entry)
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
    print_made(made)
    if what == "key" and not end_former:
        click.echo(f"its postback URLs now begin with:\n\n  {document['postback_url']}\n")
    click.echo(
        f"the former {what} is good until {former[0]}" if former else f"only the current {what} is good now"
    )


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
    headers: list[tuple[str, str]] = []
    method = "POST" if body else "GET"
    address = f"{base_url(settings)}/p/{entry.key}" + (f"?{query}" if query else "")
    signing = find_signing(entry, settings)
    if signing is not None:
        try:
            address, headers = sign_request(
                signing, method, address, body.encode(), now_ms(), as_parameters=as_parameters
            )
        except OddPostback as error:
            raise click.UsageError(str(error)) from error
    if entry.senders.token_mode != "off":  # noqa: S105 - a mode
        headers.append(("x-postback-token", "TOKEN"))
    words = ["curl", "-i", *(word for name, value in headers for word in ("-H", f"{name}: {value}"))]
    words += ["--data-raw", body] if body else []
    return shlex.join([*words, address])


def find_signing(entry: Network, settings: Settings) -> Signing | None:
    """How the postbacks of a network are signed; ``None``: they are not."""
    scheme = entry.senders.scheme
    if scheme is None:
        return None
    try:
        return Signing(scheme, open_secrets(settings, SENDER_SECRET)(entry.senders.secrets[0].sealed))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
