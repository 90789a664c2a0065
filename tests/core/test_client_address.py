"""Which client stands behind a chain of proxies, when the client has written a part of the chain itself."""

from __future__ import annotations

import pytest

from postbackd.core.client_address import find_client, read_forwarded, read_ranges

PROXY, CLIENT, FORGED = "10.0.0.5", "2001:db8::7", "203.0.113.9"

WRITTEN_BY_THE_CLIENT = {
    "an element": f"for={FORGED}",
    "a quote that is not closed": f'for={FORGED};x="',
    "a quote that is not closed, and a comma": f'for={FORGED};x=",',
    "an escaped quote": f'for={FORGED};x="\\"',
    "more than a header holds": f"for={FORGED}," * 700 + " " * 100,
    "a long text": f"for={FORGED};x=" + "x" * 8150,
    "a backslash": f"for={FORGED};x=\\",
    "nothing but quotes": '"' * 99,
}


@pytest.mark.parametrize("name", WRITTEN_BY_THE_CLIENT)
@pytest.mark.parametrize("added", [f'for="[{CLIENT}]:4711"', f'proto=https;for="[{CLIENT}]";host="a\\"b"'])
def test_nothing_that_a_client_writes_hides_what_our_proxy_adds(name: str, added: str) -> None:
    header = f"{WRITTEN_BY_THE_CLIENT[name]}, {added}".encode()
    assert find_client(PROXY, read_forwarded(header), read_ranges(PROXY)) == CLIENT


def test_a_name_of_a_host_does_not_pass_for_a_client() -> None:
    header = f'for="[{CLIENT}]";host="x;for={FORGED};"'.encode()
    assert read_forwarded(header) == [CLIENT]
    assert read_forwarded(f'host="x;for={FORGED};";for="[{CLIENT}]"'.encode()) == [CLIENT]


def test_a_chain_is_followed_through_proxies_of_ours() -> None:
    header = f'for={FORGED}, For="[{CLIENT}]:1" , for=10.0.0.6;by=x,, for={PROXY}'.encode()
    assert find_client(PROXY, read_forwarded(header), read_ranges("10.0.0.0/24")) == CLIENT
    assert read_forwarded(b"for=unknown, for=_hidden") == [None, None]
