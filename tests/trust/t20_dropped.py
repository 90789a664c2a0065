"""T20: nothing is dropped in silence: every mutated real postback is in the log, and what can be repaired is repaired.

Postbacks in the shapes of all networks of the presets, damaged as they are on their way: every answer names a request,
every request has its row, with the verdict that the sender was told.  Those that a setting made unusable come back
with ``replay`` after the setting is mended.  Controls: a replay without mending, and a server that keeps no log.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from tests.trust.corpus import wire
from tests.trust.corpus.naive import naive_server
from tests.trust.corpus.shapes import Shape, fill, load_shapes, mutate, write
from tests.trust.corpus.stage import Stage, stage
from tests.trust.corpus.wire import Address, Answer, Connection
from tests.trust.oracle import VERDICTS, read_stamp
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import run_cli, wait_until

CONNECTIONS = 8
BURST = 16
WORD = "clawed-back"
"""A status word that no network is known to use; with a negative amount it makes a postback unusable."""


@dataclass(frozen=True)
class Told:
    """What a sender was told."""

    request: str
    verdict: str


@trust_test("T20", "nothing dropped: mutated real postbacks are logged and can be replayed")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """100 % logged with the verdict that was told; 100 % of the repairable ones counted after a repair."""
    wanted = size.pick(ci=3_000, nightly=100_000, release=1_000_000)
    draw = random.Random(seed)
    with stage(work_dir, network_options=("--type", "sale", "--type", "conversion")) as server:
        told = send(server.address, _mutated(server, wanted, draw))
        broken = send(server.address, _repairable(server, wanted // 10))
        unlogged, differing = _compare(server, told + broken)
        before = _counted(server, broken)
        useless = _replay(server)
        still = _counted(server, broken)
        _mend(server)
        _replay(server)
        repaired = _counted(server, broken)
        again = _replay(server)
        tracebacks = server.tracebacks
    figures: dict[str, Figure] = {
        "n": len(told) + len(broken),
        "lost": unlogged,
        "double": 0,
        "phantom": 0,
        "wrong": differing,
        "repairable": len(broken),
        "repaired": repaired,
        "changed without mending": useless,
        "changed by a second replay": again,
        "tracebacks": tracebacks,
        "verdicts": ", ".join(
            f"{verdict} {n}" for verdict, n in Counter(t.verdict for t in told).most_common()
        ),
    }
    passed = not (unlogged or differing or before or useless or again or tracebacks) and repaired == len(
        broken
    )
    not_mended = Control("replay without mending", still < len(broken), {"repaired": still})
    return Result(passed, figures, (not_mended, _control()))


# --- sending ------------------------------------------------------------------------------------------


def send(address: Address, requests: Iterator[bytes]) -> list[Told]:
    """Send all requests over a few pipelined connections; returns what was answered to each."""

    async def work() -> list[Told]:
        connection = await Connection.open(address)
        told: list[Told] = []
        while burst := list(islice(requests, BURST)):
            told += [_read(answer) for answer in await connection.ask(burst)]
        connection.close()
        return told

    async def all_of_them() -> list[Told]:
        parts = await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
        return [told for part in parts for told in part]

    return asyncio.run(all_of_them())


def _read(answer: Answer) -> Told:
    return Told(answer.header("X-Request-Id") or "", answer.header("Postbackd-Verdict") or "")


def _mutated(server: Stage, wanted: int, draw: random.Random) -> Iterator[bytes]:
    shapes = [(shape, _add_network(server, shape)) for shape in load_shapes()]
    wait_until(
        lambda: _all_known(server, [key for _, key in shapes]), 30, "the server knowing the new networks"
    )
    clicks = server.clicks(100)

    def make(number: int) -> bytes:
        shape, key = draw.choice(shapes)
        fields = mutate(fill(shape, draw.choice(clicks), number, draw), draw)
        return write(shape, fields, f"/p/{key}", draw)

    return map(make, range(wanted))


def _add_network(server: Stage, shape: Shape) -> str:
    done = run_cli(server.server.data_dir, "network", "add", shape.preset, "--preset", shape.preset, "--json")
    if done.returncode:
        raise AssertionError(f"network add --preset {shape.preset}: {done.stderr}")
    return str(json.loads(done.stdout)["key"])


def _all_known(server: Stage, keys: Sequence[str]) -> bool:
    """A running server takes up a changed catalog within a second."""
    return all(server.server.status(f"/p/{key}") == 200 for key in keys)


# --- repairing ----------------------------------------------------------------------------------------


def _repairable(server: Stage, wanted: int) -> Iterator[bytes]:
    """Postbacks that only a setting keeps from being counted: a type, an unknown word, a window."""
    _cli(server, "offer", "add", "Late", "--network", "Shop", "--url", "https://shop.example/?sub1={click_id}",
         "--window-min", "1d")  # fmt: skip
    campaign = _cli(server, "campaign", "add", "Late", "--source", "Ads", "--offer", "Late", "--json")
    slug = json.loads(campaign)["slug"]
    wait_until(lambda: server.server.status(f"/c/{slug}") == 302, 30, "the server knowing the new campaign")
    late = Stage(server.server, type(server.catalog)(server.catalog.key, slug)).clicks(10)
    early = server.clicks(10)

    def make(number: int) -> bytes:
        word = "".join(chr(97 + int(digit)) for digit in str(number))
        tail = f"txid=repair-{word}&value"
        asked = (
            f"click_id={early[number % 10]}&type=deposit&{tail}=5.00",
            f"click_id={early[number % 10]}&status={WORD}&{tail}=-5.00",
            f"click_id={late[number % 10]}&type=sale&{tail}=5.00",
        )
        return wire.get(f"{server.endpoint}?{asked[number % 3]}")

    return map(make, range(wanted))


def _mend(server: Stage) -> None:
    _cli(server, "network", "set", "Shop", "--any-type", "--status-word", f"{WORD}=reversed")
    _cli(server, "offer", "set", "Late", "--window-min", "0s")


def _replay(server: Stage) -> int:
    """How many postbacks a replay changed."""
    return len(json.loads(_cli(server, "replay", "--json"))["changed"])


def _cli(server: Stage, *arguments: str) -> str:
    done = run_cli(server.server.data_dir, *arguments, timeout_s=600)
    if done.returncode:
        raise AssertionError(f"postbackd {' '.join(arguments)}: {done.stderr}")
    return done.stdout


# --- judging ------------------------------------------------------------------------------------------


def _rows(server: Stage) -> dict[int, int]:
    return dict(server.rows("SELECT request_id, verdict FROM postbacks"))


def _compare(server: Stage, told: Sequence[Told]) -> tuple[int, int]:
    """Requests without a row, and rows that say something else than the sender was told."""
    return _judge(told, _rows(server))


def _judge(told: Sequence[Told], rows: dict[int, int]) -> tuple[int, int]:
    found = [rows.get(read_stamp(one.request)) if one.request else None for one in told]
    differing = sum(
        row is not None and row != VERDICTS.get(one.verdict) for one, row in zip(told, found, strict=True)
    )
    return found.count(None), differing


def _counted(server: Stage, told: Sequence[Told]) -> int:
    """How many of these requests count a conversion."""
    counted = {row[0] for row in server.rows("SELECT conversion_id FROM conversions")}
    return sum(read_stamp(one.request) in counted for one in told if one.request)


def _control() -> Control:
    async def ask_careless() -> list[Told]:
        async with naive_server() as (_, address):
            connection = await Connection.open(address)
            numbers = count()
            burst = [wire.get(f"/p/key?click_id=a&txid=x{next(numbers)}") for _ in range(50)]
            return [_read(answer) for answer in await connection.ask(burst)]

    unlogged, _ = _judge(asyncio.run(ask_careless()), {})
    return Control("a server that keeps no log", unlogged > 0, {"unlogged": unlogged})
