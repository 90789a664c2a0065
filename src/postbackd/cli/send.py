"""``postbackd send``: one postback, or the rows of a file, to any endpoint; with the verdict and the time it took."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click
import uvloop

from postbackd.catalog.documents import find_entry
from postbackd.cli.catalog import read_pairs
from postbackd.cli.network_senders import find_signing
from postbackd.cli.options import as_json, now_ms, takes_settings
from postbackd.cli.send_batch import send_batch
from postbackd.cli.send_options import (
    Bodies,
    check_headers,
    check_url,
    make_trust,
    read_rate,
    takes_bodies,
    takes_trust,
)
from postbackd.cli.sender_options import read_secret
from postbackd.cli.session import Session, base_url, print_json, visit
from postbackd.core.became import Became, judge
from postbackd.core.exchange import PHASE_WORDS, PHASES, Exchange, read_said
from postbackd.core.model import Network
from postbackd.core.params import POSTBACK_NAMES, FieldMap
from postbackd.core.replies import excerpt
from postbackd.core.senders import Scheme
from postbackd.exchanges.postback import (
    FIELDS,
    Endpoint,
    Method,
    OddPostback,
    Postback,
    Signing,
    mark_as_test,
    write_postback,
)
from postbackd.exchanges.rows import Others
from postbackd.exchanges.timed import Timer
from postbackd.settings import Settings

_TIMEOUT_S = 10.0


@click.command()
@click.argument("url", required=False)
@click.option(
    "--network", metavar="NAME", help="Send to this network of ours, in its words and signed as it asks."
)
@click.option("--click-id", metavar="ID", default="")
@click.option("--type", "type_", metavar="WORD", default="", help="Such as sale or lead.")
@click.option("--value", metavar="AMOUNT", default="", help="Such as 12.50.")
@click.option("--currency", metavar="CODE", default="", help="Such as USD.")
@click.option(
    "--txid", metavar="ID", default="", help="The transaction id: what makes it the same conversion."
)
@click.option("--status", metavar="WORD", default="", help="Such as approved, pending or reversed.")
@click.option(
    "--param", "parameters", multiple=True, metavar="NAME=VALUE", help="One more parameter; repeatable."
)
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="One more header; repeatable.")
@click.option("--post", is_flag=True, help="POST as JSON instead of GET with parameters.")
@click.option(
    "--secret",
    metavar="SECRET",
    envvar="POSTBACKD_SEND_SECRET",
    help="Sign for a postbackd elsewhere (hmac); - reads it.  [or POSTBACKD_SEND_SECRET]",
)
@click.option(
    "--test", is_flag=True, help="Send a test word for the click id: it is logged and counted nowhere."
)
@click.option(
    "--batch",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Send each row of a CSV or NDJSON file.",
)
@click.option(
    "--rate",
    callback=read_rate,
    metavar="N/s",
    help="Of a batch: so many a second at most.  [default: no limit]",
)
@click.option(
    "--parallel", type=click.IntRange(1, 64), metavar="N", help="Of a batch: so many at a time.  [default: 4]"
)
@click.option(
    "--tries",
    type=click.IntRange(1, 10),
    metavar="N",
    help="Of a batch: tries of a row in one run.  [default: 3]",
)
@click.option(
    "--journal",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Of a batch: where is noted what was sent.  [default: FILE.journal]",
)
@click.option(
    "--other-columns",
    type=click.Choice(get_args(Others)),
    help="Of a batch: columns that are no fields of a postback.  [default: refuse]",
)
@takes_bodies
@takes_trust(_TIMEOUT_S)
@as_json
@takes_settings("data", "store", "public_url", "secret_key")
def send(url: str | None, network: str | None, settings: Settings, **options: Any) -> None:
    """Send one postback to URL or to a network of ours, and say what became of it and how long each phase took.

    The URL may say where values go: {click_id}, {type}, {value}, {currency}, {transaction_id}, {status}. Without these
    they are parameters of the usual names. Whatever address the name leads to is connected to, and said.

    Ends with 0 when the postback was taken, with 1 when it was not or nobody answered.
    """
    if (url is None) == (network is None):
        raise click.UsageError("name a URL or a --network, one of them")
    said = _read_postback(options)
    endpoint = _make_endpoint(url, network, settings, options)
    batch = {name: options.pop(name) for name in ("rate", "parallel", "tries", "journal", "other_columns")}
    if options["file"] is not None:
        _refuse_fields(said, options)
        send_batch(endpoint, options["file"], options, batch)
        return
    given = next((name for name, value in batch.items() if value is not None), None)
    if given is not None:
        raise click.UsageError(f"--{given.replace('_', '-')} is for --batch")
    if not said.click_id and not options["test"]:
        raise click.UsageError("give a --click-id, or --test for a postback that counts nothing")
    _send_one(endpoint, mark_as_test(said) if options["test"] else said, options)


def _read_postback(options: dict[str, Any]) -> Postback:
    extra = read_pairs(options.pop("parameters"), "--param", "NAME=VALUE")
    fields = {"type": "type_", "transaction_id": "txid"}
    given = {field: options.pop(fields.get(field, field)) for field in FIELDS}
    if options["test"] and given["click_id"]:
        raise click.UsageError("--test brings a click id of its own; leave --click-id out")
    return Postback(**given, extra=extra)


def _refuse_fields(said: Postback, options: dict[str, Any]) -> None:
    field = next(iter(said.fields()), None)
    if field is not None:
        raise click.UsageError(f"the {field} of each row stands in {options['file']}; leave it out here")


def _make_endpoint(
    url: str | None, network: str | None, settings: Settings, options: dict[str, Any]
) -> Endpoint:
    headers = check_headers(options.pop("headers"))
    method: Method = "POST" if options.pop("post") else "GET"
    secret = options.pop("secret")
    if url is not None:
        signing = None
        if secret is not None:
            signing = Signing(Scheme(), read_secret(secret))
        return Endpoint(url=check_url(url), method=method, headers=headers, signing=signing)
    assert network is not None
    name = network
    entry: Network = visit(settings, lambda session: _find(session, name))
    names = FieldMap(POSTBACK_NAMES, entry.fields).names
    return Endpoint(
        url=f"{base_url(settings)}/p/{entry.key}",
        method=method,
        names={field: names[field][0] for field in FIELDS if names[field]},
        headers=headers,
        signing=find_signing(entry, settings),
    )


async def _find(session: Session, name: str) -> Network:
    return find_entry((await session.load()).networks, name, "network")


# --- one ---------------------------------------------------------------------------------------------------------


def _send_one(endpoint: Endpoint, postback: Postback, options: dict[str, Any]) -> None:
    try:
        request = write_postback(endpoint, postback, now_ms())
    except OddPostback as error:
        raise click.UsageError(str(error)) from error
    tls, timeout_ms = make_trust(options)
    bodies: Bodies = options["bodies"]

    async def work() -> Exchange:
        timer = Timer(tls, connect_ms=timeout_ms, total_ms=timeout_ms)
        try:
            return await timer.exchange(request)
        finally:
            timer.close()

    made = uvloop.run(work())
    became = judge(made, bodies.success, bodies.failure, now_ms())
    if options["json_wanted"]:
        print_json(document_of(made, became, postback))
    else:
        _print_one(made, became, postback)
    if not became.good:
        raise click.exceptions.Exit(1)


def _print_one(made: Exchange, became: Became, postback: Postback) -> None:
    said = read_said(made)
    head = "recognised as a test, counted nowhere" if became.word == "test" else became.reason or became.word
    more = [
        f"{what} {text}"
        for what, text in (("conversion", said.conversion), ("request", said.request))
        if text
    ]
    if postback.transaction_id:
        more.append(f"transaction id {postback.transaction_id}")
    click.echo(f"{head} ({', '.join(more)})" if more else head)
    if said.hint and not became.good:
        click.echo(f"  {said.hint}")
    if not said.verdict and made.status and made.body:
        click.echo(f"  the answer: {_first_line(made.body)}")
    if made.error and made.sent:
        click.echo("  it may have been counted all the same; send it again with the same --txid")
    click.echo(f"  {write_timing(made)}")


def _first_line(body: bytes) -> str:
    return excerpt(body.decode("utf-8", "replace"))


def write_timing(made: Exchange) -> str:
    """Status, the address that was connected to, and the time of each phase; of one try."""
    times = [
        f"{PHASE_WORDS[phase]} {value:.1f}"
        for phase in PHASES
        if phase != "total" and (value := made.phase_ms(phase)) is not None
    ]
    place = (
        f" at {f'[{made.address}]' if ':' in made.address else made.address}:{made.port}"
        if made.address
        else ""
    )
    status = f"HTTP {made.status}" if made.status else "no answer"
    tls = f", {made.tls}" if made.tls else ""
    phases = f": {', '.join(times)} ms" if times else ""
    return f"{status}{place}{tls} in {made.total_ms:.1f} ms, one try{phases}"


def document_of(made: Exchange, became: Became, postback: Postback) -> dict[str, Any]:
    """One exchange for scripts."""
    said = read_said(made)
    return {
        "outcome": became.word,
        "settled": became.settled,
        "good": became.good,
        "why": became.reason or None,
        "status": made.status or None,
        "verdict": said.verdict or None,
        "reason": said.reason or None,
        "conversion": said.conversion or None,
        "request": said.request or None,
        "transaction_id": postback.transaction_id or None,
        "sent": made.sent,
        "error": made.error or None,
        "error_kind": made.kind or None,
        "address": made.address or None,
        "port": made.port or None,
        "tls": made.tls or None,
        "tries": 1,
        "milliseconds": {
            phase: None if (value := made.phase_ms(phase)) is None else round(value, 3) for phase in PHASES
        },
        "answer_bytes": made.wire_bytes,
    }
