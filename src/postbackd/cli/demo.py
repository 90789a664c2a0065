"""``postbackd demo``: a simulated month to look at, apart from everything that is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import click
import msgspec

from postbackd.catalog.entries import make_key
from postbackd.cli.demo_deliveries import Postman
from postbackd.cli.demo_filling import Filler
from postbackd.cli.example import is_empty
from postbackd.cli.options import as_json, now_ms, takes_data
from postbackd.cli.session import Session, print_json, showing, visit
from postbackd.core.moments import write_moment
from postbackd.locks import LOCK_NAME, is_held, lock_data
from postbackd.market.catalog import make_catalog
from postbackd.market.place import (
    LOCK,
    TRUTH,
    Made,
    NotADemo,
    check_place,
    demo_directory,
    read_marker,
    remove,
    write_document,
    write_marker,
)
from postbackd.market.records import Event
from postbackd.market.simulation import Market
from postbackd.reports.question import open_zone
from postbackd.role import hear_signals
from postbackd.runtime import DELIVER_LOCK_NAME, spare_syncs
from postbackd.settings import Settings
from postbackd.store.base import StoreRefused
from postbackd.upkeep.rollups import RollupKeeper

_CLICKS, _SEED = 150_000, 1
_FEWEST, _MOST = 1_000, 5_000_000

_ROWS = 500
"""Written at a time, and then delivered."""

_LOOK_EVERY_S = 0.5
_NOTE_EVERY_MS = 60_000
"""How often a live simulation writes down what is true."""


@click.command()
@click.option(
    "--clicks",
    type=click.IntRange(_FEWEST, _MOST),
    metavar="N",
    help=f"About how many visits the month has.  [default: {_CLICKS}]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"Another number, another month.  [default: {_SEED}]",
)
@click.option("--live", is_flag=True, help="Then go on adding traffic in real time, until Ctrl-C.")
@click.option("--remove", "removing", is_flag=True, help="Remove the simulated data.")
@as_json
@takes_data
def demo(
    clicks: int | None, seed: int | None, live: bool, removing: bool, settings: Settings, json_wanted: bool
) -> None:
    """Make a simulated month that ends now, with faults planted in it, in DIR/demo; or bring the one there up to now.

    It is a database of its own: nothing of it mixes with real figures, and nothing is sent anywhere.
    """
    directory = demo_directory(Path(settings.data))
    if removing:
        if clicks is not None or seed is not None or live:
            raise click.UsageError("--remove takes no other option")
        _remove(directory)
        click.echo(f"removed {directory}")
        return
    with _refusing():
        check_place(directory)
    with _refusing(), lock_data(directory, LOCK, "another 'postbackd demo' is adding to"):
        made = _begin(directory, clicks, seed)
        own = msgspec.structs.replace(settings, data=str(directory), store=None)
        document = visit(own, lambda session: _play(session, made, directory, live=live), create=True)
    _print(document, directory, json_wanted)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (NotADemo, StoreRefused) as error:
        raise click.ClickException(str(error)) from error


def _remove(directory: Path) -> None:
    if not directory.is_dir():
        raise click.ClickException(f"there is no demo in {directory}")
    for name in (LOCK, LOCK_NAME, DELIVER_LOCK_NAME):
        if is_held(directory / name):
            raise click.ClickException(f"a process is using {directory}; stop it first")
    with _refusing():
        remove(directory)


def _begin(directory: Path, clicks: int | None, seed: int | None) -> Made:
    """What to simulate: what is there goes on.  Raises ``NotADemo``."""
    made = read_marker(directory)
    if made is None:
        made = Made(seed=_SEED if seed is None else seed, clicks=clicks or _CLICKS, until_ms=now_ms())
        write_marker(directory, made)
    elif seed not in (None, made.seed) or clicks not in (None, made.clicks):
        raise NotADemo(
            f"{directory} holds a demo of {made.clicks} clicks with seed {made.seed}; "
            "remove it first with 'postbackd demo --remove'"
        )
    return made


async def _play(session: Session, made: Made, directory: Path, *, live: bool) -> dict[str, Any]:
    began_s, store = monotonic(), session.store
    spare_syncs(store)
    catalog = await session.load()
    if is_empty(catalog):
        await session.change(make_catalog(make_key))
        catalog = await session.load()
    market = Market(made.seed, made.until_ms, made.clicks)
    filler = Filler(store, market, catalog, await store.last_stamp())
    postman = Postman(store, catalog, market, made.seed)
    await postman.begin()
    player = _Player(market, filler, postman)
    end_ms = max(now_ms(), made.until_ms)
    with showing(end_ms - market.from_ms, "simulating") as watch:
        shown_ms = market.from_ms
        async for at_ms in player.play(end_ms):
            watch(at_ms - shown_ms)
            shown_ms = at_ms
        watch(end_ms - shown_ms)
    # A server would do this too, but standing back: whoever has just made a demo wants to look at it.
    await RollupKeeper(store, open_zone(session.settings.report_zone), now_ms).catch_up()
    took_s = monotonic() - began_s
    write_document(directory / TRUTH, _truth(made, market, filler, end_ms))
    if live:
        end_ms = await _go_on(player, made, market, filler, directory)
    return {**_truth(made, market, filler, end_ms), "rows": filler.written, "seconds": round(took_s, 1)}


class _Player:
    """Plays events to a time, and later on from there."""

    def __init__(self, market: Market, filler: Filler, postman: Postman) -> None:
        self._filler = filler
        self._postman = postman
        self._events = market.events()
        self._next: Event = next(self._events)

    async def play(self, until_ms: int) -> AsyncIterator[int]:
        """Write what happens before a time; yields now and then how far it is."""
        filler = self._filler
        while self._next.at_ms < until_ms:
            at_ms = self._next.at_ms
            filler.take(self._next)
            self._next = next(self._events)
            if filler.waiting >= _ROWS:
                await self._commit(at_ms)
                yield at_ms
        await self._commit(until_ms)
        await self._postman.note_states(until_ms)

    async def _commit(self, at_ms: int) -> None:
        await self._filler.write()
        await self._postman.work(at_ms)


async def _go_on(player: _Player, made: Made, market: Market, filler: Filler, directory: Path) -> int:
    """Play in real time until told to stop; returns the time reached."""
    stop = hear_signals(None)
    click.echo(f"adding simulated traffic to {directory}; stop with Ctrl-C", err=True)
    noted_ms = reached_ms = now_ms()
    while not stop.is_set():
        reached_ms = now_ms()
        async for _ in player.play(reached_ms):
            pass
        if reached_ms - noted_ms > _NOTE_EVERY_MS:
            write_document(directory / TRUTH, _truth(made, market, filler, reached_ms))
            noted_ms = reached_ms
        try:
            await asyncio.wait_for(stop.wait(), _LOOK_EVERY_S)
        except TimeoutError:
            continue
    write_document(directory / TRUTH, _truth(made, market, filler, reached_ms))
    return reached_ms


def _truth(made: Made, market: Market, filler: Filler, end_ms: int) -> dict[str, Any]:
    return {
        "seed": made.seed,
        "from": write_moment(market.from_ms),
        "until": write_moment(end_ms),
        **filler.truth.write(),
    }


def _print(document: dict[str, Any], directory: Path, json_wanted: bool) -> None:
    if json_wanted:
        print_json(document)
        return
    figures = document["all"]
    click.echo(
        f"{figures['clicks']:,} clicks, {figures['postbacks']:,} postbacks, "
        f"{figures['counted']['count']:,} conversions "
        f"from {document['from'][:10]} to {document['until'][:16]}Z, simulated in {document['seconds']} s"
    )
    click.echo("what is wrong in it, for you to find:")
    for fault in document["faults"]:
        click.echo(f"  {fault['where']} since {write_moment(fault['since_ms'])[:16]}Z: {fault['what']}")
    click.echo(f"look at it:  postbackd report --by network --data {directory}")
    click.echo("or in the dashboard of the server beside it: the switch at the top shows simulated data")
    click.echo(f"what is true is in {directory / TRUTH}; 'postbackd demo --remove' removes it all")
