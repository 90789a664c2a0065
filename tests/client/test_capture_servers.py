"""The examples under servers that fork: what any worker was told arrives once, also of one that was killed."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.client.serving import Serving, Valve, serving
from tests.ingest.shop import KEY, Shop
from tests.trust.server import wait_until

_DEADLINE_S = 30.0

_GUNICORN = ["-m", "gunicorn", "--bind", "127.0.0.1:PORT", "--no-control-socket", "--workers", "2"]
SERVERS = {
    "gunicorn with Flask": [*_GUNICORN, "flask_shop:app"],
    "gunicorn with Django, loaded before the fork": [*_GUNICORN, "--preload", "shop.wsgi"],
    "uvicorn with FastAPI": ["-m", "uvicorn", "--port", "PORT", "--workers", "2", "fastapi_shop:app"],
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


def buy(shop: Serving, click_id: str) -> str:
    """A visitor's whole journey; returns the order's number."""
    status, _, jar = shop.visit("GET", f"/?click_id={click_id}")
    assert status == 200
    _, page, jar = shop.visit("GET", "/product", jar)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    form = f"csrfmiddlewaretoken={token[1]}" if token else ""
    status, _, jar = shop.visit("POST", "/checkout", jar, form)
    assert status in (302, 303)
    return click_id


def counted(tracker: Shop) -> dict[str, int]:
    """Click -> its conversions."""
    rows: list[dict[str, Any]] = tracker.rows(
        "SELECT click_text AS click, count(DISTINCT conversion) AS n FROM postbacks GROUP BY 1"
    )
    return {row["click"]: row["n"] for row in rows}


@pytest.mark.parametrize("command", SERVERS.values(), ids=list(SERVERS))
def test_what_every_worker_was_told_arrives_once_and_a_killed_one_loses_nothing(
    command: Sequence[str], tracker: Shop, valve: Valve, tmp_path: Path
) -> None:
    before = tracker.count("conversions")
    with serving(command, tmp_path, f"http://127.0.0.1:{valve.port}/p/{KEY}") as shop:
        shop.wait(2)
        first, second = shop.workers()
        for worker in (first, second):
            with shop.only(worker):
                for _ in range(3):
                    buy(shop, tracker.click())
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(first), _DEADLINE_S, "the end of the killed worker")
        assert tracker.count("conversions") == before
        valve.open()
        buy(shop, tracker.click())
        wait_until(lambda: tracker.count("conversions") == before + 7, _DEADLINE_S, "seven conversions")
    assert tracker.count("conversions") == before + 7
