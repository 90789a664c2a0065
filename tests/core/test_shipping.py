"""How deliveries to a target become requests, whatever the kind of the target."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from msgspec.structs import replace

from postbackd.core.deliveries import Answer, Delivery, Facts, Message, Owed, delivery_id
from postbackd.core.model import (
    Campaign,
    Catalog,
    How,
    Network,
    Offer,
    RequestForm,
    Rule,
    SigningKey,
    Source,
    Target,
    WeightedOffer,
)
from postbackd.core.replies import Outcome
from postbackd.core.rulebook import Rulebook
from postbackd.core.shipping import KINDS, Hider, Names, Shipper, ShippingError, make_shipper
from tests.core.desk import CLICK, NOW_MS, REQUEST

CAMPAIGN = Campaign(id=7, name="Spring", slug="spring", source=1, offers=(WeightedOffer(3),))
CATALOG = Catalog(
    generation=1,
    networks=(Network(id=2, name="TUNE", key="k" * 26),),
    sources=(Source(id=1, name="Ads"),),
    offers=(Offer(id=3, name="Shoes", network=2, url="https://shop.example/"),),
    campaigns=(CAMPAIGN,),
    signing_keys=(SigningKey(id=1, secret=b"s" * 32, active_from_ms=0),),
)
OWED = Owed(
    event=1, request_id=REQUEST, click_id=CLICK, type="sale", transaction_id="T1", conversion_id=REQUEST, campaign=7,
    offer=3, rule=1, target=1, message=Message.CONVERSION, status=2, value_micros=12_500_000, currency="USD",
    facts=Facts(source_click_id="src"), created_ms=NOW_MS, due_ms=NOW_MS, expires_ms=0,
)  # fmt: skip
DELIVERY = Delivery(number=9, owed=OWED, attempts=0, told=False, outdated=False)
WEBHOOK_SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
URL = "https://ads.example:8443/pb?id={source_click_id}&c={campaign}&s={source}&o={offer}&n={network}&k={account.KEY}"


def message(kind: Message, **more: Any) -> Delivery:
    return replace(DELIVERY, owed=replace(OWED, message=kind, **more))


def shipper(how: How, **accounts: str) -> Shipper:
    return make_shipper(Target(id=1, name="ads", how=how), accounts, Names(CATALOG))


def postback(**more: Any) -> Shipper:
    forms = {"conversion": RequestForm(url=URL), **more}
    return shipper(How(requests=forms), KEY="hush")


def test_a_postback_names_what_it_is_about_and_hides_secrets_from_people() -> None:
    made = postback()
    url = made.make([DELIVERY], NOW_MS).url
    assert url == "https://ads.example:8443/pb?id=src&c=Spring&s=Ads&o=Shoes&n=TUNE&k=hush"
    assert made.show([DELIVERY], NOW_MS).url == url.replace("hush", "(KEY)")
    assert (made.host, made.most, made.ask_token()) == ("ads.example:8443", 1, None)
    assert made.macros is not None
    assert {"source_click_id", "campaign"} <= made.macros


def test_the_id_of_the_click_is_the_callers_own_where_it_brought_one() -> None:
    names = Names(CATALOG)
    assert len(names.of(DELIVERY)["click_id"]) == 26
    own = message(Message.CONVERSION, facts=Facts(own_id="mine"))
    assert names.of(own)["click_id"] == "mine"


def test_what_is_removed_from_the_catalog_keeps_its_name_and_what_was_never_there_has_none() -> None:
    gone = Catalog(
        generation=2, removed_campaigns=(CAMPAIGN,), removed_offers=CATALOG.offers, signing_keys=CATALOG.signing_keys
    )  # fmt: skip
    names = Names(gone).of(DELIVERY)
    assert (names["campaign"], names["offer"], names["source"], names["network"]) == (
        "Spring",
        "Shoes",
        "",
        "",
    )
    unknown = message(Message.CONVERSION, campaign=8, offer=9)
    assert Names(CATALOG).of(unknown).keys() == {"click_id"}


def test_a_message_without_a_request_is_refused_and_others_have_their_own() -> None:
    retraction = message(Message.RETRACTION)
    assert postback().refusal(retraction, NOW_MS) == "the target has no request for a retraction"
    made = postback(retraction=RequestForm(url="https://ads.example/back?id={source_click_id}"))
    assert made.refusal(retraction, NOW_MS) == ""
    assert made.make([retraction], NOW_MS).url == "https://ads.example/back?id=src"


def test_without_the_id_of_the_source_a_postback_that_needs_it_is_refused() -> None:
    without = message(Message.CONVERSION, facts=Facts())
    assert "without the source's click id" in postback().refusal(without, NOW_MS)
    by_our_id = shipper(How(requests={"conversion": RequestForm(url="https://a.example/?c={click_id}")}))
    assert by_our_id.refusal(without, NOW_MS) == ""


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (How(kind="pigeon"), "kind 'pigeon' is not known; use one of postback, webhook, meta"),
        (How(), "no request for a conversion"),
        (How(requests={"praise": RequestForm(url=URL)}), "there is no message 'praise'"),
        (How(requests={"conversion": RequestForm(url="ftp://x")}), "must start with https"),
        (How(kind="webhook"), "no URL"),
        (How(kind="webhook", requests={"conversion": RequestForm(url="https://h.example/")}), "SECRET"),
        (How(kind="meta"), "pixel_id"),
    ],
)
def test_a_target_that_cannot_be_served_says_why(how: How, says: str) -> None:
    with pytest.raises(ShippingError, match=says):
        shipper(how, KEY="hush")


def test_an_answer_is_judged_for_each_delivery() -> None:
    made = postback()
    (judged,) = made.read(Answer(status=200), [message(Message.CONVERSION)], NOW_MS)
    assert judged.outcome is Outcome.DELIVERED
    with pytest.raises(NotImplementedError):
        made.read_token(Answer(), NOW_MS)


def test_a_webhook_is_signed_and_its_secret_is_not_shown() -> None:
    form = RequestForm(url="https://hook.example/in?k={account.KEY}", headers={"X-Team": "a"})
    made = shipper(How(kind="webhook", requests={"conversion": form}), SECRET=WEBHOOK_SECRET, KEY="hush")
    request = made.make([DELIVERY], NOW_MS)
    headers = dict(request.headers)
    assert (request.method, headers["webhook-id"], headers["X-Team"]) == ("POST", DELIVERY.id, "a")
    assert json.loads(request.body)["data"]["value"] == "12.50"
    assert made.refusal(message(Message.RETRACTION), NOW_MS) == ""
    assert made.host == "hook.example:443"
    assert "hush" not in repr(made.show([DELIVERY], NOW_MS))


def test_a_platform_takes_many_in_one_request_and_refuses_what_it_cannot_be_told() -> None:
    options = {"pixel_id": "123"}
    made = shipper(How(kind="meta", options=options), ACCESS_TOKEN="hush-token")
    assert made.most > 1
    assert made.macros is None
    assert (made.host, made.ask_token()) == ("meta", None)
    recent = message(Message.CONVERSION, click_id=REQUEST)
    assert made.refusal(recent, NOW_MS) == ""
    assert made.refusal(message(Message.RETRACTION), NOW_MS) != ""
    request = made.make([recent, recent], NOW_MS)
    assert len(json.loads(request.body)["data"]) == 2
    assert "hush-token" in repr(request)
    assert "hush-token" not in repr(made.show([recent], NOW_MS))
    judged = made.read(Answer(status=200, body=b'{"events_received":2}'), [recent, recent], NOW_MS)
    assert [one.outcome for one in judged] == [Outcome.DELIVERED] * 2


def test_a_platform_whose_tokens_expire_gets_one_that_was_asked_for() -> None:
    options = {"customer_id": "1234567890", "conversion_action_id": "77"}
    accounts = {
        "CLIENT_ID": "c",
        "CLIENT_SECRET": "s3cr3t",
        "REFRESH_TOKEN": "r3fr3sh",
        "DEVELOPER_TOKEN": "d3v",
    }
    made = shipper(How(kind="google_ads", options=options), **accounts)
    ask = made.ask_token()
    assert ask is not None
    answer = Answer(status=200, body=b'{"access_token":"fresh","expires_in":3600}')
    token = made.read_token(answer, NOW_MS)
    assert token.expires_ms > NOW_MS
    assert "fresh" in repr(made.make([message(Message.CONVERSION, click_id=REQUEST)], NOW_MS, token.text))


def test_every_kind_is_known_by_its_name() -> None:
    assert set(KINDS) == {"postback", "webhook", "meta", "google_data_manager", "google_ads", "tiktok"}


def test_secrets_are_taken_out_of_a_text_the_longer_ones_first() -> None:
    accounts = {"A": "secret", "B": "secret-and-more", "SHORT": "abc"}
    assert Hider(accounts).hide("secret-and-more secret abc") == "(B) (A) abc"


def test_a_secret_is_found_in_the_form_in_which_it_was_sent() -> None:
    sent = 'GET /?k=a%2Fb%2Bc%22 and a%2fb%2bc%22 {"k": "a/b+c\\""}'
    said = Hider({"KEY": 'a/b+c"'}).hide(sent)
    assert said == 'GET /?k=(KEY) and (KEY) {"k": "(KEY)"}'


@pytest.mark.parametrize(
    "echo",
    [
        r'{"k": "a\/b+c&\"d"}',  # PHP
        r'{"k": "a/b+c\u0026\"d"}',  # Go
        "<a href='/?k=a/b+c&amp;&quot;d'>",
        "a&#47;b&#43;c&#38;&#34;d",
        "/login?next=%2Fpb%3Fk%3Da%252Fb%252Bc%2526%2522d",
        "k=A%2fB%2bC%26%22D",
    ],
)
def test_a_secret_is_found_however_the_target_writes_it(echo: str) -> None:
    hidden = Hider({"KEY": 'a/b+c&"d'}).hide(echo)
    assert "(KEY)" in hidden
    assert not re.search("b.*c", hidden)


def test_a_delivery_has_the_same_id_in_every_attempt_and_another_than_all_others() -> None:
    assert DELIVERY.id == replace(DELIVERY, attempts=3).id == delivery_id(REQUEST, 9)
    assert DELIVERY.id != replace(DELIVERY, number=10).id


def test_without_a_secret_a_text_stays_as_it_is() -> None:
    assert Hider({"SHORT": "abc"}).hide("abc") == "abc"


def test_only_campaigns_with_a_rule_owe_anything_and_unknown_ones_may() -> None:
    other = replace(CAMPAIGN, id=8, source=5, slug="other")
    rules = (Rule(id=1, name="r", source=1, target=1),)
    book = Rulebook(replace(CATALOG, campaigns=(CAMPAIGN, other), rules=rules, privacy_key=b"k"))
    assert (book.owes(7), book.owes(8), book.owes(99), book.owes(None)) == (True, False, True, True)
    own = (Rule(id=1, name="r", campaign=8, target=1),)
    book = Rulebook(replace(CATALOG, campaigns=(CAMPAIGN, other), rules=own, privacy_key=b"k"))
    assert (book.owes(7), book.owes(8)) == (False, True)
    assert not Rulebook(replace(CATALOG, privacy_key=b"k")).owes(None)
