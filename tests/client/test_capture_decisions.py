"""Which ids are kept of a visit: the decisions, as tables and against the shared vectors."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd_client.capture import AD_CLICK_IDS, Capture, CaptureError, append, shapes
from postbackd_client.capture.tokens import Entry

_VECTORS = Path(__file__).parents[2] / "spec" / "vectors"
SECRET = b"a secret that is long enough"
OURS = "0cmfxxv01zzzzg001a1e618bfz"
OTHER = "0e72zm0000400g0001jtja4h6m"
NOW = 1_795_000_060


def vectors(name: str) -> Any:
    return json.loads((_VECTORS / f"{name}.json").read_text("utf-8"))


def made(**settings: Any) -> Capture:
    return Capture(**{"secret": SECRET, "clock": lambda: NOW, **settings})


def found(query: bytes | str | None, **settings: Any) -> dict[str, str]:
    return dict(made(**settings).landing(query).found)


# --- the shape of an id ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", vectors("macros")["unfilled"], ids=lambda case: case["text"][:30])
def test_a_macro_that_nobody_filled_is_told_from_an_id(case: dict[str, Any]) -> None:
    assert shapes.is_macro(case["text"]) is case["macro"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (case["text"], case["reason"].removeprefix("click_id_"))
        for case in vectors("click_id")["diagnose"]
        if case["reason"] in ("click_id_empty", "macro_literal")
    ],
)
def test_what_the_server_calls_empty_or_a_macro_is_never_kept(text: str, reason: str) -> None:
    assert shapes.refusal(text) == reason


@pytest.mark.parametrize(
    "text", [case["text"] for case in vectors("click_id")["verify"] if case["stamp"] is not None]
)
def test_every_id_that_the_server_verifies_has_the_shape_of_postbackds(text: str) -> None:
    assert shapes.is_postbackd(text)
    assert shapes.refusal(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0cmfxxv01zzzzg001a1e618bf",
        OURS + "0",
        " " + OURS,
        "u" * 26,
        "z" * 26,
        "\u0660" * 26,
        "\x00" * 26,
        OURS[:-1] + "\u017f",
        "-" * 5_000 + OURS,
    ],
)
def test_what_is_cut_lengthened_or_not_base32_has_not_the_shape_of_postbackds(text: str) -> None:
    assert not shapes.is_postbackd(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (OURS, None),
        ("550e8400-e29b-41d4-a716-446655440000", None),
        ("Cj0KCQiA6Ou5BhCrARIsAPoTxrCEx2hY_wcB", None),
        ("E.C.P.CtwBq~x", None),
        ("2Z3:0U|x/y+z==", None),
        ("wAB12CD34EF56GH78JK90LM1", None),
        ("x" * 128, None),
        ("test", None),
        ("x" * 129, shapes.TOO_LONG),
        ("x" * 100_000, shapes.TOO_LONG),
        ("", shapes.EMPTY),
        ("undefined", shapes.EMPTY),
        ("{clickid", shapes.BAD_CHARACTERS),
        ("a b", shapes.BAD_CHARACTERS),
        ("a\r\nSet-Cookie: x=y", shapes.BAD_CHARACTERS),
        ("a\x00", shapes.BAD_CHARACTERS),
        ("<script>", shapes.MACRO_LITERAL),
        ("<script>x</script>", shapes.BAD_CHARACTERS),
        ("\ufffd", shapes.BAD_CHARACTERS),
        ("ann@shop.example", shapes.BAD_CHARACTERS),
        ("lp1-{clickid}", shapes.MACRO_LITERAL),
    ],
)
def test_an_id_of_any_tracker_passes_and_nothing_else(text: str, reason: str | None) -> None:
    assert shapes.refusal(text) == reason


# --- the address ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"click_id={OURS}", {"click_id": OURS}),
        (f"CLICKID={OURS}&x=1", {"click_id": OURS}),
        (f"click%5Fid={OURS}", {"click_id": OURS}),
        (f"click_id=&click_id={OURS}", {"click_id": OURS}),
        (f"click_id={OURS}&click_id={OTHER}", {"click_id": OURS}),
        (f"clickid={OTHER}&click_id={OURS}", {"click_id": OURS}),
        (f"click_id={{clickid}}&clickid={OTHER}", {"click_id": OTHER}),
        ("click_id=a%2Fb%2Bc", {"click_id": "a/b+c"}),
        ("click_id=a+b", {}),
        ("click_id=%FF%FE", {}),
        ("click_id=\xff", {}),
        ("click_id=\u20ac", {}),
        ("click_id=%7Bclickid%7D", {}),
        ("click_id", {}),
        ("=", {}),
        ("", {}),
        (None, {}),
        (f"cid={OURS}", {}),
        (b"click_id=" + OURS.encode(), {"click_id": OURS}),
        (b"\xff\x00&%&=&&click_id=" + OURS.encode(), {"click_id": OURS}),
    ],
)
def test_the_first_usable_id_of_an_address_is_taken(query: Any, expected: dict[str, str]) -> None:
    assert found(query) == expected


def test_the_order_of_names_decides_and_not_the_order_in_the_address() -> None:
    query = f"subid={OTHER}&aff_sub={OURS}"
    assert found(query, names=("aff_sub", "subid")) == {"click_id": OURS}
    assert found(query, names=("subid", "aff_sub")) == {"click_id": OTHER}


def test_ids_of_ad_platforms_are_kept_under_their_own_names_when_asked_for() -> None:
    long = "IwZXh0bgNhZW0C" + "x" * 300
    query = f"click_id={OURS}&gclid=Cj0KCQiA&FBCLID={long}&ttclid=__CLICKID__&msclkid="
    assert found(query) == {"click_id": OURS}
    assert found(query, also=AD_CLICK_IDS) == {"click_id": OURS, "gclid": "Cj0KCQiA", "fbclid": long}


def test_a_parameter_may_be_the_click_id_and_an_id_of_its_own() -> None:
    settings: dict[str, Any] = {"names": ("gclid",), "also": ("gclid",)}
    assert found("gclid=Cj0KCQiA", **settings) == {"click_id": "Cj0KCQiA", "gclid": "Cj0KCQiA"}


def test_without_foreign_ids_only_those_of_postbackd_are_kept() -> None:
    assert found("click_id=550e8400-e29b-41d4", foreign=False) == {}
    assert found(f"click_id={OURS.upper()}", foreign=False) == {"click_id": OURS.upper()}
    assert made(foreign=False).landing("click_id=abc").refused == [("click_id", shapes.NOT_POSTBACKD)]


def test_a_huge_address_is_read_to_its_last_whole_parameter_and_no_further() -> None:
    padding = "x=" + "y" * 16_360
    assert found(f"click_id={OURS}&{padding}&{padding}") == {"click_id": OURS}
    assert found(f"{padding}&click_id={OURS}&more=1") == {}, "an id that is cut off is not taken"
    assert found("a=1&" * 100_000 + f"click_id={OURS}") == {}


def test_what_was_refused_is_told_without_its_value() -> None:
    landed = made().landing("click_id={clickid}&clickid=")
    assert landed.refused == [("click_id", shapes.MACRO_LITERAL), ("clickid", shapes.EMPTY)]


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_no_address_makes_it_fail_and_only_usable_ids_come_out(query: bytes | str) -> None:
    capture = made(also=AD_CLICK_IDS)
    hostile = b"click_id=" + query if isinstance(query, bytes) else "click_id=" + query
    for value in capture.landing(hostile).found.values():
        assert shapes.refusal(value, shapes.LONGEST_OTHER_ID) is None


# --- which click stays ----------------------------------------------------------------------------------------

DAY = 86_400


@pytest.mark.parametrize(
    ("keep", "held", "query", "expected"),
    [
        ("last", {}, f"click_id={OURS}", {"click_id": (OURS, NOW)}),
        ("last", {"click_id": (OURS, NOW - DAY)}, f"click_id={OTHER}", {"click_id": (OTHER, NOW)}),
        ("first", {"click_id": (OURS, NOW - DAY)}, f"click_id={OTHER}", None),
        ("first", {}, f"click_id={OTHER}", {"click_id": (OTHER, NOW)}),
        ("last", {"click_id": (OURS, NOW - DAY)}, f"click_id={OURS}", None),
        ("last", {"click_id": (OURS, NOW - DAY)}, "click_id=", None),
        ("last", {"click_id": (OURS, NOW - DAY)}, "click_id={clickid}", None),
        ("last", {"click_id": (OURS, NOW - DAY)}, "click_id=__CLICKID__", None),
        ("last", {"click_id": (OURS, NOW - DAY)}, "click_id=a%00b", None),
        ("last", {"click_id": (OURS, NOW - DAY)}, "", None),
        (
            "last",
            {"click_id": (OURS, NOW - DAY)},
            "gclid=G2",
            {"click_id": (OURS, NOW - DAY), "gclid": ("G2", NOW)},
        ),
        ("first", {"gclid": ("G1", NOW - DAY)}, "gclid=G2", None),
    ],
)
def test_which_click_stays(keep: str, held: Any, query: str, expected: Any) -> None:
    capture = made(keep=keep, also=("gclid",))
    before = {name: Entry(*entry) for name, entry in held.items()}
    decision = capture.decide(before, capture.landing(query), NOW)
    after = held if expected is None else expected
    assert decision.record == {name: Entry(*entry) for name, entry in after.items()}
    assert (decision.change is None) is (expected is None)


# --- consent --------------------------------------------------------------------------------------------------


def failing(_request: object) -> bool:
    raise KeyError("consent")


@pytest.mark.parametrize(
    ("settings", "gpc", "expected"),
    [
        ({}, None, "granted"),
        ({}, "1", "denied"),
        ({}, " 1 ", "denied"),
        ({}, "0", "granted"),
        ({}, "\xff", "granted"),
        ({"honour_gpc": False}, "1", "granted"),
        ({"consent": lambda _: True}, None, "granted"),
        ({"consent": lambda _: True}, "1", "denied"),
        ({"consent": lambda _: True, "honour_gpc": False}, "1", "granted"),
        ({"consent": lambda _: False}, None, "denied"),
        ({"consent": lambda _: None}, None, "denied"),
        ({"consent": lambda _: "no"}, None, "unknown"),
        ({"consent": lambda _: 1}, None, "unknown"),
        ({"consent": failing}, None, "unknown"),
    ],
)
def test_only_a_plain_true_is_consent(settings: Any, gpc: str | None, expected: str) -> None:
    assert made(**settings).permission(None, gpc) == expected


# --- settings -------------------------------------------------------------------------------------------------


async def later(_request: object) -> bool:
    return True


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"secret": None}, "secrets.token_hex"),
        ({"secret": "short"}, "16 bytes"),
        ({"secret": [SECRET, b"short"]}, "16 bytes"),
        ({"secret": []}, "16 bytes"),
        ({"keep": "both"}, '"last" or "first"'),
        ({"storage": "disk"}, '"cookie" or "session"'),
        ({"life": timedelta(days=401)}, "400 days"),
        ({"life": timedelta(0)}, "400 days"),
        ({"life": 90}, "timedelta"),
        ({"names": "click_id"}, 'names=("click_id",)'),
        ({"names": ()}, "names is empty"),
        ({"names": ("click id",)}, "click id"),
        ({"names": (7,)}, "7"),
        ({"also": ("click_id",)}, "names"),
        ({"also": ("a:b",)}, "a:b"),
        ({"cookie": "a b"}, "cookie's name"),
        ({"cookie": ""}, "cookie's name"),
        ({"domain": "shop.example; HttpOnly"}, "host name"),
        ({"cookie": "__Host-pbk", "domain": "shop.example"}, "domain"),
        ({"cookie": "__Host-pbk", "secure": False}, "secure=True"),
        ({"consent": later}, "at once"),
        ({"consent": True}, "function"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_next_step(settings: Any, words: str) -> None:
    with pytest.raises(CaptureError, match=re.escape(words)):
        made(**settings)


def test_the_how_to_page_names_every_choice_and_its_default() -> None:
    page = (_VECTORS.parents[1] / "docs" / "how-to" / "keep-the-click-id.md").read_text("utf-8")
    shown = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", page, re.MULTILINE))
    choices = {field.name: field.default for field in fields(Capture) if field.init}
    assert shown == {
        name: written(default) for name, default in choices.items() if name not in ("secret", "clock")
    }
    assert [name for name in AD_CLICK_IDS if name not in page] == []


def written(default: object) -> str:
    """A default as a newcomer reads it."""
    words = {None: "none", (): "none", timedelta(days=90): "90 days"}
    return words.get(default) or "`" + repr(default).replace("'", '"') + "`"  # type: ignore[call-overload]


def test_a_session_needs_no_secret_and_a_secret_is_not_shown() -> None:
    assert Capture(storage="session").signer is None
    assert SECRET.decode() not in repr(made())


# --- handing the id on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "click_id", "expected"),
    [
        ("https://pay.example/", "X", "https://pay.example/?click_id=X"),
        ("https://pay.example/?a=1", "X", "https://pay.example/?a=1&click_id=X"),
        ("https://pay.example/?a=1#top", "X", "https://pay.example/?a=1&click_id=X#top"),
        ("https://pay.example/?click_id=&a=1", "X", "https://pay.example/?a=1&click_id=X"),
        ("https://pay.example/?", "a/b+c=", "https://pay.example/?click_id=a%2Fb%2Bc%3D"),
        ("/checkout", "X", "/checkout?click_id=X"),
        ("https://pay.example/?a=1", None, "https://pay.example/?a=1"),
        ("https://pay.example/?a=1", "", "https://pay.example/?a=1"),
    ],
)
def test_an_id_is_handed_on_in_an_address(url: str, click_id: str | None, expected: str) -> None:
    assert append(url, click_id) == expected


def test_what_is_handed_on_is_what_the_other_side_captures() -> None:
    url = append("https://pay.example/?a=1#top", "2Z3:0U|x/y+z==", name="sub id")
    query = url.partition("?")[2].partition("#")[0]
    assert found(query, names=("sub.id", "click_id")) == {}
    assert found(query.replace("sub%20id", "sub_id"), names=("sub_id",)) == {"click_id": "2Z3:0U|x/y+z=="}
