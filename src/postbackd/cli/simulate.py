"""``postbackd simulate``: a market played against a running server, with the truth beside to check the server by."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click
import uvloop

from postbackd import __version__
from postbackd.catalog.entries import make_key
from postbackd.catalog.file import FileError, read_file
from postbackd.cli.main import Family
from postbackd.cli.options import as_json, now_ms
from postbackd.cli.send_options import make_context, read_server
from postbackd.cli.session import print_json, showing
from postbackd.cli.simulate_check import check, remove
from postbackd.cli.simulate_options import takes_pace, takes_plan
from postbackd.core.deliveries import Outgoing
from postbackd.delivery.request import Place
from postbackd.exchanges.timed import Timer
from postbackd.market.place import write_document
from postbackd.role import hear_signals
from postbackd.settings_values import is_loopback
from postbackd.simulating.catalog import Book, NoMarket, read_book, write_catalog
from postbackd.simulating.ledger import Ledger
from postbackd.simulating.plan import Plan
from postbackd.simulating.planting import format_faults
from postbackd.simulating.savings import count_savings, describe_savings, sweep
from postbackd.simulating.sending import NotOurs, Pace, Player
from postbackd.simulating.summary import describe_run
from postbackd.simulating.tables import format_run, format_savings, format_sweep
from postbackd.simulating.truth_file import BadTruth, Began, Ended, TruthWriter, read_truth

_MINE = "--yes-this-server-is-mine"


def _list_faults(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(format_faults())
        context.exit()


@click.group(cls=Family)
@click.option(
    "--list-faults", is_flag=True, is_eager=True, expose_value=False, callback=_list_faults,
    help="Print what can be planted with --fault, and where.",
)  # fmt: skip
def simulate() -> None:
    """A whole market in a box: visitors, sources, blockers and networks against a running server.

    Give the server a data directory of its own, and the catalog of 'postbackd simulate catalog'.
    """


@simulate.command("catalog")
def print_catalog() -> None:
    """Print the catalog that a simulated market needs, with new keys, for 'postbackd apply'.

    'apply' removes what the file does not name: use a data directory of its own.
    """
    click.echo(write_catalog(make_key), nl=False)


@simulate.command("run")
@click.argument("url")
@click.option(
    "--catalog", "catalog_file", type=click.Path(path_type=Path), default=Path("market.toml"), show_default=True,
    metavar="FILE", help="What 'simulate catalog' printed and the server was given: it holds the networks' keys.",
)  # fmt: skip
@click.option(
    "--truth", "truth_file", type=click.Path(path_type=Path), default=Path("truth.ndjson"), show_default=True,
    metavar="FILE", help="Where the truth is written; its summary beside it. A new file.",
)  # fmt: skip
@takes_plan
@takes_pace
@click.option(
    "--sweep", "sweeping", is_flag=True,
    help="Also foresee what 0, 10, 20, 30 and 40 % of blockers would cost. Nothing is sent for it.",
)  # fmt: skip
@click.option(
    _MINE, "mine", metavar="URL", help="The URL once more, for a server that is not on this machine."
)
@as_json
def run(
    url: str,
    catalog_file: Path,
    truth_file: Path,
    plan: Plan,
    pace: Pace,
    sweeping: bool,
    mine: str | None,
    json_wanted: bool,
) -> None:
    """Play a market against the server at URL (http://127.0.0.1:8080), and write the truth beside.

    The same seed makes the same market. Stop it with Ctrl-C: what is written is true up to there, and 'postbackd
    simulate check' knows what is unknown.
    """
    place = _read_target(url, mine)
    try:
        book = read_book(read_file(catalog_file))
        with _alone(catalog_file):
            why = uvloop.run(_play(plan, book, place, truth_file, pace))
        ledger = Ledger(read_truth(truth_file))
    except (FileError, NoMarket, BadTruth, NotOurs) as error:
        raise click.ClickException(str(error)) from error
    _report(ledger, plan, truth_file, sweeping=sweeping, json_wanted=json_wanted)
    if why != "done":
        raise click.exceptions.Exit(130)


def _read_target(url: str, mine: str | None) -> Place:
    place = read_server(url)
    vouched = mine is not None and read_server(mine) == place
    if not is_loopback(place.host) and not vouched:
        raise click.UsageError(
            f"{place.host} is not this machine, and a simulated market fills a server with visits and sales that never "
            f"were; if it is yours and made for that, say so with {_MINE} {place.origin}"
        )
    return place


@contextmanager
def _alone(catalog_file: Path) -> Iterator[None]:
    """One run at a time: two would each find the other's visits at the server and not in its truth."""
    with catalog_file.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise click.ClickException(
                f"another 'postbackd simulate run' plays the market of {catalog_file}; wait for its end, or stop it"
            ) from error
        yield


async def _play(plan: Plan, book: Book, place: Place, truth_file: Path, pace: Pace) -> str:
    """Plays; returns why it ended."""
    stop = hear_signals(None)
    with closing(Timer(make_context(None), resends=False)) as timer:
        await _look(timer, place)
        with closing(TruthWriter(truth_file)) as truth:
            truth.write(Began(plan=plan, server=place.origin, at_ms=now_ms(), version=__version__))
            player = Player(plan, book, place.origin, timer, truth, now_ms)
            try:
                with showing(plan.clicks, "simulating") as watch:
                    await player.play(pace, stop, watch)
            except NotOurs:
                if not player.was_known:
                    truth.discard()  # of nothing: it would be in the way of the run that comes next
                raise
            why = "interrupted" if stop.is_set() else "done"
            truth.write(Ended(at_ms=now_ms(), why=why))
            return why


async def _look(timer: Timer, place: Place) -> None:
    """Whether a server is there at all.  Raises ``ClickException``."""
    heard = await timer.exchange(Outgoing("GET", f"{place.origin}/readyz"), keep=True, total_ms=5000)
    if heard.error:
        raise click.ClickException(
            f"no server answers at {place.origin} ({heard.error}); start one with 'postbackd serve --data DIR'"
        )
    if heard.status != 200:
        raise click.ClickException(
            f"what answers at {place.origin} is not a server that is ready (its /readyz says {heard.status}); name "
            "where 'postbackd serve' takes clicks and postbacks, not its dashboard"
        )


def _report(ledger: Ledger, plan: Plan, truth_file: Path, *, sweeping: bool, json_wanted: bool) -> None:
    document = describe_run(ledger)
    points = sweep(plan) if sweeping else []
    if points:
        document["sweep"] = [
            {"blockers": rate, "savings": describe_savings(savings)} for rate, savings in points
        ]
    summary = truth_file.with_name(f"{truth_file.name}.summary.json")
    write_document(summary, document)
    if json_wanted:
        print_json(document)
        return
    click.echo(format_run(ledger))
    click.echo(f"\n{format_savings(count_savings(ledger))}")
    if points:
        click.echo(f"\nthe same market at other rates of blockers, foreseen:\n{format_sweep(points)}")
    click.echo(f"\nthe truth is in {truth_file}, its summary in {summary}")
    click.echo(f"hold the server against it:  postbackd simulate check {truth_file} --data DIR")


simulate.add_command(check)
simulate.add_command(remove)
