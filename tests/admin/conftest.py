"""What several modules of these tests begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.admin.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose database is empty."""
    with Site(tmp_path_factory.mktemp("admin") / "data") as running:
        yield running
