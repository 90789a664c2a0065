"""Gives every test of the contract a fresh store of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres_server import VERSIONS
from tests.store.contract import KINDS, Kind, World

NO_SERVER = pytest.mark.skip(reason="no PostgreSQL 15 or newer was found (apt install postgresql)")

PARAMETERS = [pytest.param(kind, id=kind.name) for kind in KINDS]
if not VERSIONS:
    PARAMETERS.append(pytest.param(None, id="postgres", marks=NO_SERVER))


@pytest.fixture(params=PARAMETERS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def world(kind: Kind, tmp_path: Path) -> Iterator[World]:
    made = World(kind, tmp_path / "data")
    yield made
    made.close()
