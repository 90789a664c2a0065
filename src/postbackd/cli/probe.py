"""``postbackd probe``: how far away an endpoint is, phase by phase, and how well it answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop

from postbackd.cli.options import as_json, now_ms
from postbackd.cli.send_options import (
    check_headers,
    check_url,
    make_trust,
    read_rate,
    takes_trust,
    write_file,
)
from postbackd.cli.session import print_json, showing
from postbackd.core.exchange import PHASE_WORDS, PHASES
from postbackd.core.moments import write_moment
from postbackd.core.percentiles import Spread, write_ms
from postbackd.core.replies import excerpt
from postbackd.exchanges.places import (
    HOPS,
    LETTERS,
    Merged,
    PlacesError,
    Result,
    compare_places,
    document_of,
    length_of,
    merge_results,
    read_results,
    slowest_hop,
    write_bar,
)
from postbackd.exchanges.places_page import write_places_page
from postbackd.exchanges.postback import Endpoint
from postbackd.exchanges.probing import FAMILIES, OddProbe, Probed, Prober, Series, Wanted

_TIMEOUT_S = 10.0
_PERCENTS = ((50, "p50"), (95, "p95"), (99, "p99"))


@click.command()
@click.argument("urls", nargs=-1, metavar="URL...")
@click.option(
    "-n",
    "--tries",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="Tries of each kind; p95 needs 20, p99 needs 100.",
)
@click.option(
    "--rate",
    callback=read_rate,
    default="10/s",
    show_default=True,
    metavar="N/s",
    help="Requests a second at most.",
)
@click.option("--post", is_flag=True, help="POST JSON instead of GET.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="One more header; repeatable.")
@click.option(
    "--as-is",
    is_flag=True,
    help="Ask for the URL exactly as it is written, again and again; it may count something.",
)
@click.option(
    "--click-id",
    metavar="ID",
    default="",
    help="Try duplicates with this click id of the endpoint's own; ONE CONVERSION IS COUNTED.",
)
@click.option(
    "--unknown-id",
    is_flag=True,
    help="Also send one click id that nobody issued; it is one unmatched postback there.",
)
@click.option("--place", metavar="NAME", help="Where this machine is, for --merge.  [default: its name]")
@click.option(
    "--merge",
    is_flag=True,
    help="Put the --json results of several machines together: the arguments are files.",
)
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --merge: also write a page with bars.",
)
@takes_trust(_TIMEOUT_S)
@as_json
def probe(urls: Sequence[str], merge: bool, page: Path | None, json_wanted: bool, **options: Any) -> None:
    """Measure endpoints from this machine: DNS, connect, TLS, first byte, total; over new connections and a kept one.

    Nothing that counts is sent: the click id is a test word (see 'postbackd send --test'). In a URL with parameters
    write {click_id} where the click id goes, unless its parameter has one of the usual names.
    """
    if not urls:
        raise click.UsageError("name a URL" if not merge else "name the files to put together")
    if merge:
        _merge([Path(text) for text in urls], page, json_wanted)
        return
    if page is not None:
        raise click.UsageError("--html is for --merge")
    probers = _make_probers(urls, options)
    found = uvloop.run(_look(probers, options["tries"]))
    place = options["place"] or socket.gethostname()
    if json_wanted:
        result = Result(postbackd_probe=1, place=place, at=write_moment(now_ms()), endpoints=found)
        print_json(msgspec.to_builtins(result))
    else:
        for probed in found:
            _print(probed, place)
    if any(not any(series.answered for series in probed.series) for probed in found):
        raise click.exceptions.Exit(1)


def _make_probers(urls: Sequence[str], options: dict[str, Any]) -> list[Prober]:
    tls, timeout_ms = make_trust(options)
    wanted = Wanted(
        tries=options["tries"],
        rate=options["rate"],
        timeout_ms=timeout_ms,
        as_is=options["as_is"],
        click_id=options["click_id"],
        unknown=options["unknown_id"],
        authorities=options["ca"],
    )
    if wanted.as_is and wanted.click_id:
        raise click.UsageError("--as-is and --click-id exclude each other")
    headers = check_headers(options["headers"])
    probers = []
    for url in urls:
        endpoint = Endpoint(url=check_url(url), method="POST" if options["post"] else "GET", headers=headers)
        try:
            probers.append(Prober(endpoint, wanted, tls, now_ms))
        except OddProbe as error:
            raise click.UsageError(f"{endpoint.shown}: {error}") from error
    return probers


async def _look(probers: Sequence[Prober], tries: int) -> list[Probed]:
    with showing(len(probers) * tries * 2, "Probing") as step:
        found = []
        for prober in probers:
            prober.step = step
            found.append(await prober.look())
            await asyncio.sleep(0)
    return found


# --- one place ---------------------------------------------------------------------------------------------------


def _print(probed: Probed, place: str) -> None:
    click.echo(f"{probed.url} from {place}")
    if probed.dns_error:
        click.echo(f"  DNS: {probed.dns_error}\n")
        return
    words = [f"{family} {', '.join(probed.addresses.get(family, ())) or 'none'}" for family in FAMILIES]
    click.echo(f"  addresses: {'; '.join(words)}")
    for series in probed.series:
        _print_series(series)
    for finding in probed.certificate:
        mark = "" if finding.ok else "FAILED: "
        click.echo(f"  {finding.check}: {mark}{excerpt(finding.detail)}")
    if probed.answer_bytes:
        spoken = ", ".join([*probed.http, *([probed.tls] if probed.tls else ["not encrypted"])])
        squeezed = (
            f"compressed when asked for ({probed.compressed})" if probed.compressed else "not compressed"
        )
        click.echo(f"  answer: {probed.answer_bytes} bytes with its head, {squeezed}; {spoken}")
    for checked in probed.checks:
        click.echo(f"  {checked.check}: {checked.word}: {checked.detail}")
    for series in probed.series:
        if series.name == "cold" and (words_of := slowest_hop(series)):
            click.echo(f"  {series.family}: {words_of}")
    click.echo("")


def _print_series(series: Series) -> None:
    kind = "new connections" if series.name == "cold" else "one kept connection"
    click.echo(f"  {kind}, {series.family} {series.address}: {_say_outcomes(series)}")
    if not series.phases:
        return
    click.echo(f"    {'ms':<12}{'p50':>12}{'p95':>12}{'p99':>12}{'most':>12}   tries")
    for phase in PHASES:
        spread = series.phases.get(phase)
        if spread is not None:
            click.echo(f"    {PHASE_WORDS[phase]:<12}{_write_spread(spread)}   {spread.tries:>5}")


def _write_spread(spread: Spread) -> str:
    values = {percent: getattr(spread, name) for percent, name in _PERCENTS}
    cells = [write_ms(value, spread.tries, percent) for percent, value in values.items()]
    return "".join(f"{cell:>12}" for cell in [*cells, write_ms(spread.most)])


def _say_outcomes(series: Series) -> str:
    words = [f"{series.answered} of {series.tries} answered"]
    words += [f"HTTP {status} x {count}" for status, count in series.statuses.items()]
    words += [f"{kind} x {count}" for kind, count in series.errors.items()]
    if series.example:
        words.append(f"such as: {series.example}")
    if series.reconnected:
        words.append(f"closed by the endpoint {series.reconnected} times")
    return excerpt(", ".join(words), 400)


# --- several places -----------------------------------------------------------------------------------------------


def _merge(paths: Sequence[Path], page: Path | None, json_wanted: bool) -> None:
    try:
        results = read_results(paths)
    except PlacesError as error:
        raise click.UsageError(str(error)) from error
    found = merge_results(results)
    places = [result.place for result in results]
    if page is not None:
        write_file(page, write_places_page(found, places))
    if json_wanted:
        print_json({"places": places, "endpoints": [document_of(merged) for merged in found]})
        return
    for merged in found:
        _print_merged(merged)


def _print_merged(merged: Merged) -> None:
    click.echo(excerpt(merged.url, 1000))
    width = max([len(row.place) for row in merged.rows] + [5]) + 6
    heads = "".join(f"{PHASE_WORDS[phase]:>12}" for phase in PHASES)
    click.echo(f"  {'p50, ms':<{width}}{heads}{'total p95':>12}{'tries':>8}{'errors':>8}")
    for row in merged.rows:
        series = row.series
        total = series.phases.get("total") or Spread()
        cells = "".join(f"{_cell(row.median(phase), series, phase):>12}" for phase in PHASES)
        failed = sum(series.errors.values())
        click.echo(
            f"  {f'{row.place} {series.family}':<{width}}{cells}{write_ms(total.p95, total.tries, 95):>12}"
            f"{series.tries:>8}{failed:>8}"
        )
    longest = max((length_of(row) for row in merged.rows), default=0.0)
    if longest:
        legend = ", ".join(f"{LETTERS[phase]} {PHASE_WORDS[phase]}" for phase in HOPS)
        click.echo(f"\n  {legend}")
        for row in merged.rows:
            click.echo(f"  {f'{row.place} {row.series.family}':<{width}}|{write_bar(row, longest)}")
    for row in merged.rows:
        if words := slowest_hop(row.series):
            click.echo(f"  from {row.place} ({row.series.family}) {words}")
    for line in merged.unseen:
        click.echo(f"  nothing was answered to {excerpt(line)}")
    if words := compare_places(merged):
        click.echo(f"  {words}")
    click.echo("")


def _cell(value: float | None, series: Series, phase: str) -> str:
    spread = series.phases.get(phase)
    return write_ms(value, spread.tries) if spread else "-"
