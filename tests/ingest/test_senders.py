"""Who may send, over a real socket into a real database: refusals, what they tell, and what a repeat is."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from hashlib import md5
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import urlencode

import pytest
from msgspec.structs import replace

from postbackd.core.client_address import AddressRanges
from postbackd.core.diagnosis import Reason
from postbackd.core.model import ClickKind, Network
from postbackd.core.rate import RateLimit
from postbackd.core.sender_rules import hash_token, read_observed
from postbackd.core.senders import ANYBODY, FormerKey, Scheme, Secret, Senders, Token
from postbackd.core.signature import Signed, sign
from postbackd.ingest.client import Entrance, Proxies
from tests.ingest.shop import DEADLINE_S, KEY, Shop, wait_until
from tests.ingest.wire import Answer

TOKEN, SECRET = "pbt_0123456789", "pbs_0123456789"
TOKENS, SECRETS = (Token(hash_token(TOKEN)),), (Secret(SECRET),)
SIGNED = Senders(signature_mode="enforce", scheme=Scheme(), secrets=SECRETS)
WITH_TOKEN = Senders(token_mode="enforce", tokens=TOKENS)
FOREIGN = Senders(ip_mode="enforce", ips=("198.51.100.0/24",))


def open_secret(sealed: str) -> str:
    """These tests seal nothing; a secret that says so cannot be opened."""
    if sealed == "lost":
        raise ValueError("the key is not here")
    return sealed


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("senders") / "data", entrance=Entrance(open_secret=open_secret))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def network(shop: Shop) -> Iterator[None]:
    """Every test leaves the network as it was."""
    yield
    shop.publish(replace(shop.network, senders=ANYBODY))


def set_up(shop: Shop, senders: Senders, **fields: Any) -> None:
    shop.publish(replace(shop.network, senders=senders, **fields))


def sign_get(
    fields: Mapping[str, str], time_s: int | None = None, secret: str = SECRET, key: str = KEY
) -> dict[str, str]:
    """The header of a signed GET."""
    moment = str(int(time()) if time_s is None else time_s)
    signature = sign(Scheme(), Signed("GET", f"/p/{key}", urlencode(fields)), secret, moment)
    return {"X-Postback-Signature": f"t={moment},v1={signature}"}


def ask(
    shop: Shop, fields: Mapping[str, str], headers: Mapping[str, str] | None = None, key: str = KEY
) -> Answer:
    return shop.ask("GET", f"/p/{key}?{urlencode(fields)}", headers=headers)


def verdict(answer: Answer) -> str:
    return str(json.loads(answer.body)["verdict"])


def last_row(shop: Shop, count: int) -> dict[str, Any]:
    """The newest row of the log, as soon as there are more than ``count``."""
    wait_until(lambda: shop.count("postbacks") > count, "the row of a refused postback")
    return shop.rows("SELECT * FROM postbacks ORDER BY request_id DESC LIMIT 1")[0]


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("senders", "reason"),
    [
        (WITH_TOKEN, Reason.TOKEN_MISSING),
        (FOREIGN, Reason.SENDER_IP_NOT_ALLOWED),
        (SIGNED, Reason.SIGNATURE_MISSING),
    ],
)
def test_a_refusal_looks_like_a_key_that_nobody_has_and_is_explained_inside(
    shop: Shop, senders: Senders, reason: Reason
) -> None:
    set_up(shop, senders)
    click_id, before, counted = shop.click(), shop.count("postbacks"), shop.count("conversions")
    refused = ask(shop, {"click_id": click_id, "value": "5"})
    unknown = ask(shop, {"click_id": click_id, "value": "5"}, key="n" * len(KEY))
    assert refused == unknown
    assert (refused.status, json.loads(refused.body)) == (404, {"error": "not found"})
    row = last_row(shop, before)
    assert (row["verdict"], row["reason"], row["sender"], row["value"]) == (6, reason, "127.0.0.0/24", "5")
    assert shop.count("conversions") == counted


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
def test_no_other_method_tells_that_the_key_exists(shop: Shop, method: str) -> None:
    set_up(shop, SIGNED)
    refused, unknown = shop.ask(method, f"/p/{KEY}"), shop.ask(method, f"/p/{'n' * len(KEY)}")
    assert refused == unknown


def test_the_pixel_is_no_way_around_the_steps_unless_it_is_left_open(shop: Shop) -> None:
    set_up(shop, SIGNED)
    path = f"/p/{KEY}/pixel.gif?click_id={shop.click()}"
    assert shop.get(path).status == 404
    set_up(shop, replace(SIGNED, pixel="open"))
    answer = shop.get(path)
    assert (answer.status, answer.headers["postbackd-verdict"]) == (200, "accepted")


@pytest.mark.parametrize("body", [b'[{"click_id":"test"},{"click_id":"test"}]', b"click_id=test"])
def test_a_pixel_that_is_left_open_takes_no_body_that_would_pass_for_a_server(
    shop: Shop, body: bytes
) -> None:
    set_up(shop, replace(SIGNED, pixel="open"))
    before = shop.count("postbacks")
    assert shop.ask("GET", f"/p/{KEY}/pixel.gif", body).status == 404
    assert shop.get(f"/p/{KEY}/pixel.gif?click_id={shop.click()}").status == 200
    assert shop.count("postbacks") == before + 1


@pytest.mark.parametrize("body", [b'[{"click_id":"a"},{"click_id":"b"}]', b'{"click_id":1}\n{"click_id":2}'])
def test_of_a_refused_batch_one_row_says_it_all(shop: Shop, body: bytes) -> None:
    set_up(shop, SIGNED)
    before = shop.count("postbacks")
    assert shop.post(f"/p/{KEY}", body).status == 404
    assert last_row(shop, before)["reason"] == Reason.SIGNATURE_MISSING
    assert shop.count("postbacks") == before + 1


def test_a_refused_postback_waits_for_no_click(shop: Shop) -> None:
    set_up(shop, SIGNED)
    before = shop.count("postbacks")
    ask(shop, {"click_id": "own-id-to-come"})
    last_row(shop, before)
    shop.post("/c/c1", '{"click_id":"own-id-to-come"}')
    assert shop.rows("SELECT 1 FROM waiting WHERE click_ref = '=own-id-to-come'") == []
    assert shop.rows("SELECT 1 FROM postbacks WHERE click_text = 'own-id-to-come' AND verdict = 1") == []


def test_a_signed_batch_is_taken_whole(shop: Shop) -> None:
    set_up(shop, SIGNED)
    body = json.dumps([{"click_id": shop.click(), "value": "1"} for _ in range(3)]).encode()
    moment = str(int(time()))
    signature = sign(Scheme(), Signed("POST", f"/p/{KEY}", "", body), SECRET, moment)
    headers = {"X-Postback-Signature": f"t={moment},v1={signature}"}
    answer = shop.ask("POST", f"/p/{KEY}", body, headers)
    assert [row["verdict"] for row in json.loads(answer.body)] == ["accepted"] * 3
    assert shop.ask("POST", f"/p/{KEY}", body + b" ", headers).status == 404


def test_a_secret_that_cannot_be_opened_is_not_the_senders_fault(shop: Shop) -> None:
    set_up(shop, replace(SIGNED, secrets=(Secret("lost"),)))
    answer = ask(shop, {"click_id": shop.click()})
    assert (answer.status, answer.headers["retry-after"]) == (503, "60")


def test_a_header_that_the_connection_has_seen_is_not_the_next_requests(shop: Shop) -> None:
    set_up(shop, WITH_TOKEN)
    path = f"/p/{KEY}?click_id={shop.click()}&txid="
    with socket.create_connection(("127.0.0.1", shop.port), DEADLINE_S) as connected:
        statuses: list[bytes] = []
        for token in (TOKEN, TOKEN, "other", "", TOKEN, TOKEN):
            header = f"X-Postback-Token: {token}\r\n" if token else ""
            connected.sendall(f"GET {path}{len(statuses)} HTTP/1.1\r\nHost: h\r\n{header}\r\n".encode())
            statuses.append(connected.recv(65_536).split(b" ")[1])
    assert statuses == [b"200", b"200", b"404", b"404", b"200", b"200"]


# --- observed -----------------------------------------------------------------------------------------------


def test_an_observed_step_counts_all_the_same_and_leaves_a_note_that_the_sender_does_not_see(
    shop: Shop,
) -> None:
    observing = Senders(
        token_mode="observe", tokens=TOKENS, ip_mode="observe", ips=("198.51.100.0/24",),
        signature_mode="observe", scheme=Scheme(), secrets=SECRETS,
    )  # fmt: skip
    set_up(shop, observing)
    before = shop.count("postbacks")
    answer = ask(shop, {"click_id": shop.click()})
    assert verdict(answer) == "accepted"
    assert "postbackd-reason" not in answer.headers
    row = last_row(shop, before)
    wanted = [Reason.TOKEN_MISSING, Reason.SENDER_IP_NOT_ALLOWED, Reason.SIGNATURE_MISSING]
    assert (read_observed(row["observed"]), row["sender"]) == (wanted, "127.0.0.0/24")


def test_of_a_sender_who_passes_nothing_is_kept(shop: Shop) -> None:
    set_up(shop, replace(WITH_TOKEN, ip_mode="observe", ips=("127.0.0.1",)))
    before = shop.count("postbacks")
    assert verdict(ask(shop, {"click_id": shop.click(), "token": TOKEN})) == "accepted"
    row = last_row(shop, before)
    assert (row["observed"], row["sender"]) == (None, None)


# --- repeats ------------------------------------------------------------------------------------------------


def test_a_senders_retry_is_a_duplicate_and_the_same_bytes_are_refused_when_their_time_is_over(
    shop: Shop,
) -> None:
    set_up(shop, SIGNED)
    fields = {"click_id": shop.click(), "txid": "R-1", "value": "9"}
    headers = sign_get(fields, int(time()) - 299)
    assert [verdict(ask(shop, fields, headers)) for _ in range(2)] == ["accepted", "duplicate"]
    before = shop.count("postbacks")
    late = sign_get(fields, int(time()) - 302)
    assert ask(shop, fields, late).status == 404
    assert last_row(shop, before)["reason"] == Reason.TIMESTAMP_OUT_OF_RANGE


def test_where_repeats_count_the_same_signed_request_counts_once_and_another_one_again(shop: Shop) -> None:
    set_up(shop, SIGNED, dedup="add")
    fields = {"click_id": shop.click(), "value": "9"}
    now = int(time())
    first, second = sign_get(fields, now), sign_get(fields, now - 1)
    verdicts = [verdict(ask(shop, fields, headers)) for headers in (first, first, second, second, first)]
    assert verdicts == ["accepted", "duplicate", "accepted", "duplicate", "duplicate"]


def test_without_a_signature_such_a_repeat_counts_each_time(shop: Shop) -> None:
    """The control: it is the signature that tells a retry from a repeat."""
    set_up(shop, ANYBODY, dedup="add")
    fields = {"click_id": shop.click(), "value": "9"}
    assert [verdict(ask(shop, fields)) for _ in range(3)] == ["accepted"] * 3


def test_an_older_signed_message_that_is_sent_again_changes_nothing(shop: Shop) -> None:
    set_up(shop, SIGNED, dedup="update")
    now = int(time())
    low = {"click_id": shop.click(), "txid": "U-1", "value": "10"}
    high = {**low, "value": "20"}
    assert verdict(ask(shop, low, sign_get(low, now - 60))) == "accepted"
    assert verdict(ask(shop, high, sign_get(high, now - 30))) == "updated"
    assert verdict(ask(shop, low, sign_get(low, now - 60))) == "duplicate"
    rows = shop.rows("SELECT value_micros FROM conversions WHERE transaction_id = 'U-1'")
    assert rows == [{"value_micros": 20_000_000}]


def test_unsigned_the_older_message_takes_the_value_back(shop: Shop) -> None:
    """The control of the test above."""
    set_up(shop, ANYBODY, dedup="update")
    low = {"click_id": shop.click(), "txid": "U-2", "value": "10"}
    for fields in (low, {**low, "value": "20"}, low):
        ask(shop, fields)
    rows = shop.rows("SELECT value_micros FROM conversions WHERE transaction_id = 'U-2'")
    assert rows == [{"value_micros": 10_000_000}]


MD5 = Senders(
    signature_mode="enforce",
    scheme=Scheme(kind="fields", hash="md5", keyed=False, template="{click_id}{txid}{payout}{secret}"),
    secrets=SECRETS,
)


@pytest.mark.parametrize("more", ["value=999", "VALUE=999", "Payout=999", "payout=999", "cid=x", "tid=other"])
def test_what_is_not_signed_cannot_take_the_place_of_what_is(shop: Shop, more: str) -> None:
    set_up(shop, MD5)
    click_id = shop.click()
    signature = md5(f"{click_id}M-15{SECRET}".encode(), usedforsecurity=False).hexdigest()
    query = f"click_id={click_id}&txid=M-1&payout=5&sig={signature}"
    assert shop.get(f"/p/{KEY}?{more}&{query}").status == 404
    assert verdict(shop.get(f"/p/{KEY}?{query}")) == "accepted"
    rows = shop.rows("SELECT value_micros FROM conversions ORDER BY conversion_id DESC LIMIT 1")
    assert rows == [{"value_micros": 5_000_000}]


# --- two keys -----------------------------------------------------------------------------------------------


def test_a_former_key_is_good_until_its_date_and_then_one_that_nobody_has(shop: Shop) -> None:
    old, new = KEY, "aNewKeyOfTheNetwork012345"
    try:
        for until_ms, status in ((int(time() * 1000) + 60_000, 200), (int(time() * 1000) - 1, 404)):
            shop.publish(
                replace(shop.network, key=new, senders=Senders(former_keys=(FormerKey(old, until_ms),)))
            )
            for path in (f"/p/{old}", f"/p/{old}/", f"/p/{old}/pixel.gif"):
                assert shop.get(f"{path}?click_id={shop.click()}").status == status
            assert shop.get(f"/p/{new}?click_id={shop.click()}").status == 200
    finally:
        shop.publish(shop.network)


# --- proxies ------------------------------------------------------------------------------------------------


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Shop]:
    """A server behind a proxy on loopback, with a network that sends from one range only."""
    entrance = Entrance(proxies=Proxies(AddressRanges(["127.0.0.1"])))
    made = Shop(tmp_path / "data", entrance=entrance)
    made.publish(replace(made.network, senders=FOREIGN))
    yield made
    made.close()


def test_the_client_that_a_trusted_proxy_names_is_the_one_that_counts(behind: Shop) -> None:
    fields = {"click_id": behind.click()}
    assert ask(behind, fields).status == 404
    assert ask(behind, fields, {"X-Forwarded-For": "203.0.113.9"}).status == 404
    assert ask(behind, fields, {"Forwarded": "for=198.51.100.7"}).status == 404
    assert ask(behind, fields, {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}).status == 404
    assert verdict(ask(behind, fields, {"X-Forwarded-For": "203.0.113.9, 198.51.100.7"})) == "accepted"


def test_clicks_of_several_visitors_on_one_connection_have_each_their_own_network(behind: Shop) -> None:
    for address in ("198.51.100.7", "203.0.113.9", "2001:db8:1:2::3"):
        behind.get("/c/c1", X_Forwarded_For=address)
        behind.get("/c/c1", X_Forwarded_For=address)
    prefixes = [row["ip_prefix"] for row in behind.rows("SELECT ip_prefix FROM clicks ORDER BY click_id")]
    assert prefixes == ["198.51.100.0/24"] * 2 + ["203.0.113.0/24"] * 2 + ["2001:db8:1::/48"] * 2


def test_a_stranger_is_not_believed_about_himself(shop: Shop) -> None:
    """The control: the same header, from somebody who is no proxy of ours."""
    set_up(shop, FOREIGN)
    assert ask(shop, {"click_id": shop.click()}, {"X-Forwarded-For": "198.51.100.7"}).status == 404


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Shop]:
    """A server whose proxy on loopback writes PROXY headers."""
    proxies = Proxies(AddressRanges(["127.0.0.1"]), protocol=True)
    made = Shop(tmp_path / "data", entrance=Entrance(proxies=proxies))
    yield made
    made.close()


def talk(shop: Shop, *parts: bytes) -> bytes:
    """What comes back for bytes on a connection of its own, until it is closed or has answered."""
    with socket.create_connection(("127.0.0.1", shop.port), DEADLINE_S) as connected:
        for part in parts:
            connected.sendall(part)
        try:
            return connected.recv(65_536)
        except ConnectionResetError:
            return b""


CLICK = b"GET /c/c1 HTTP/1.1\r\nHost: h\r\n\r\n"


def test_a_proxy_header_names_the_visitor(proxied: Shop) -> None:
    v2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([203, 0, 113, 9, 10, 0, 0, 1, 0, 1, 0, 2])
    for parts in (
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 5 443\r\n" + CLICK,),
        (b"PROXY TCP4 203.0.113.9 10.0.0.1", b" 5 443\r\nGET /c/c1 HT", b"TP/1.1\r\nHost: h\r\n\r\n"),
        (v2 + CLICK,),
        (v2[:5], v2[5:], CLICK),
    ):
        assert talk(proxied, *parts).startswith(b"HTTP/1.1 302 ")
    prefixes = {row["ip_prefix"] for row in proxied.rows("SELECT ip_prefix FROM clicks")}
    assert prefixes == {"203.0.113.0/24"}


@pytest.mark.parametrize(
    "begin",
    [
        CLICK,
        b"PROXY TCP4 nowhere 10.0.0.1 5 443\r\n" + CLICK,
        b"PROXY " + b"x" * 200,
        b"\r\n\r\n\x00\r\nQUIT\n\xff\x11\x00\x0c",
    ],
)
def test_a_connection_of_a_proxy_without_a_proper_header_is_closed_and_counted(
    proxied: Shop, begin: bytes
) -> None:
    assert talk(proxied, begin) == b""

    def counted() -> list[dict[str, Any]]:
        return proxied.rows("SELECT count FROM refusals WHERE kind = 'proxy_header'")

    wait_until(counted, "the count of refusals")
    assert proxied.count("clicks") == 0


# --- limits -------------------------------------------------------------------------------------------------


def test_over_the_limit_of_a_neighbourhood_the_answer_is_429_and_health_is_still_told(tmp_path: Path) -> None:
    entrance = Entrance(proxies=Proxies(AddressRanges(["127.0.0.1"])), per_prefix=RateLimit(5))
    shop = Shop(tmp_path / "data", entrance=entrance)
    try:
        answers = [shop.get("/c/c1", X_Forwarded_For=f"203.0.113.{n}") for n in range(60)]
        statuses = [answer.status for answer in answers]
        assert statuses[:20] == [302] * 20
        assert 429 in statuses[20:]
        assert int(answers[statuses.index(429)].headers["retry-after"]) == 1
        assert shop.get("/c/c1", X_Forwarded_For="198.51.100.1").status == 302
        assert shop.get("/healthz", X_Forwarded_For="203.0.113.1").status == 200
        wait_until(
            lambda: shop.rows("SELECT 1 FROM refusals WHERE kind = 'rate_of_prefix'"), "the count of refusals"
        )
    finally:
        shop.close()


def test_a_stranger_cannot_use_up_the_limit_of_a_network(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data", entrance=Entrance(per_key=RateLimit(5), open_secret=open_secret))
    try:
        set_up(shop, WITH_TOKEN)
        click_id = shop.click()
        assert {ask(shop, {"click_id": click_id, "token": "x"}).status for _ in range(60)} == {404}
        answers = [ask(shop, {"click_id": click_id, "token": TOKEN, "txid": f"L-{n}"}) for n in range(60)]
        statuses = [answer.status for answer in answers]
        assert statuses[:20] == [200] * 20
        assert 429 in statuses[20:]
    finally:
        shop.close()


# --- bots ---------------------------------------------------------------------------------------------------


def test_a_bot_is_sent_on_and_marked_and_its_user_agent_is_kept_nowhere(shop: Shop) -> None:
    agent = "Mozilla/5.0 (compatible; Googlebot/2.1; unmistakable-marker)"
    answer = shop.get("/c/c1?sub1=bot-click", User_Agent=agent)
    assert answer.status == 302
    assert shop.rows("SELECT kind FROM clicks WHERE sub1 = 'bot-click'") == [{"kind": ClickKind.BOT}]
    files = list(shop.directory.rglob("*"))
    assert files
    assert not [path for path in files if path.is_file() and b"unmistakable-marker" in path.read_bytes()]


@pytest.mark.parametrize(
    ("method", "agent", "kind"),
    [
        ("GET", "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Firefox/120.0", ClickKind.COUNTED),
        ("GET", None, ClickKind.COUNTED),
        ("HEAD", "Googlebot/2.1", ClickKind.HEAD),
        ("POST", "python-requests/2.31", ClickKind.COUNTED),
    ],
)
def test_other_clicks_are_what_they_were(shop: Shop, method: str, agent: str | None, kind: ClickKind) -> None:
    name = f"{method}-{agent is None}"
    shop.ask(method, f"/c/c1?sub1={name}", headers={"User-Agent": agent} if agent else {})
    assert shop.rows("SELECT kind FROM clicks WHERE sub1 = ?", name) == [{"kind": kind}]


def test_a_network_that_asks_for_nothing_has_no_guard(shop: Shop) -> None:
    assert shop.door._snapshot.endpoints[KEY].guard is None
    assert Network(id=1, name="n", key=KEY).senders == ANYBODY
