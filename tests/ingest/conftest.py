"""One server for all tests of a module; tests tell their rows apart by their own clicks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ingest.shop import Shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("shop") / "data")
    yield made
    made.close()
