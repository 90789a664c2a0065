"""The examples under servers that fork: what any worker was told arrives once, also of one that was killed."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from postbackd.core.click_id import read_unverified
from tests.client.serving import Serving, Valve, serving
from tests.ingest.shop import KEY, Shop
from tests.trust.server import wait_until

_DEADLINE_S = 60.0
_GUNICORN = ["-m", "gunicorn", "--bind", "127.0.0.1:PORT", "--no-control-socket", "--workers"]
# Its watch takes a worker that stands still so long for dead; and it waits as long for one that was killed meanwhile.
_UVICORN = ["-m", "uvicorn", "--port", "PORT", "--timeout-worker-healthcheck", "10"]
SERVERS = {
    "gunicorn with Flask": [*_GUNICORN, "2", "flask_shop:app"],
    "gunicorn with Django, loaded before the fork": [*_GUNICORN, "2", "--preload", "shop.wsgi"],
    "uvicorn with FastAPI": [*_UVICORN, "--workers", "2", "fastapi_shop:app"],
}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("tracker") / "data")
    yield made
    made.close()


@pytest.fixture
def valve(tracker: Shop) -> Iterator[Valve]:
    made = Valve(tracker.port)
    yield made
    made.close()


def buy(shop: Serving, click_id: str) -> None:
    """A visitor's whole journey."""
    status, _, jar = shop.visit("GET", f"/?click_id={click_id}")
    assert (status, "pbk" in jar) == (200, True)
    _, page, jar = shop.visit("GET", "/product", jar)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    form = f"csrfmiddlewaretoken={token[1]}" if token else ""
    status, _, jar = shop.visit("POST", "/checkout", jar, form)
    assert status in (302, 303), shop.log


def kill(shop: Serving, worker: int) -> int:
    """Kill a worker as nothing can prevent; returns the one that the server starts in its place."""
    before = set(shop.workers())
    os.kill(worker, signal.SIGKILL)
    started: list[int] = []

    def replaced() -> bool:
        started[:] = set(shop.workers()) - before
        return bool(started)

    wait_until(replaced, _DEADLINE_S, "another worker")
    return started[0]


def counted(tracker: Shop, click_ids: Sequence[str]) -> list[int]:
    """How many conversions each click has."""
    rows = tracker.rows("SELECT click_id, count(*) AS n FROM conversions GROUP BY click_id")
    found = {row["click_id"]: int(row["n"]) for row in rows}
    return [found.get((read_unverified(text) or 0) >> 64, 0) for text in click_ids]


@pytest.mark.parametrize("name", SERVERS)
def test_what_every_worker_was_told_arrives_once_and_a_killed_one_loses_nothing(
    name: str, tracker: Shop, valve: Valve, tmp_path: Path
) -> None:
    clicks = [tracker.click() for _ in range(7)]
    waiting = iter(clicks)
    with serving(SERVERS[name], tmp_path, f"http://127.0.0.1:{valve.port}/p/{KEY}") as shop:
        shop.wait(2)
        first, second = shop.workers()
        for worker in (first, second):
            with shop.only(worker):
                for _ in range(3):
                    buy(shop, next(waiting))
        another = kill(shop, first)
        assert counted(tracker, clicks) == [0] * 7, "the tracker was away"
        valve.open()
        with shop.only(another):
            buy(shop, next(waiting))
        wait_until(lambda: counted(tracker, clicks) == [1] * 7, _DEADLINE_S, f"seven conversions\n{shop.log}")


def test_a_client_that_remembers_in_its_process_alone_loses_what_a_killed_worker_had(
    tracker: Shop, valve: Valve, tmp_path: Path
) -> None:
    lost, kept = tracker.click(), tracker.click()
    command = [*_GUNICORN, "1", "tests.client.forgetful:app"]
    with serving(command, tmp_path, f"http://127.0.0.1:{valve.port}/p/{KEY}") as shop:
        shop.wait(1)
        buy(shop, lost)
        kill(shop, *shop.workers())
        valve.open()
        buy(shop, kept)
        wait_until(lambda: counted(tracker, [kept]) == [1], _DEADLINE_S, "the conversion")
    assert counted(tracker, [lost]) == [0]
