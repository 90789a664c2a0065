"""What the parts that measure deliveries share: the targets, and a catalog that tells them of every conversion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.machine import HOST
from bench.run import Run
from bench.target import Targets
from postbackd.core.model import How, RequestForm, Rule, Target
from postbackd.store.base import Store
from postbackd.store.sqlite import SqliteStore

_URL = "http://{host}:{port}/pb?id={{source_click_id}}&value={{value}}&type={{goal}}&tx={{transaction_id}}"


@contextmanager
def targets_of(run: Run, count: int) -> Iterator[Targets]:
    """Some targets, all alive."""
    targets = Targets(count, run.directory)
    try:
        yield targets
    finally:
        targets.stop()


def options_for(targets: Targets) -> Sequence[str]:
    """Options of a server that may deliver to these."""
    return ["--deliver-ranges", "127.0.0.0/8", "--deliver-ports", ",".join(map(str, targets.ports))]


async def tell(store: Store, ports: Sequence[int]) -> None:
    """Let targets hear of every conversion: the only one of all, or as many as there are campaigns each of its own."""
    for number, port in enumerate(ports, 1):
        how = How(requests={"conversion": RequestForm(url=_URL.format(host=HOST, port=port))})
        target = await store.save(Target(id=0, name=f"target{number}", how=how))
        source, campaign = (1, None) if len(ports) == 1 else (None, number)
        rule = Rule(id=0, name=f"rule{number}", source=source, campaign=campaign, target=target.id)
        await store.save(rule)


async def tell_of_data(data: Path, ports: Sequence[int]) -> None:
    """``tell`` for the data directory of a stopped server."""
    store = await SqliteStore.open(data, create=False)
    try:
        await tell(store, ports)
    finally:
        await store.close()


async def tell_of_postgres(address: str, ports: Sequence[int]) -> None:
    """``tell`` for a database."""
    from postbackd.store.postgres import PostgresStore  # noqa: PLC0415 - needs asyncpg, which may be missing

    store = await PostgresStore.open(address, create=False)
    try:
        await tell(store, ports)
    finally:
        await store.close()
