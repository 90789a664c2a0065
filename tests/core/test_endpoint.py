"""What the doctor says of what was seen from outside."""

from __future__ import annotations

import msgspec
import pytest

from postbackd.core.certificates import Term
from postbackd.core.endpoint import Seen, Tried, judge_endpoint, judge_try
from postbackd.core.finding import Finding

DAY = 86_400_000
WELL = Seen(
    host="a.example",
    port=443,
    now_ms=110 * DAY,
    addresses=["203.0.113.1", "2001:db8::1"],
    term=Term(("a.example",), 100 * DAY, 190 * DAY),
    protocols={"TLSv1": False, "TLSv1.1": None, "TLSv1.2": True, "TLSv1.3": True},
    status=200,
    body="ok\n",
)


def failed(seen: Seen) -> dict[str, Finding]:
    return {finding.check: finding for finding in judge_endpoint(seen) if not finding.ok}


def test_an_endpoint_that_is_well_passes_every_check() -> None:
    assert failed(WELL) == {}
    assert len(judge_endpoint(WELL)) == 8


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"addresses": [], "dns_error": "no such name"}, "DNS", "A and AAAA"),
        ({"refused": {"2001:db8::1": "timed out"}}, "port", "take addresses out of the DNS"),
        ({"chain_error": "unable to get local issuer certificate"}, "chain", "incomplete"),
        ({"chain_error": "self-signed certificate"}, "chain", "known authority"),
        ({"chain_error": "certificate has expired"}, "chain", "Renew"),
        ({"chain_error": "the handshake fails: alert"}, "chain", "no certificate yet"),
        ({"host": "b.example"}, "name", "Name b.example with --domain"),
        ({"now_ms": 180 * DAY}, "expiry", "renewed by now"),
        ({"now_ms": 200 * DAY}, "expiry", "renewed by now"),
        (
            {"protocols": {"TLSv1": True, "TLSv1.2": True, "TLSv1.3": True}},
            "protocols",
            "offers TLSv1, which is broken",
        ),
        ({"protocols": {"TLSv1.2": True, "TLSv1.3": False}}, "protocols", "Switch TLSv1.3 on"),
        ({"status": 404, "body": "nginx"}, "answer", "Another program"),
        ({"status": 403, "body": "Just a moment, a challenge"}, "answer", "bot check"),
        ({"status": 0, "answer_error": "reset"}, "answer", "Another program"),
    ],
)
def test_each_fault_is_found_alone_and_says_what_to_do(
    change: dict[str, object], check: str, words: str
) -> None:
    found = failed(msgspec.structs.replace(WELL, **change))
    assert set(found) == {check}
    assert words in (found[check].fix or "")


@pytest.mark.parametrize(
    ("headers", "who"),
    [
        ({"cf-ray": "1", "server": "cloudflare"}, "Cloudflare"),
        ({"via": "1.1 x"}, "a proxy"),
        ({"server": "nginx"}, "nginx"),
    ],
)
def test_whoever_stands_in_between_is_named_but_no_fault(headers: dict[str, str], who: str) -> None:
    (finding,) = [
        f for f in judge_endpoint(msgspec.structs.replace(WELL, headers=headers)) if f.check == "in between"
    ]
    assert finding.ok
    assert who in finding.detail


@pytest.mark.parametrize(
    ("tried", "ok"),
    [
        (Tried(status=200, verdict="rejected", reason="test_event", request="r", kept=True), True),
        (Tried(status=200, verdict="rejected", request="r"), True),
        (Tried(status=200, verdict="rejected", reason="test_event", request="r", kept=False), False),
        (Tried(status=200, verdict="accepted", request="r"), False),
        (Tried(status=200, verdict="unmatched", reason="click_id_missing", request="r"), False),
        (Tried(status=404), False),
        (Tried(error="timed out"), False),
    ],
)
def test_the_test_postback_is_recognised_or_something_is_in_the_way(tried: Tried, ok: bool) -> None:
    finding = judge_try(tried)
    assert finding.ok is ok
    assert ok or finding.fix
