"""One real server for all tests of a module, and a scripted tracker for each test that wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postbackd.ingest.client import Entrance
from tests.client.tracker import Tracker, scripted
from tests.ingest.shop import Shop


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("server") / "data", entrance=Entrance(open_secret=str))
    yield made
    made.close()


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    with scripted() as running:
        yield running
