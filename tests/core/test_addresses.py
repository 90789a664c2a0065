"""Which addresses deliveries may connect to."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from postbackd.core.addresses import Allowed, read_allowed

PUBLIC = Allowed()

V4 = {
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "100.64.0.1": "shared",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "169.254.1.1": "link-local",
    "169.254.169.254": "metadata",
    "169.254.170.2": "metadata",
    "168.63.129.16": "metadata",
    "100.100.100.200": "metadata",
    "192.0.0.8": "reserved",
    "192.0.2.1": "documentation",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "198.18.0.1": "benchmarks",
    "198.19.255.255": "benchmarks",
    "192.88.99.1": "reserved",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
}

V6 = {
    "::": "unspecified",
    "::1": "loopback",
    "fc00::1": "private",
    "fd12:3456::1": "private",
    "fd00:ec2::254": "metadata",
    "fd20:ce::254": "metadata",
    "fe80::1": "link-local",
    "fec0::1": "private",
    "ff02::1": "multicast",
    "2001:db8::1": "documentation",
    "3fff::1": "documentation",
    "2001:2::1": "benchmarks",
    "2001:20::1": "reserved",
    "100::1": "reserved",
    "5f00::1": "reserved",
    "4000::1": "reserved",
    "64:ff9b:1::808:808": "local NAT64",
}

ALLOWED = [
    "8.8.8.8",
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
    "2001:0:808:808::f7f7:f7f7",
    "2606:4700::5efe:808:808",
]


def hide(address: str) -> dict[str, str]:
    """Every IPv6 address that stands for an IPv4 address."""
    bits = int(IPv4Address(address))
    spread = (bits >> 16 << 64) | (bits & 0xFFFF) << 40
    return {
        "mapped": f"::ffff:{address}",
        "compatible": f"::{address}",
        "translated": f"::ffff:0:{address}",
        "NAT64": f"64:ff9b::{address}",
        "local NAT64 /96": f"64:ff9b:1::{address}",
        "local NAT64 /48": str(IPv6Address(int(IPv6Address("64:ff9b:1::")) | spread)),
        "6to4": str(IPv6Address(0x2002 << 112 | bits << 80 | 1)),
        "Teredo client": str(IPv6Address(0x20010000_08080808 << 64 | bits ^ 0xFFFFFFFF)),
        "Teredo server": str(IPv6Address(0x20010000 << 96 | bits << 64 | 0xF7F7F7F7)),
        "ISATAP": f"2606:4700::5efe:{address}",
        "ISATAP, universal": f"2606:4700::200:5efe:{address}",
    }


@pytest.mark.parametrize(("address", "what"), [*V4.items(), *V6.items()])
def test_what_is_not_public_unicast_is_refused_and_named(address: str, what: str) -> None:
    said = PUBLIC.refusal(address, 443)
    assert what in said
    assert said.endswith("; allow it with --deliver-ranges")


@pytest.mark.parametrize("address", ALLOWED)
def test_public_unicast_is_allowed(address: str) -> None:
    assert PUBLIC.refusal(address, 443) == ""


@pytest.mark.parametrize("address", V4)
def test_a_forbidden_address_is_refused_inside_every_ipv6_form(address: str) -> None:
    passed = {name: hidden for name, hidden in hide(address).items() if not PUBLIC.refusal(hidden, 80)}
    assert passed == {}


def test_a_refusal_names_the_address_that_is_meant() -> None:
    said = PUBLIC.refusal("64:ff9b::a9fe:a9fe", 80)
    assert said.startswith(
        "address 64:ff9b::a9fe:a9fe means 169.254.169.254, which is a cloud's metadata service"
    )


def test_an_allowed_range_allows_the_embedded_address_too() -> None:
    allowed = read_allowed("127.0.0.0/8")
    assert allowed.refusal("127.0.0.1", 80) == ""
    assert allowed.refusal("::ffff:127.0.0.1", 80) == ""
    assert allowed.refusal("64:ff9b::7f00:1", 80) == ""
    assert "private" in allowed.refusal("::ffff:10.0.0.1", 80)
    assert "loopback" in allowed.refusal("::1", 80)


def test_an_allowed_ipv6_range_does_not_open_what_is_behind_a_gateway() -> None:
    allowed = read_allowed("64:ff9b::/96, 64:ff9b:1::/48, 2002::/16")
    assert allowed.refusal("64:ff9b:1::8.8.8.8", 80) == ""
    for name, hidden in hide("169.254.169.254").items():
        assert "169.254.169.254" in allowed.refusal(hidden, 80), name


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1%25eth0", "2606:4700::1%1", "::1%lo"])
def test_an_address_with_a_zone_is_refused_even_when_its_range_is_allowed(address: str) -> None:
    assert "zone" in read_allowed("::/0").refusal(address, 80)


@pytest.mark.parametrize("text", ["", "localhost", "0177.0.0.1", "2130706433", "0x7f.1", "127.1", "1.2.3.4 "])
def test_what_is_no_numeric_address_is_refused(text: str) -> None:
    assert "no IP address" in read_allowed("0.0.0.0/0").refusal(text, 80)


def test_only_the_allowed_ports_are_open() -> None:
    assert PUBLIC.refusal("8.8.8.8", 22) == "port 22 is not allowed; allow it with --deliver-ports"
    allowed = read_allowed(ports="443 8000-8002")
    assert [port for port in (80, 443, 7999, 8000, 8002, 8003) if not allowed.refusal("8.8.8.8", port)] == [
        443,
        8000,
        8002,
    ]


def test_settings_are_read_with_commas_and_spaces() -> None:
    allowed = read_allowed("127.0.0.0/8, fd00::/8  10.1.0.0/16,", "80,443, 8090")
    assert allowed.ranges == (ip_network("127.0.0.0/8"), ip_network("fd00::/8"), ip_network("10.1.0.0/16"))
    assert allowed.ports == {80, 443, 8090}
    assert read_allowed() == Allowed()


@pytest.mark.parametrize(
    ("ranges", "ports", "sentence"),
    [
        ("10.1.2.3/16", "80", "'10.1.2.3/16' is no range of addresses; write it like 10.1.0.0/16"),
        ("private", "80", "'private' is no range"),
        ("", "0", "'0' is no port; write it like 443"),
        ("", "65536", "'65536' is no port"),
        ("", "90-80", "'90-80' is no port"),
        ("", "http", "'http' is no port"),
    ],
)
def test_a_setting_that_cannot_be_read_says_how_to_write_it(ranges: str, ports: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="; write it like") as raised:
        read_allowed(ranges, ports)
    assert sentence in str(raised.value)


def test_no_random_address_of_a_forbidden_range_is_allowed() -> None:
    draw = random.Random(4)
    for text in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "0.0.0.0/8"):
        network = ip_network(text)
        for _ in range(200):
            address = str(network[draw.randrange(network.num_addresses)])
            assert PUBLIC.refusal(address, 80)
            assert all(PUBLIC.refusal(hidden, 80) for hidden in hide(address).values()), address
