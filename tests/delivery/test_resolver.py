"""Look-ups: one a name at a time, remembered, and dead ones in nobody's way."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from postbackd.delivery.resolver import LANE, AddressInfo, NameNotFound, Resolver


def run(work: Coroutine[Any, Any, None]) -> None:
    uvloop.run(asyncio.wait_for(work, 20))


class Names:
    """A scripted name server: counts, and keeps whoever asks for a name that begins with ``dead`` waiting."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.released = threading.Event()
        self.reached = threading.Event()
        """Somebody waits for a dead name."""

    def __call__(self, host: str) -> list[AddressInfo]:
        self.asked[host] += 1
        if host.startswith("dead"):
            self.reached.set()
            self.released.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host.startswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host.startswith("empty"):
            return []
        addresses = ("192.0.2.1", "192.0.2.1", "2001:db8::1")
        return [(0, 0, 0, "", (address, 0)) for address in addresses]


def test_an_answer_is_remembered_and_asked_for_once_however_many_wait() -> None:
    async def work() -> None:
        names = Names()
        resolver = Resolver(names)
        found = await asyncio.gather(*(resolver.addresses("shop.example") for _ in range(50)))
        assert set(found) == {("192.0.2.1", "2001:db8::1")}
        await resolver.addresses("shop.example")
        assert names.asked == {"shop.example": 1}

    run(work())


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("unknown.example", "the name unknown.example was not found"),
        ("empty.example", "the name empty.example has no address"),
    ],
)
def test_a_name_that_is_not_there_is_remembered_briefly(host: str, sentence: str) -> None:
    async def work() -> None:
        names = Names()
        resolver = Resolver(names)
        for _ in range(3):
            with pytest.raises(NameNotFound, match=sentence):
                await resolver.addresses(host)
        assert names.asked[host] == 1

    run(work())


def test_dead_names_do_not_hold_up_the_others() -> None:
    async def work() -> None:
        names = Names()
        resolver = Resolver(names, patience_s=0.02)
        dead = [asyncio.create_task(resolver.addresses(f"dead{n}.example")) for n in range(4 * LANE)]
        await asyncio.sleep(0)
        assert await resolver.addresses("shop.example")
        names.released.set()
        ended = await asyncio.gather(*dead, return_exceptions=True)
        assert {type(one) for one in ended} == {NameNotFound}
        assert "temporary failure in name resolution" in str(ended[0])

    run(work())


def test_a_look_up_goes_on_when_who_asked_has_given_up_and_is_not_begun_again() -> None:
    async def work() -> None:
        names = Names()
        resolver = Resolver(names)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await resolver.addresses("dead.example")
        assert names.asked == {"dead.example": 1}
        names.released.set()
        with pytest.raises(NameNotFound, match="could not be looked up"):
            await resolver.addresses("dead.example")
        assert names.asked == {"dead.example": 1}

    run(work())


def test_a_hanging_look_up_does_not_hold_up_the_end_of_the_program() -> None:
    async def work() -> None:
        names = Names()
        waiting = asyncio.create_task(Resolver(names).addresses("dead.example"))
        await asyncio.to_thread(names.reached.wait, 20)
        hanging = [thread for thread in threading.enumerate() if "look-up" in thread.name]
        assert hanging
        assert all(thread.daemon for thread in hanging)
        waiting.cancel()
        names.released.set()

    run(work())
