"""Gives every test of the contract a fresh store of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.citus_server import keeping_to_the_rules
from tests.postgres_server import ADDRESS, VERSIONS
from tests.store.contract import KINDS, Kind, World

NO_SERVER = pytest.mark.skip(reason="no PostgreSQL 15 or newer was found (apt install postgresql)")

PARAMETERS = [pytest.param(kind, id=kind.name) for kind in KINDS]
if not VERSIONS:
    PARAMETERS.append(pytest.param(None, id="postgres", marks=NO_SERVER))


@pytest.fixture(scope="module", params=PARAMETERS)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    found: Kind = request.param
    with keeping_to_the_rules(VERSIONS[0]) if found.name == "citus" and not ADDRESS else nullcontext():
        yield found


@pytest.fixture(scope="function" if ADDRESS else "module")
def shared_world(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """For the tests of a module that are marked ``own_clicks``."""
    made = World(kind._replace(open=kind.open_lasting), tmp_path_factory.mktemp("shared") / "data")
    yield made
    made.close()


@pytest.fixture
def world(request: pytest.FixtureRequest, kind: Kind, tmp_path: Path) -> Iterator[World]:
    """A new one; shared by tests that look at nothing but clicks of their own and change neither clock nor catalog."""
    if request.node.get_closest_marker("own_clicks") is not None:
        shared: World = request.getfixturevalue("shared_world")
        before = (shared.now_ms, shared.rulebook, shared.store)
        yield shared
        assert before == (shared.now_ms, shared.rulebook, shared.store), "not with a shared world"
        return
    made = World(kind, tmp_path / "data")
    yield made
    made.close()
