"""One server for all tests of a module; tests tell their rows apart by their own clicks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postbackd.ingest import front_door
from tests.ingest.shop import Shop

PATIENT_S = front_door._TICK_S
"""How often a server really looks."""


@pytest.fixture(scope="package", autouse=True)
def _impatient() -> Iterator[None]:
    """A server looks often whether the catalog has changed; what it finds and does is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(front_door, "_TICK_S", 0.01)
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("shop") / "data")
    yield made
    made.close()
