"""Gives every test of the contract a fresh store of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.contract import KINDS, Kind, World


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def world(kind: Kind, tmp_path: Path) -> Iterator[World]:
    made = World(kind, tmp_path / "data")
    yield made
    made.close()
