"""The broken hop of each reason, from what rows show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from postbackd.core.click_id import KeyRing
from postbackd.core.diagnosis import Reason
from postbackd.core.hops import Altered, Hop, Shown, add_id, find_hop, move_id, read_link, tell_altered
from postbackd.core.model import SigningKey

KEYS = KeyRing(
    [
        SigningKey(id=1, secret=b"old", active_from_ms=0, retired=True),
        SigningKey(id=2, secret=b"new", active_from_ms=1_700_000_000_000),
    ]
)
STAMP = (1_750_000_000_000 - 1_577_836_800_000) << 22


def hop(
    reason: Reason,
    *,
    count: int = 100,
    texts: Sequence[str] = (),
    hints: Sequence[str] = (),
    links: Sequence[tuple[str, str]] = (),
    altered: Mapping[Altered, int] | None = None,
    macro: str | None = "{aff_sub}",
    pixel_only: bool = False,
    own_ids: bool = False,
    young: float = 0.0,
) -> tuple[Hop, str]:
    broken = find_hop(
        Shown(
            network="N",
            reason=reason,
            count=count,
            total=100,
            texts=dict.fromkeys(texts, 1),
            hints=dict.fromkeys(hints, 1),
            altered=altered or {},
            links=[read_link(name, url) for name, url in links],
            macro=macro,
            pixel_only=pixel_only,
            own_ids=own_ids,
            young=young,
        )
    )
    return broken.hop, broken.why


GOOD = [("O", "https://o.example/?aff_sub={click_id}")]


@pytest.mark.parametrize(
    ("told", "expected", "words"),
    [
        (hop(Reason.CLICK_ID_MISSING), Hop.NETWORK, "no parameter for the click id"),
        (hop(Reason.CLICK_ID_MISSING, count=20), Hop.NETWORK, "a second postback URL"),
        (hop(Reason.CLICK_ID_MISSING, pixel_only=True), Hop.ADVERTISER, "browser pixel"),
        (hop(Reason.CLICK_ID_EMPTY, links=[("O", "https://o.example/")]), Hop.US, "offer 'O' does not pass"),
        (
            hop(Reason.CLICK_ID_EMPTY, links=[("O", "https://o.example/?sub2={click_id}")]),
            Hop.US,
            "passes the id as sub2, and the postback URL reads {aff_sub}",
        ),
        (hop(Reason.CLICK_ID_EMPTY, links=GOOD), Hop.NETWORK, "never filled"),
        (hop(Reason.CLICK_ID_EMPTY, links=GOOD, count=10), Hop.LANDING_PAGE, "between our redirect and the network"),
        (hop(Reason.MACRO_LITERAL, texts=["{aff_sub}"]), Hop.NETWORK, "its own macro {aff_sub} unfilled"),
        (hop(Reason.MACRO_LITERAL, texts=["{click_id}"]), Hop.NETWORK, "a macro of ours"),
        (hop(Reason.MACRO_LITERAL, texts=["#s2#"], macro=None), Hop.NETWORK, "#s2# is no macro that it fills."),
        (hop(Reason.CLICK_ID_TRUNCATED, texts=["0cnbt4z1y000000001", "1cnbt4z1y000000001"]), Hop.NETWORK, "18 of 26"),
        (hop(Reason.CLICK_ID_TRUNCATED, texts=["0cnbt4z1y000", "1cnbt4z1y000000001"]), Hop.LANDING_PAGE, "12 to 18"),
        (hop(Reason.CLICK_ID_ALTERED, altered={Altered.SURROUNDED: 3}), Hop.NETWORK, "3 of 3 looked at: genuine"),
        (hop(Reason.CLICK_ID_ALTERED, altered={Altered.RETIRED: 3}), Hop.US, "retired"),
        (hop(Reason.CLICK_ID_ALTERED, altered={Altered.TAIL_CHANGED: 1}), Hop.ADVERTISER, "its end was changed"),
        (hop(Reason.CLICK_ID_ALTERED, altered={Altered.NO_CLICK: 1}), Hop.NETWORK, "forged"),
        (hop(Reason.CLICK_ID_FOREIGN, hints=["a UUID"], links=GOOD), Hop.NETWORK, "It sends a UUID where"),
        (hop(Reason.CLICK_ID_FOREIGN, own_ids=True), Hop.US, "your server has not registered them"),
        (hop(Reason.CLICK_NOT_YET_SEEN, young=0.9), Hop.US, "may still come"),
        (hop(Reason.CLICK_NOT_YET_SEEN, young=0.1), Hop.US, "never had their clicks"),
        (hop(Reason.CLICK_PURGED), Hop.US, "deleted by age"),
        (hop(Reason.CLICK_BEFORE_WINDOW), Hop.SOURCE, "automated"),
        (hop(Reason.CLICK_AFTER_WINDOW), Hop.US, ""),
        (hop(Reason.VALUE_MACRO_LITERAL), Hop.NETWORK, ""),
        (hop(Reason.TEST_EVENT), Hop.NOBODY, ""),
        (hop(Reason.TYPE_NOT_ALLOWED), Hop.US, ""),
        (hop(Reason.SIGNATURE_INVALID), Hop.NETWORK, "did not show that it may send"),
    ],
)  # fmt: skip
def test_a_reason_and_what_its_rows_show_name_the_hop(
    told: tuple[Hop, str], expected: Hop, words: str
) -> None:
    assert told[0] is expected
    assert words in told[1]


def test_every_reason_has_a_hop_and_a_sentence_whatever_the_rows_show() -> None:
    for reason in Reason:
        _, why = hop(reason)
        assert why.endswith("."), reason


def test_what_is_altered_forged_retired_or_too_old_is_told_apart() -> None:
    genuine = KEYS.write(STAMP, 7)
    changed = genuine[:-1] + ("0" if genuine[-1] != "0" else "1")
    old = KEYS.write((1_650_000_000_000 - 1_577_836_800_000) << 22, 7)

    def tell(text: str, *, purged_before: int = 0, stored: bool = False) -> Altered:
        return tell_altered(text, KEYS, purged_before, lambda stamp: stored and stamp == STAMP)

    assert tell(changed, stored=True) is Altered.TAIL_CHANGED
    assert tell(changed) is Altered.NO_CLICK
    assert tell(changed, purged_before=STAMP + 1) is Altered.TOO_OLD
    assert tell(old) is Altered.RETIRED
    assert tell(f"{genuine[:-1]}u") is Altered.UNREADABLE


def test_the_url_of_an_offer_says_which_parameter_carries_the_id_and_how_to_mend_it() -> None:
    link = read_link("O", "https://User@Shop.Example.:443/x?a=1&s2={click_id}#f")
    assert (link.host, link.parameter) == ("shop.example", "s2")
    assert read_link("O", "https://o.example/{click_id}").parameter == ""
    assert read_link("O", "http://o.example").parameter is None
    assert add_id("https://o.example/a#f", "sub1") == "https://o.example/a?sub1={click_id}#f"
    assert add_id("https://o.example/?x=1", "sub1") == "https://o.example/?x=1&sub1={click_id}"
    assert move_id(link.url, "s2", "sub1").endswith("/x?a=1&sub1={click_id}#f")
