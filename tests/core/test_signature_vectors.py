"""The cases of ``spec/vectors/signatures.json``: every one of them holds here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postbackd.core.client_address import AddressRanges
from postbackd.core.diagnosis import Reason
from postbackd.core.proxy_protocol import ProxyHeaderMalformed, read_proxy_header
from postbackd.core.sender_rules import Sender, SenderRules
from postbackd.core.senders import Scheme, Secret, Senders
from postbackd.core.signature import Signed, check_scheme, sign, verify, write_canonical
from postbackd.ingest.client import Proxies

Case = dict[str, Any]

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "spec" / "vectors" / "signatures.json").read_text("utf-8")
)


def cases(section: str) -> pytest.MarkDecorator:
    found = VECTORS[section]
    return pytest.mark.parametrize("case", found, ids=[str(c.get("note", n)) for n, c in enumerate(found)])


def signed_of(case: Case) -> Signed:
    headers = {name.encode(): value.encode() for name, value in case.get("headers", {}).items()}
    return Signed(case.get("method", "GET"), case["path"], case["query"], case["body"].encode(), headers)


@cases("canonical")
def test_what_is_signed_is_written_the_same_everywhere(case: Case) -> None:
    signed = signed_of(case)
    assert write_canonical(signed, case["time"]).decode() == case["text"]
    assert sign(Scheme(), signed, case["secret"], case["time"]) == case["signature"]


@cases("verify")
def test_a_signature_of_our_own_scheme_is_judged_the_same_everywhere(case: Case) -> None:
    request = {**VECTORS["request"], **case}
    found = verify(Scheme(), request["secrets"], signed_of(request), request["now"] * 1000)
    assert Reason(found.reason).word == case["reason"]
    assert bool(found.signed_ms) == bool(found.print) == (not found.reason)


@cases("schemes")
def test_the_signatures_of_known_senders_are_judged_the_same_everywhere(case: Case) -> None:
    scheme = msgspec.convert(case["scheme"], Scheme)
    check_scheme(scheme)
    senders = Senders(signature_mode="enforce", scheme=scheme, secrets=(Secret(case["secret"]),))
    rules = SenderRules(senders, str, case.get("names", {}))
    found = rules.check(Sender(signed_of(case), ""), 0)
    assert Reason(found.refused).word == case["reason"]


@cases("clients")
def test_the_client_behind_proxies_is_found_the_same_everywhere(case: Case) -> None:
    proxies = Proxies(AddressRanges(case["trusted"]), case["header"])
    assert (
        proxies.client_of(case["peer"], {case["header"].encode(): case["value"].encode()}) == case["client"]
    )


@cases("proxy_headers")
def test_a_proxy_header_is_read_the_same_everywhere(case: Case) -> None:
    data = bytes.fromhex(case["hex"])
    if case.get("malformed"):
        with pytest.raises(ProxyHeaderMalformed):
            read_proxy_header(data)
        return
    header = read_proxy_header(data)
    if case.get("incomplete"):
        assert header is None
        return
    assert header is not None
    assert (header.address, len(data) - header.length) == (case["address"], case["rest"])


@cases("proxy_headers")
def test_a_proxy_header_that_comes_byte_by_byte_is_read_the_same(case: Case) -> None:
    data = bytes.fromhex(case["hex"])
    try:
        read = [read_proxy_header(data[:end]) for end in range(1, len(data) + 1)]
    except ProxyHeaderMalformed:
        assert case.get("malformed")
        return
    whole = next((header for header in read if header is not None), None)
    assert whole == read_proxy_header(data)
