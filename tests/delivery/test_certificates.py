"""Certificates: the good ones are accepted, every bad one is refused with its reason before a byte is sent."""

from __future__ import annotations

import asyncio
import re
import shutil

import pytest
import uvloop

from postbackd.core.deliveries import Answer, Outgoing
from postbackd.delivery.client import Client, make_tls
from postbackd.delivery.resolver import Resolver
from tests.delivery.certificates import Case, Certificates, make_certificates
from tests.delivery.targets import OK, answers, loopback, target


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    assert shutil.which("openssl"), "these tests need the openssl command (apt-get install openssl)"
    return make_certificates(tmp_path_factory.mktemp("certificates"))


async def ask(case: Case, authority: str) -> tuple[Answer, int]:
    """The answer, and how many requests reached the server."""
    async with target(answers(OK), case.context()) as running:
        resolver = Resolver(lambda host: [(2, 1, 6, "", ("127.0.0.1", 0))])
        client = Client(loopback(running.port), make_tls(authority), resolver)
        url = f"https://{case.host}:{running.port}/"
        answer = await client.send(Outgoing("GET", url), connect_ms=5000, total_ms=5000)
        await client.close()
        return answer, len(running.requests)


def test_good_certificates_are_accepted(made: Certificates) -> None:
    for name, case in made.good.items():
        answer, reached = uvloop.run(ask(case, str(made.authority)))
        assert (answer.status, answer.error, reached) == (200, "", 1), name


def test_bad_certificates_are_refused_with_their_reason(made: Certificates) -> None:
    async def ask_all() -> list[tuple[Answer, int]]:
        return await asyncio.gather(*(ask(case, str(made.authority)) for case in made.bad.values()))

    found = uvloop.run(ask_all())
    assert len(found) >= 16
    for (name, case), (answer, reached) in zip(made.bad.items(), found, strict=True):
        assert re.search(case.error, answer.error), (name, answer.error)
        assert (answer.status, reached) == (0, 0), name
