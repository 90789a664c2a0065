"""Postbacks over a real socket into a real database: verdicts, forms, batches, pixel, refusals, recovery."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

import pytest

from postbackd.core.click_id import read_stamp
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Network
from tests.ingest.shop import KEY, Shop
from tests.ingest.wire import Answer

FORM = "application/x-www-form-urlencoded"

# --- one postback -------------------------------------------------------------------------------------------


def test_a_click_becomes_a_conversion_and_its_repeat_a_duplicate_that_names_it(shop: Shop) -> None:
    click_id = shop.click()
    first = shop.postback(click_id=click_id, value="12.50", txid="A-1")
    assert first == {"verdict": "accepted", "conversion": first["request"], "request": first["request"]}
    again = shop.postback(click_id=click_id, value="12.50", txid="A-1")
    assert (again["verdict"], again["conversion"]) == ("duplicate", first["conversion"])
    assert again["request"] != first["request"]


def test_a_row_is_committed_before_its_answer_is_heard(shop: Shop) -> None:
    for number in range(20):
        answer = shop.postback(click_id=shop.click(), txid=f"C-{number}")
        rows = shop.rows("SELECT verdict FROM postbacks WHERE request_id = ?", read_stamp(answer["request"]))
        assert rows == [{"verdict": 1}]


@pytest.mark.parametrize(
    ("content_type", "write"),
    [
        ("application/x-www-form-urlencoded", urlencode),
        ("application/json", json.dumps),
        ("text/plain", urlencode),
        ("text/plain", json.dumps),
        ("application/x-www-form-urlencoded", lambda fields: f"  {json.dumps(fields)}\n"),
        ("", urlencode),
    ],
)
def test_query_form_and_json_say_the_same_whatever_the_content_type_claims(
    shop: Shop, content_type: str, write: type[str]
) -> None:
    fields = {"click_id": shop.click(), "value": "5", "txid": "é", "type": "Sale"}
    first = shop.postback(**fields)
    answer = shop.post(f"/p/{KEY}", str(write(fields)).encode(), content_type)
    document = json.loads(answer.body)
    assert (document["verdict"], document["conversion"]) == ("duplicate", first["conversion"])


def test_every_problem_is_told_with_its_reason_cause_and_fix(shop: Shop) -> None:
    answer = shop.get(f"/p/{KEY}?click_id={quote('{clickid}')}")
    document = json.loads(answer.body)
    assert (document["verdict"], document["reason"]) == ("unmatched", "macro_literal")
    assert document["cause"] == Reason.MACRO_LITERAL.cause
    assert document["fix"] == Reason.MACRO_LITERAL.fix
    assert answer.headers["postbackd-reason"] == "macro_literal"
    assert answer.headers["cache-control"] == "no-store"


def test_a_warning_comes_with_an_accepted_conversion(shop: Shop) -> None:
    document = shop.postback(click_id=shop.click(), status="frobnicated")
    assert (document["verdict"], document["reason"]) == ("accepted", "status_unknown")


@pytest.mark.parametrize("body", [b"{", b'{"a": NaN}', b"[" * 60_000, b'{"click_id":' * 5000])
def test_a_malformed_body_is_rejected_and_logged(shop: Shop, body: bytes) -> None:
    before = shop.count("postbacks")
    answer = shop.post(f"/p/{KEY}", body)
    document = json.loads(answer.body)
    assert (answer.status, document["reason"]) == (200, "body_malformed")
    assert shop.count("postbacks") == before + 1


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (
            "multipart/form-data; boundary=b",
            '--b\r\nContent-Disposition: form-data; name="click_id"\r\n\r\n{}\r\n--b--\r\n',
        ),
        ("application/xml", "<postback><click_id>{}</click_id></postback>"),
        ("image/png", "\x89PNG\r\n{}"),
    ],
)
def test_a_body_of_another_kind_is_malformed_unless_something_mapped_is_said(
    shop: Shop, content_type: str, body: str
) -> None:
    click_id = shop.click()
    content = body.format(click_id).encode("latin-1")
    document = json.loads(shop.post(f"/p/{KEY}", content, content_type).body)
    assert (document["verdict"], document["reason"]) == ("rejected", "body_malformed")
    for path, said in (
        (f"/p/{KEY}?click_id={click_id}&txid=Q", content),
        (f"/p/{KEY}", f"click_id={click_id}&txid=F"),
        (f"/p/{KEY}", json.dumps({"click_id": click_id, "txid": "J"})),
    ):
        assert json.loads(shop.post(path, said, content_type).body)["verdict"] == "accepted"


@pytest.mark.parametrize(
    "content_type", ["", "text/plain; charset=utf-8", "application/x-www-form-urlencoded"]
)
def test_a_form_of_unmapped_names_lacks_a_click_id(shop: Shop, content_type: str) -> None:
    document = json.loads(shop.post(f"/p/{KEY}", "foo=1&bar=2", content_type).body)
    assert (document["verdict"], document["reason"]) == ("unmatched", "click_id_missing")


@pytest.mark.parametrize(
    ("one", "other"),
    [(b"ord%E9r", b"ord%E8r"), (b"ord\xe9r", b"ord\xe8r"), (b"a%00b", b"a%01b"), (b"a\x00b", b"a\x01b")],
)
@pytest.mark.parametrize("kind", ["query", "form", "json"])
def test_transaction_ids_that_differ_in_one_byte_are_two_conversions_and_the_same_bytes_one(
    shop: Shop, kind: str, one: bytes, other: bytes
) -> None:
    click_id = shop.click()

    def send(text: bytes) -> str:
        if kind == "query":
            answer = shop.get(f"/p/{KEY}?click_id={click_id}&txid={quote(text, safe='%')}")
        elif kind == "form":
            answer = shop.post(f"/p/{KEY}", b"click_id=%b&txid=%b" % (click_id.encode(), text), FORM)
        else:
            fields = {"click_id": click_id, "txid": text.decode("latin-1")}
            answer = shop.post(f"/p/{KEY}", json.dumps(fields))
        return answer.headers["postbackd-verdict"]

    assert [send(text) for text in (one, other, one, other)] == [
        "accepted",
        "accepted",
        "duplicate",
        "duplicate",
    ]


HOSTILE = [
    "",
    "\x00",
    "{x}",
    "[x]",
    "null",
    "\ud83d\ude00",
    "9" * 5000,
    "1e999",
    "a" * 7000,
    "\r\nX: y",
    "%",
    "\x7f",
]


@pytest.mark.parametrize(
    "field", ["click_id", "type", "value", "currency", "txid", "status", "time", "other"]
)
def test_any_text_in_any_field_gets_a_verdict_and_a_row(shop: Shop, field: str) -> None:
    click_id = shop.click()
    before = shop.count("postbacks")
    for text in HOSTILE:
        fields = {"click_id": click_id, field: text}
        answers = [
            shop.get(f"/p/{KEY}?{urlencode(fields, errors='surrogatepass')}"),
            shop.post(f"/p/{KEY}", urlencode(fields, errors="surrogatepass")),
            shop.post(f"/p/{KEY}", json.dumps(fields)),
        ]
        for answer in answers:
            assert answer.status == 200
            assert answer.headers["postbackd-verdict"]
    assert shop.count("postbacks") == before + 3 * len(HOSTILE)


def test_a_request_with_all_names_doubled_and_a_hundred_parameters_gets_a_verdict(shop: Shop) -> None:
    click_id = shop.click()
    assert shop.get(f"/p/{KEY}?click_id={click_id}&click_id=x&txid=D&txid=E").status == 200
    many = "&".join(f"p{n}=1" for n in range(100))
    document = json.loads(shop.get(f"/p/{KEY}?click_id={click_id}&{many}").body)
    assert (document["verdict"], document["reason"]) == ("rejected", "too_many_parameters")


# --- the answer that a network asked for --------------------------------------------------------------------


def add_network(shop: Shop, name: str, **settings: object) -> str:
    shop.publish(Network(id=0, name=name, key=f"key-of-{name}", **settings))  # type: ignore[arg-type]
    return f"/p/key-of-{name}"


def test_a_network_that_wants_ok_gets_ok_and_the_verdict_in_the_headers(shop: Shop) -> None:
    path = add_network(shop, "plain", answer="ok")
    click_id = shop.click()
    for verdict in ("accepted", "duplicate"):
        answer = shop.get(f"{path}?click_id={click_id}&txid=1")
        assert (answer.status, answer.body) == (200, b"OK")
        assert answer.headers["postbackd-verdict"] == verdict


def test_a_network_that_wants_204_gets_204_without_a_body_and_the_connection_goes_on(shop: Shop) -> None:
    path = add_network(shop, "silent", answer="204")
    answer = shop.get(f"{path}?click_id={shop.click()}&txid=1")
    assert (answer.status, answer.body, answer.headers["postbackd-verdict"]) == (204, b"", "accepted")
    assert shop.get("/healthz").status == 200


@pytest.mark.parametrize("style", ["json", "ok", "204"])
def test_a_strict_network_hears_422_for_what_is_rejected_and_200_for_the_rest(shop: Shop, style: str) -> None:
    path = add_network(shop, f"strict-{style}", strict=True, answer=style)
    click_id = shop.click()
    rejected = shop.get(f"{path}?click_id={click_id}&value=abc")
    assert rejected.status == 422
    assert json.loads(rejected.body)["reason"] == "value_invalid"
    good = 204 if style == "204" else 200
    assert shop.get(f"{path}?click_id={click_id}&txid=1").status == good
    assert shop.get(f"{path}?click_id={click_id}&txid=1").status == good
    assert shop.get(f"{path}?click_id=").status == good


# --- the pixel ----------------------------------------------------------------------------------------------


def is_pixel(answer: Answer) -> bool:
    return (
        answer.status == 200
        and len(answer.body) == 43
        and answer.body[:6] == b"GIF89a"
        and answer.headers["content-type"] == "image/gif"
        and answer.headers["cache-control"] == "no-store"
    )


def test_the_pixel_is_a_gif_whatever_became_of_the_postback(shop: Shop) -> None:
    click_id = shop.click()
    for query, verdict in [
        (f"click_id={click_id}&txid=P", "accepted"),
        (f"click_id={click_id}&txid=P", "duplicate"),
        ("click_id={clickid}", "unmatched"),
        (f"click_id={click_id}&value=abc", "rejected"),
        ("", "unmatched"),
    ]:
        answer = shop.get(f"/p/{KEY}/pixel.gif?{quote(query, safe='=&')}")
        assert is_pixel(answer)
        assert answer.headers["postbackd-verdict"] == verdict


def test_pixel_and_s2s_are_one_conversion_seen_by_both(shop: Shop) -> None:
    click_id = shop.click()
    pixel = shop.get(f"/p/{KEY}/pixel.gif?click_id={click_id}")
    answer = shop.postback(click_id=click_id, txid="PX", value="5")
    assert (answer["verdict"], answer["conversion"]) == ("updated", pixel.headers["x-request-id"])
    rows = shop.rows(
        "SELECT channels FROM conversions WHERE conversion_id = ?", read_stamp(answer["conversion"])
    )
    assert rows == [{"channels": 3}]


# --- batches ------------------------------------------------------------------------------------------------


def test_a_json_array_gets_a_verdict_for_each_in_its_order(shop: Shop) -> None:
    click_id = shop.click()
    items: list[object] = [
        {"click_id": click_id, "txid": "B1", "value": 1.5},
        {"click_id": click_id, "txid": "B1"},
        "nonsense",
        {"click_id": ""},
        {"click_id": click_id, "txid": "B2", "value": "abc"},
        None,
        {"click_id": click_id, "txid": "B3"},
    ]
    answer = shop.post(f"/p/{KEY}", json.dumps(items))
    documents = json.loads(answer.body)
    assert answer.status == 200
    assert [(d["verdict"], d.get("reason", "")) for d in documents] == [
        ("accepted", ""), ("duplicate", ""), ("rejected", "body_malformed"), ("unmatched", "click_id_empty"),
        ("rejected", "value_invalid"), ("rejected", "body_malformed"), ("accepted", ""),
    ]  # fmt: skip
    assert documents[1]["conversion"] == documents[0]["conversion"]
    assert len({d["request"] for d in documents}) == len(documents)
    assert answer.headers["x-request-id"] == documents[0]["request"]


@pytest.mark.parametrize(
    ("odd", "verdict"),
    [
        (b'"txid": "\\ud800"', "body_malformed"),
        (b'"txid": "\xff"', "body_malformed"),
        (b'"txid": NaN', "body_malformed"),
        (b'"value": ' + b"9" * 4301, "field_too_long"),
        (b'"extra": ' + b"9" * 4301, ""),
        (b'"extra": ' + b"[" * 2_000 + b"]" * 2_000, ""),
        (b'"extra": ' + b"[" * 100_000 + b"]" * 100_000, ""),
    ],
    ids=lambda part: ascii(part[:20]),
)
def test_one_odd_element_of_an_array_does_not_spoil_its_neighbours(
    shop: Shop, odd: bytes, verdict: str
) -> None:
    click_id = shop.click()
    first, last = (b'{"click_id": "%b", "txid": "%b"}' % (click_id.encode(), text) for text in (b"X1", b"X2"))
    body = b'[%b, {"click_id": "%b", %b}, %b, "x"]' % (first, click_id.encode(), odd, last)
    documents = json.loads(shop.post(f"/p/{KEY}", body).body)
    assert [(d["verdict"], d.get("reason", "")) for d in documents] == [
        ("accepted", ""), ("rejected" if verdict else "accepted", verdict), ("accepted", ""),
        ("rejected", "body_malformed"),
    ]  # fmt: skip
    assert json.loads(shop.post(f"/p/{KEY}", body[:-1]).body)["reason"] == "body_malformed"


def test_a_reason_is_explained_once_a_batch(shop: Shop) -> None:
    documents = json.loads(shop.post(f"/p/{KEY}", '[{"click_id": ""}, {"click_id": ""}, 5]').body)
    assert [("cause" in d, "fix" in d) for d in documents] == [(True, True), (False, False), (True, True)]
    assert documents[1]["reason"] == "click_id_empty"


@pytest.mark.parametrize("style", ["json", "ok", "204"])
def test_a_batch_answers_200_with_json_whatever_the_network_asked_for(shop: Shop, style: str) -> None:
    path = add_network(shop, f"batch-{style}", strict=True, answer=style)
    answer = shop.post(path, '[{"click_id": ""}, 5]')
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert [d["verdict"] for d in json.loads(answer.body)] == ["unmatched", "rejected"]


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/jsonl", "text/plain"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\n\n"])
def test_ndjson_gets_a_line_for_each_line(shop: Shop, content_type: str, line_end: str) -> None:
    click_id = shop.click()
    lines = [json.dumps({"click_id": click_id, "txid": f"N{n}"}) for n in range(3)]
    answer = shop.post(f"/p/{KEY}", line_end.join(lines) + line_end, content_type)
    documents = [json.loads(line) for line in answer.body.splitlines()]
    assert [d["verdict"] for d in documents] == ["accepted"] * 3
    assert answer.headers["content-type"] == "application/x-ndjson"


def test_a_malformed_line_is_rejected_and_its_neighbours_count(shop: Shop) -> None:
    click_id = shop.click()
    lines = [
        f'{{"click_id":"{click_id}","txid":"M1"}}',
        "{broken",
        f'{{"click_id":"{click_id}","txid":"M2"}}',
        "5",
    ]
    answer = shop.post(f"/p/{KEY}", "\n".join(lines), "application/x-ndjson")
    documents = [json.loads(line) for line in answer.body.splitlines()]
    assert [d["verdict"] for d in documents] == ["accepted", "rejected", "accepted", "rejected"]


def test_a_batch_larger_than_one_commit_is_answered_whole_and_in_order(shop: Shop) -> None:
    click_id = shop.click()
    items = [{"click_id": click_id, "txid": f"L{n}"} for n in range(2500)]
    documents = json.loads(shop.post(f"/p/{KEY}", json.dumps(items)).body)
    assert [d["verdict"] for d in documents] == ["accepted"] * 2500
    assert [d["request"] for d in documents] == sorted(d["request"] for d in documents)
    again = json.loads(shop.post(f"/p/{KEY}", json.dumps(items[::-1])).body)
    assert [d["conversion"] for d in again] == [d["conversion"] for d in documents][::-1]


def test_a_batch_of_none_or_too_many_is_refused(shop: Shop) -> None:
    assert shop.post(f"/p/{KEY}", "[]").status == 400
    assert shop.post(f"/p/{KEY}", "[" + "0," * 10_000 + "0]").status == 413
