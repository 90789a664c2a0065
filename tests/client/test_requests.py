"""URLs, templates and presets; signatures by the vectors that every implementation passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from postbackd.core.senders import Scheme
from postbackd.core.signature import Signed, verify
from postbackd_client import Conversion, EndpointError, Tracker, preset
from postbackd_client.endpoint import read_endpoint
from postbackd_client.presets import PRESETS
from postbackd_client.signing import HEADER, write_canonical, write_signature

VECTORS = json.loads((Path(__file__).parents[2] / "spec/vectors/signatures.json").read_text("utf-8"))


def target(template: str, **fields: Any) -> str:
    return read_endpoint(template).request(Conversion("abc", **fields)).target


# --- templates -----------------------------------------------------------------------------------------------


def test_a_template_is_filled_with_encoded_values_and_is_itself_left_alone() -> None:
    template = "https://t.example/a%2Fb/{type}?cid={click_id}&x=%7B&v={value}"
    assert target(template, type="a b/ä", value="1&2") == "/a%2Fb/a%20b%2F%C3%A4?cid=abc&x=%7B&v=1%262"


def test_a_parameter_without_a_value_is_left_out() -> None:
    template = "https://t.example/?cid={click_id}&v={value}&k=1&s={sub1}&both={value}{currency}"
    assert target(template, currency="USD") == "/?cid=abc&k=1&both=USD"
    assert target(template, extra={"sub1": "x"}) == "/?cid=abc&k=1&s=x"


def test_the_type_that_says_nothing_is_left_out() -> None:
    assert target("https://t.example/?cid={click_id}&et={type}") == "/?cid=abc"
    assert target("https://t.example/?cid={click_id}&et={type}", type="lead") == "/?cid=abc&et=lead"


def test_an_endpoint_of_postbackd_gets_a_form_that_is_in_no_access_log() -> None:
    request = read_endpoint("https://t.example/p/KEY").request(
        Conversion("abc", "sale", "12.50", "USD", "A 1", time=5, extra={"sub1": "ä"})
    )
    assert (request.method, request.target) == ("POST", "/p/KEY")
    assert parse_qsl(request.body.decode()) == [
        ("click_id", "abc"),
        ("type", "sale"),
        ("value", "12.50"),
        ("currency", "USD"),
        ("txid", "A 1"),
        ("time", "5"),
        ("sub1", "ä"),
    ]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("track.example.com/p/KEY", "must be like"),
        ("ftp://t.example/p", "must be like"),
        ("https:///p/KEY", "must be like"),
        ("http://track.example.com/p/KEY", "use https"),
        ("https://t.example/p/KEY#x", "fragment"),
        ("https://me:word@t.example/p/KEY", "user name"),
        ("https://t.example/p/K EY", "white space"),
        ("https://t.example/p/KEY\r\nX: y", "white space"),
        ("https://{click_id}.example/p", "in the host"),
        ("https://t.example/?cid={clickid}", r"no \{click_id\} \(it has \{clickid\}\)"),
        ("https://t.example/?cid={click_id}&v={val-ue}", "something else in braces"),
        ("https://t.example/?cid={click_id", "in braces"),
        ("https://t.example:99999/p", "Port out of range"),
        ("https://[::1/p", "must be like"),
    ],
)
def test_a_url_to_which_nothing_could_be_sent_is_refused_with_what_to_do(url: str, says: str) -> None:
    with pytest.raises(EndpointError, match=says):
        read_endpoint(url)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:80", "shop.localhost"])
def test_plain_http_stays_on_this_machine(host: str) -> None:
    assert not read_endpoint(f"http://{host}/p/KEY").secure
    assert not read_endpoint("http://tracker.internal/p/KEY", allow_http=True).secure


def test_the_url_is_a_secret() -> None:
    endpoint = read_endpoint("https://t.example:8443/p/SECRETKEY?token=SECRETTOO")
    assert "SECRET" not in repr(endpoint)
    assert endpoint.place == "t.example:8443"


# --- presets -------------------------------------------------------------------------------------------------

SETTINGS = {"domain": "track.example.com", "key": "abc123", "nid": "77"}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_carries_what_a_conversion_is_about(name: str) -> None:
    found = PRESETS[name]
    made = preset(name, **{setting: SETTINGS[setting] for setting in found.settings})
    request = read_endpoint(made).request(Conversion("C-1", "sale", "12.50", "USD", "T-1", "approved"))
    sent = dict(parse_qsl(request.query or request.body.decode()))
    assert {"C-1", "12.50", "T-1"} <= set(sent.values())
    assert found.sources
    assert found.grade in ("vendor", "others")
    assert found.grade == "vendor" or found.note


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("volum", {}, "there are postbackd, voluum"),
        ("voluum", {}, r'preset\("voluum", domain="…"\)'),
        ("voluum", {"domain": "a.example", "key": "x"}, "write it as"),
        ("voluum", {"domain": "a.example/x?{click_id}"}, "letters, digits"),
    ],
)
def test_a_preset_that_cannot_be_says_how_it_is_written(
    name: str, settings: dict[str, str], says: str
) -> None:
    with pytest.raises(EndpointError, match=says):
        preset(name, **settings)


def test_a_tracker_of_ones_own_can_say_how_it_refuses() -> None:
    assert read_endpoint(Tracker("https://t.example/?c={click_id}")).is_template


# --- signatures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", VECTORS["canonical"], ids=lambda case: str(case["note"]))
def test_what_is_signed_is_written_as_the_vectors_say(case: dict[str, Any]) -> None:
    parts = (case["method"], case["path"], case["query"], case["body"].encode())
    assert write_canonical(*parts, case["time"]).decode() == case["text"]
    header = f"t={case['time']},v1={case['signature']}"
    assert write_signature(case["secret"], *parts, int(case["time"])) == header


def test_the_server_takes_a_signature_and_refuses_it_for_anything_else() -> None:
    request = read_endpoint("https://t.example/p/KEY?a=b c".replace(" ", "+")).request(
        Conversion("abc", value=1)
    )
    header = write_signature("secret", request.method, request.path, request.query, request.body, 1750000000)
    headers = {HEADER.lower().encode(): header.encode()}
    genuine = Signed(request.method, request.path, request.query, request.body, headers)
    changed = Signed(request.method, request.path, request.query, request.body + b"0", headers)
    assert verify(Scheme(), ["secret"], genuine, 1750000000_000).reason == 0
    assert verify(Scheme(), ["secret"], changed, 1750000000_000).reason
    assert verify(Scheme(), ["other"], genuine, 1750000000_000).reason
