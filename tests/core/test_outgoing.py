"""Requests to targets: filled safely whatever the values, refused when they cannot be sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.click_id import write_stamp
from postbackd.core.deliveries import Delivery, Facts, Owed
from postbackd.core.model import How, RequestForm
from postbackd.core.outgoing import (
    RequestTemplate,
    TemplateError,
    compile_form,
    convert_preset_url,
    delivery_values,
    placeholders_left,
)
from postbackd.core.statuses import Status
from postbackd.core.templates import KNOWN
from postbackd.presets import load_presets
from tests.core.desk import CLICK, NOW_MS, REQUEST, stamp_at

_ROOT = Path(__file__).parents[2]
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (_ROOT / "spec/vectors/outgoing.json").read_text("utf-8")
)

PRINTABLE = re.compile(r"[!-~]*")
HEADER_VALUE = re.compile(r"[ -~]*")
ANY_VALUES = st.fixed_dictionaries({name: st.none() | st.text() for name in KNOWN})
WHOLE_VALUES = st.fixed_dictionaries(
    {name: st.text(st.characters(exclude_categories=["Cs"]), min_size=1) for name in KNOWN}
)
PAIRS = "&".join(f"{name}={{{name}}}" for name in KNOWN)
PATH = "/".join(f"{{{name}}}" for name in KNOWN)
EVERYWHERE = RequestForm(
    url=f"https://ads.example:8443/{PATH}/end?{PAIRS}&key={{account.KEY}}",
    method="POST",
    body_type="json",
    body=json.dumps({name: f"{{{name}}}" for name in KNOWN} | {"all": PATH, "n": "{value:number}"}),
    headers={f"X-{name}": f"<{{{name}}}>" for name in KNOWN},
)


def make(
    url: str = "https://ads.example/", *accounts: str, on_empty: str = "drop", **of_form: Any
) -> RequestTemplate:
    return compile_form(RequestForm(url=url, **of_form), on_empty, accounts)


def cases(section: str) -> pytest.MarkDecorator:
    found = VECTORS[section]
    ids = [
        f"{n}:{ascii(case.get('note') or case.get('message') or case.get('pattern'))[:40]}"
        for n, case in enumerate(found)
    ]
    return pytest.mark.parametrize("case", found, ids=ids)


def compile_case(case: Mapping[str, Any]) -> RequestTemplate:
    form = msgspec.convert(case["form"], RequestForm)
    return compile_form(form, case.get("on_empty", "drop"), case.get("accounts", {}))


@cases("fill")
def test_a_request_is_filled(case: dict[str, Any]) -> None:
    filled = compile_case(case).fill(case["values"], case.get("accounts", {}))
    assert filled.method == case["form"].get("method", "GET")
    assert filled.url == case["url"]
    assert [list(pair) for pair in filled.headers] == case.get("headers", [])
    assert filled.body == case.get("body", "").encode("utf-8")


@cases("refuse")
def test_an_unusable_request_is_refused_with_its_place_and_the_next_step(case: dict[str, Any]) -> None:
    with pytest.raises(TemplateError) as refusal:
        compile_case(case)
    for text in case["message"]:
        assert text in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert "secret" not in str(refusal.value)


@cases("presets")
def test_the_pattern_of_a_preset_gets_our_macros(case: dict[str, Any]) -> None:
    converted = convert_preset_url(case["pattern"], case.get("given"))
    assert (converted, list(placeholders_left(converted))) == (case["converted"], case["left"])


# --- whatever the values hold ---------------------------------------------------------------------------------


@given(ANY_VALUES, st.text(), st.sampled_from(["drop", "empty"]))
def test_no_value_leaves_its_place(values: dict[str, str | None], key: str, on_empty: str) -> None:
    filled = compile_form(EVERYWHERE, on_empty, {"KEY"}).fill(values, {"KEY": key})
    url = urlsplit(filled.url)
    assert PRINTABLE.fullmatch(filled.url)
    assert filled.url.startswith("https://ads.example:8443/")
    assert url.path.count("/") == len(KNOWN) + 1
    assert not {".", ".."} & set(url.path.split("/"))
    assert url.path.endswith("/end")
    assert url.fragment == ""
    assert [pair.partition("=")[0] for pair in url.query.split("&") if pair] == [
        name for name in (*KNOWN, "key") if on_empty == "empty" or values.get(name, key)
    ]
    for name, value in filled.headers:
        assert HEADER_VALUE.fullmatch(name + value)
    assert set(json.loads(filled.body)) <= {*KNOWN, "all", "n"}


@given(WHOLE_VALUES)
def test_the_receiver_reads_back_exactly_the_values(values: dict[str, str]) -> None:
    filled = compile_form(EVERYWHERE, "empty", {"KEY"}).fill(values, {"KEY": "k"})
    url = urlsplit(filled.url)
    assert dict(parse_qsl(url.query, keep_blank_values=True)) == values | {"key": "k"}
    assert [unquote(part) for part in url.path.split("/")[1:-1]] == [values[name] for name in KNOWN]
    document = json.loads(filled.body)
    assert {name: document[name] for name in KNOWN} == values
    assert document["all"] == "/".join(values[name] for name in KNOWN)


@given(WHOLE_VALUES)
def test_a_form_is_read_back_exactly(values: dict[str, str]) -> None:
    filled = make(method="POST", body_type="form", body=PAIRS).fill(values, {})
    assert dict(parse_qsl(filled.body.decode("ascii"), keep_blank_values=True)) == values


@given(st.text() | st.text(alphabet="{}$[]#%_?&=/abc@: \r\n", max_size=30))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    for form in (
        RequestForm(url=text),
        RequestForm(url="https://ads.example" + text),
        RequestForm(url="https://ads.example/?a=" + text),
        RequestForm(url="https://ads.example/", method="POST", body_type="form", body=text),
        RequestForm(url="https://ads.example/", method="POST", body_type="json", body=text),
        RequestForm(url="https://ads.example/", method="POST", body_type="json", body=json.dumps([text])),
        RequestForm(url="https://ads.example/", headers={"X": text, text: "1"}),
    ):
        with suppress(TemplateError):
            filled = compile_form(form, "drop", ()).fill({}, {})
            assert PRINTABLE.fullmatch(filled.url)
            assert all(HEADER_VALUE.fullmatch(value) for _, value in filled.headers)


@given(st.text(alphabet="{}$[]%_!@abc.=&", max_size=30))
def test_any_mixture_of_foreign_delimiters_passes_or_is_refused(text: str) -> None:
    url = "https://ads.example/?a=" + text
    with suppress(TemplateError):
        assert make(url).fill({}, {}).url == url


def test_a_deeply_nested_document_is_refused() -> None:
    with pytest.raises(TemplateError, match="nested too deeply"):
        make(method="POST", body_type="json", body="[" * 100_000 + "]" * 100_000)


# --- what a template knows of itself --------------------------------------------------------------------------


def test_a_template_names_its_macros_and_its_account_values() -> None:
    template = make(
        "https://ads.example/{sub1}?{sub2}={sub3}&k={account.KEY}&x={{sub9}}",
        *("KEY", "TOKEN", "SPARE"),
        method="POST",
        body_type="json",
        body='{"a": ["{goal}", "{value:number}", 1]}',
        headers={"X-A": "{country}", "Authorization": "Bearer {account.TOKEN}"},
    )
    assert template.macros == {"sub1", "sub2", "sub3", "goal", "value", "country"}
    assert template.accounts == {"KEY", "TOKEN"}


def test_a_template_with_a_form_names_its_macros() -> None:
    assert make(method="POST", body_type="form", body="a={goal}&{sub1}").macros == {"goal", "sub1"}


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://Ads.Example/", "ads.example", 443),
        ("http://ads.example", "ads.example", 80),
        ("HTTP://ads.example:8080?x", "ads.example", 8080),
        ("https://[2001:DB8::1]:8443/", "2001:db8::1", 8443),
        ("https://[::1]/", "::1", 443),
    ],
)
def test_a_template_knows_where_it_goes(url: str, host: str, port: int) -> None:
    template = make(url)
    assert (template.host, template.port) == (host, port)


def test_what_is_shown_to_people_has_names_instead_of_secrets() -> None:
    template = make(
        "https://ads.example/{account.AID}?c={source_click_id}&t={account.TID}&e={account.EMPTY}",
        *("AID", "TID", "EMPTY"),
        method="POST",
        body_type="json",
        body='{"k": "{account.TID}"}',
        headers={"X-Key": "{account.AID}"},
    )
    shown = template.show({"source_click_id": "a b"}, {"AID": "hidden", "EMPTY": ""})
    assert shown.url == "https://ads.example/(AID)?c=a%20b&t=(TID)"
    assert ("X-Key", "(AID)") in shown.headers
    assert shown.body == b'{"k":"(TID)"}'


def test_a_secret_that_is_missing_stops_the_request() -> None:
    template = make("https://ads.example/?k={account.KEY}", "KEY")
    with pytest.raises(TemplateError, match="no account value 'KEY' any more; give it again"):
        template.fill({}, {})


# --- presets --------------------------------------------------------------------------------------------------

SOURCES = {
    preset.id: pattern
    for preset in load_presets()
    if preset.kind == "source" and (pattern := preset.postback_url) is not None
}
GIVEN = {"ADCASH_HOST": "ads.example", "GOAL_ID": "{goal}", "SOURCE_AD_ID": "{sub1}"}


@pytest.mark.parametrize("preset", [name for name, pattern in SOURCES.items() if pattern.startswith("http")])
def test_the_postback_url_of_every_source_preset_becomes_a_request(preset: str) -> None:
    url = convert_preset_url(SOURCES[preset], GIVEN)
    accounts = set(re.findall(r"\{account\.(\w+)\}", url))
    template = compile_form(RequestForm(url=url), "drop", accounts)
    assert "source_click_id" in template.macros
    filled = template.fill(dict.fromkeys(KNOWN, "x"), dict.fromkeys(accounts, "y"))
    assert not re.search(r"[<>{}]", filled.url)


@pytest.mark.parametrize(
    "preset", [name for name, pattern in SOURCES.items() if not pattern.startswith("http")]
)
def test_an_api_is_no_postback_url(preset: str) -> None:
    with pytest.raises(TemplateError, match="make a target of that platform's kind"):
        convert_preset_url(SOURCES[preset])


# --- what a delivery says -------------------------------------------------------------------------------------


def test_the_values_of_a_delivery_are_in_the_words_of_its_target() -> None:
    owed = Owed(
        event=1,
        request_id=REQUEST,
        click_id=CLICK,
        type="sale",
        transaction_id="",
        conversion_id=stamp_at(NOW_MS, 5),
        campaign=7,
        offer=3,
        rule=1,
        target=1,
        message=1,
        status=Status.APPROVED,
        value_micros=12_500_000,
        currency="USD",
        facts=Facts(source_click_id="src", country="DE", subs=("a", None)),
        created_ms=NOW_MS,
        due_ms=NOW_MS,
        expires_ms=0,
    )
    delivery = Delivery(number=9, owed=owed, attempts=2, told=False, outdated=False)
    how = How(types={"sale": "Purchase"}, statuses={"approved": "1"})
    values = delivery_values(delivery, how, {"campaign": "Spring", "click_id": "cid"})
    assert values == {
        "click_id": "cid",
        "source_click_id": "src",
        "country": "DE",
        "sub1": "a",
        "sub2": None,
        "type": "sale",
        "goal": "Purchase",
        "status": "1",
        "value": "12.50",
        "currency": "USD",
        "transaction_id": None,
        "conversion_id": write_stamp(stamp_at(NOW_MS, 5)),
        "delivery_id": f"{write_stamp(REQUEST)}-9",
        "timestamp": "1750000000",
        "timestamp_ms": "1750000000000",
        "time": "2025-06-15T15:06:40.000Z",
        "campaign": "Spring",
    }
    plain = delivery_values(delivery, How(), {})
    assert (plain["goal"], plain["status"]) == ("sale", "approved")
