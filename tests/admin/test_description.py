"""The API does what its own description says: schemathesis tries every endpoint of the real application by it.

All its phases run: examples, coverage of the constraints, fuzzing, and sequences of calls.  The store is thrown away.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from starlette.requests import Request

from postbackd.admin.endpoints import NOBODY, Principal
from postbackd.admin.problems import Problem
from tests.admin.site import EVERYTHING, Letting, Site
from tests.store.contract import KINDS, Kind

CONFIG = """
seed = 20261126

[generation]
max-examples = 2
deterministic = true
no-shrink = true
with-security-parameters = false

[phases.coverage]
enabled = %s
unexpected-methods = ["put"]

[phases.stateful]
max-steps = 6
generation.max-examples = 3

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "412", "422", "503"]

[[operations]]
include-method = "PATCH"
phases.coverage.enabled = false

[[operations]]
include-path = "/api/v1/log/live"
enabled = false

[[operations]]
include-path = "/api/v1/session"
phases.coverage.enabled = false

[[operations]]
include-path = "/api/v1/welcome"
phases.coverage.enabled = false
checks.positive_data_acceptance.expected-statuses = ["2xx", "410"]
"""
"""422: what the description cannot say, such as names that have to exist.  409, 412: what somebody else has changed.

The constraints of a change are those of the new entry, which are covered by POST.  Of ``/session`` and ``/welcome``
each try costs a slow hash, and a code that is over is answered 410.  On the second store the constraints are the same.
``/log/live`` never ends by itself.
"""


class Wanting(Letting):
    """Wants a token."""

    async def identify(self, request: Request) -> Principal:
        given = request.headers.get("authorization")
        if given is None:
            return NOBODY
        if given != "Bearer right":
            raise Problem(401, "this token is none", headers={"WWW-Authenticate": "Bearer"})
        return Principal("the test", EVERYTHING)


@pytest.mark.parametrize("kind", KINDS[:2], ids=lambda kind: kind.name)
def test_every_endpoint_does_what_its_description_says(tmp_path: Path, kind: Kind) -> None:
    covers = kind is KINDS[0]
    site = Site(tmp_path / "data", kind.open)
    site.doorkeeper = Wanting()
    with site:
        config = SchemathesisConfig.from_str(CONFIG % ("true" if covers else "false"))
        config.projects.default.headers = {"Authorization": "Bearer right"}
        schema = schemathesis.openapi.from_url(f"{site.base}/api/openapi.json", config=config)
        problems: list[str] = []
        cases: Counter[str] = Counter()
        for event in from_schema(schema).execute():
            if isinstance(event, events.ScenarioFinished):
                cases[event.phase.name] += len(event.recorder.cases)
                problems += find_problems(event)
            elif isinstance(event, events.NonFatalError | events.FatalError):
                problems.append(str(event))
    assert problems == []
    wanted = {"EXAMPLES", "FUZZING", "STATEFUL_TESTING"} | ({"COVERAGE"} if covers else set())
    assert {phase for phase, count in cases.items() if count} == wanted


def find_problems(event: events.ScenarioFinished) -> list[str]:
    found = []
    for case_id, checks in event.recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                case = event.recorder.cases[case_id].value
                sent = f"{case.method} {case.formatted_path} {case.query} {case.headers} {case.body!r}"[:600]
                found.append(f"{check.name}: {sent}: {check.failure_info.failure}"[:1500])
    return found
