"""T16: servers with bad certificates or none, old protocols and wrong names.

Each is refused before a byte of the request is sent, and the error says why; good certificates are accepted.
Control: a client that does not verify, which most of the same servers must be able to deceive.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path

import uvloop

from postbackd.core.deliveries import Answer, Outgoing
from postbackd.delivery.client import Client, make_tls
from postbackd.delivery.resolver import Resolver
from tests.delivery.certificates import Case, Certificates, make_certificates
from tests.delivery.targets import OK, answers, loopback, target
from tests.trust.registry import Control, Figure, Result, Size, need_tools, trust_test


@trust_test("T16", "TLS outward: expired, wrong name, unknown authority, weak, old protocols")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """0 requests reach a server with a bad certificate, and each error is the reason."""
    need_tools("openssl")
    made = make_certificates(work_dir / "certificates")
    rounds = size.pick(ci=1, nightly=10, release=50)
    tried = 0
    deceived: list[str] = []
    unclear: list[str] = []
    for _ in range(rounds):
        for name, case in made.bad.items():
            answer, reached = uvloop.run(_ask(case, made))
            tried += 1
            if answer.status or reached:
                deceived.append(name)
            if not re.search(case.error, answer.error):
                unclear.append(f"{name}: {answer.error!r}")
    good = [uvloop.run(_ask(case, made)) for case in made.good.values()]
    accepted = sum(answer.status == 200 and not answer.error for answer, _ in good)
    figures: dict[str, Figure] = {
        "n": tried,
        "kinds": len(made.bad),
        "deceived": len(deceived),
        "wrong reason": len(unclear),
        "good accepted": f"{accepted} of {len(good)}",
    }
    passed = not deceived and not unclear and accepted == len(good) and len(made.bad) >= 16
    return Result(passed, figures, (_control(made),), "; ".join([*deceived[:5], *unclear[:5]]))


async def _ask(case: Case, made: Certificates) -> tuple[Answer, int]:
    """The answer, and how many requests reached the server."""
    async with target(answers(OK), case.context()) as running:
        resolver = Resolver(lambda host: [(2, 1, 6, "", ("127.0.0.1", 0))])
        client = Client(loopback(running.port), make_tls(str(made.authority)), resolver)
        request = Outgoing("POST", f"https://{case.host}:{running.port}/", body=b"secret")
        answer = await client.send(request, connect_ms=5000, total_ms=5000)
        await client.close()
        return answer, len(running.requests)


def _control(made: Certificates) -> Control:
    fooled = sum(asyncio.run(_ask_carelessly(case)) for case in made.bad.values())
    return Control("a client that does not verify", fooled >= 16, {"deceived": fooled})


async def _ask_carelessly(case: Case) -> bool:
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    careless.minimum_version = ssl.TLSVersion.TLSv1
    careless.set_ciphers("ALL:aNULL:@SECLEVEL=0")
    async with target(answers(OK), case.context()) as running:
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", running.port, ssl=careless, server_hostname=case.host
            )
        except OSError:
            return False
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answered = await reader.readline()
        writer.transport.abort()
        return answered.startswith(b"HTTP/1.1 200")
