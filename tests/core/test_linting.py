"""What is said of URLs, check by check: what is found, where, and how the URL reads when it is mended."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.catalog.linting import Linter, Whose, describe_preset
from postbackd.core.hops import read_link
from postbackd.core.linting import CHECKS, MAX_CHARACTERS, MOST_FLAWS, Kind, Known, Linted, Severity, lint
from postbackd.core.model import Catalog, Network, Offer
from postbackd.core.senders import Scheme, Senders
from postbackd.presets import find_preset
from tests.core.lint_faults import BASE, FAULTS, Fault, Right, examples, right_urls

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "lint-a-url.md"

KEY = "gydvyc1mfycvvpt0h9sp38tdze"
IN = f"{BASE}/p/{KEY}"
CLICK = f"{BASE}/c/push"
OFFER = "https://shop.example.com/go"
TOLD = "https://ads.example.com/conversion"


def look(url: str, preset: str | None = None, kind: Kind | None = None) -> Linted:
    return Linter(None, [BASE], Whose(preset=preset), kind).lint(url)


def found(linted: Linted) -> dict[str, str]:
    """Check -> the text at its first place."""
    return {flaw.check: linted.url[flaw.start : flaw.end] for flaw in reversed(linted.flaws)}


GOOD_ID = "click_id={aff_sub}"

# preset, URL, check, its place, the mended URL ("": it cannot be mended safely)
BAD: tuple[tuple[str | None, str, str, str, str], ...] = (
    # wrapping
    ("tune", f"  {IN}?{GOOD_ID}\n", "white_space", "  ", f"{IN}?{GOOD_ID}"),
    ("tune", f"{IN}?click_\n   id={{aff_sub}}", "white_space", "\n   ", f"{IN}?{GOOD_ID}"),
    ("tune", f"{IN}?\u200b{GOOD_ID}", "invisible", "\u200b", f"{IN}?{GOOD_ID}"),
    ("tune", f'"{IN}?{GOOD_ID}"', "quoted", f'"{IN}?{GOOD_ID}"', f"{IN}?{GOOD_ID}"),
    ("tune", f"“{IN}?{GOOD_ID}”", "quoted", f"“{IN}?{GOOD_ID}”", f"{IN}?{GOOD_ID}"),
    ("tune", f"{IN}?{GOOD_ID}&amp;value={{payout}}", "html_escaped", "&amp;", f"{IN}?{GOOD_ID}&value={{payout}}"),
    ("tune", f"{IN}?click_id=&#123;aff_sub&#125;", "html_escaped", "&#123;", f"{IN}?{GOOD_ID}"),
    (None, "https%3A%2F%2Fshop.example.com%2F%3Fs%3D{click_id}", "encoded_whole",
     "https%3A%2F%2Fshop.example.com%2F%3Fs%3D{click_id}", "https://shop.example.com/?s={click_id}"),
    (None, "https%253A%252F%252Fshop.example.com/?s={click_id}", "encoded_whole",
     "https%253A%252F%252Fshop.example.com/?s={click_id}", "https://shop.example.com/?s={click_id}"),
    # scheme and host
    (None, f"{OFFER.removeprefix('https://')}?s={{click_id}}", "scheme", "shop.example.com", ""),
    (None, f"track.example.com/p/{KEY}?click_id={{x}}", "scheme", "track.example.com", f"{IN}?click_id={{x}}"),
    (None, "https//shop.example.com/?s={click_id}", "scheme", "https//", "https://shop.example.com/?s={click_id}"),
    (None, "https://https://shop.example.com/?s={click_id}", "scheme", "https://", "https://shop.example.com/?s={click_id}"),
    (None, "ftp://shop.example.com/?s={click_id}", "scheme", "ftp:", ""),
    (None, "http://shop.example.com/?s={click_id}", "not_https", "http://", ""),
    (None, f"http://track.example.com/p/{KEY}?click_id={{x}}", "not_https", "http://", f"{IN}?click_id={{x}}"),
    (None, "https://anna:pw@shop.example.com/?s={click_id}", "host", "anna:pw@shop.example.com", ""),
    (None, "https://{sub1}.example.com/?s={click_id}", "host", "{sub1}.example.com", ""),
    (None, "https://bücher.example.com/?s={click_id}", "host", "bücher.example.com", ""),
    (None, "https://shop..example.com/?s={click_id}", "host", "shop..example.com", ""),
    (None, "https://127.0.0.1:8080/?s={click_id}", "host_local", "127.0.0.1:8080", ""),
    (None, "https://localhost/?s={click_id}", "host_local", "localhost", ""),
    # separators and fragments
    ("tune", f"{IN}?{GOOD_ID}?value={{payout}}", "separator", "?", f"{IN}?{GOOD_ID}&value={{payout}}"),
    ("tune", f"{IN}&{GOOD_ID}", "separator", "&", f"{IN}?{GOOD_ID}"),
    ("tune", f"{IN}?click_id%3D{{aff_sub}}%26value%3D{{payout}}", "separator",
     "click_id%3D{aff_sub}%26value%3D{payout}", f"{IN}?{GOOD_ID}&value={{payout}}"),
    ("tune", f"{IN}#{GOOD_ID}", "fragment", f"#{GOOD_ID}", f"{IN}?{GOOD_ID}"),
    ("tune", f"{IN}?{GOOD_ID}#value={{payout}}", "fragment", "#value={payout}", f"{IN}?{GOOD_ID}&value={{payout}}"),
    ("tune", f"{IN}?{GOOD_ID}#top", "fragment", "#top", f"{IN}?{GOOD_ID}"),
    ("mgid", f"{CLICK}#source_click_id={{click_id}}", "fragment", "#source_click_id={click_id}",
     f"{CLICK}?source_click_id={{click_id}}"),
    (None, f"{OFFER}?s={{click_id}}#/product", "fragment", "#/product", ""),
    (None, f"{OFFER}#/go?s={{click_id}}", "fragment", "#/go?s={click_id}", ""),
    # encoding
    (None, f"{OFFER}?s={{click_id}}&q=a%2520b", "double_encoding", "%2520", f"{OFFER}?s={{click_id}}&q=a%20b"),
    (None, f"{OFFER}?s={{click_id}}&u=https%253A%252F%252Fx.example", "double_encoding", "%253A%252F%252F",
     f"{OFFER}?s={{click_id}}&u=https%3A%2F%2Fx.example"),
    (None, f"{OFFER}?s={{click_id}}&q=two words", "unencoded", " ", f"{OFFER}?s={{click_id}}&q=two%20words"),
    (None, f"{OFFER}?s={{click_id}}&q=100%", "unencoded", "%", ""),
    (None, f"{OFFER}?s={{click_id}}&a=1&a=1", "twice", "a=1", f"{OFFER}?s={{click_id}}&a=1"),
    (None, f"{OFFER}?s={{click_id}}&a=1&a=2", "twice", "a=2", ""),
    (None, f"{OFFER}?s={{click_id}}&a={'x' * 200}", "long", f"?s={{click_id}}&a={'x' * 200}", ""),
    (None, f"{OFFER}?s={{click_id}}&{'&'.join(f'a{n}=1' for n in range(10))}", "many", "", ""),
    ("tune", f"{IN}?{GOOD_ID}&{'&'.join(f'a{n}=1' for n in range(33))}", "many", "", ""),
    # macros
    ("tune", f"{IN}?click_id=%7Baff_sub%7D", "macro_encoded", "%7Baff_sub%7D", f"{IN}?{GOOD_ID}"),
    ("tune", f"{IN}?click_id=%257Baff_sub%257D", "macro_encoded", "%257Baff_sub%257D", f"{IN}?{GOOD_ID}"),
    ("cake", f"{IN}?click_id=%23s2%23", "macro_encoded", "%23s2%23", f"{IN}?click_id=#s2#"),
    ("tune", f"{IN}?click_id={{aff_sub&value={{payout}}", "macro_unclosed", "{aff_sub",
     f"{IN}?{GOOD_ID}&value={{payout}}"),
    ("tune", f"{IN}?click_id=aff_sub}}", "macro_unclosed", "aff_sub}", f"{IN}?{GOOD_ID}"),
    ("hilltopads", f"{CLICK}?source_click_id={{{{ctoken}}", "macro_unclosed", "{{ctoken}",
     f"{CLICK}?source_click_id={{{{ctoken}}}}"),
    ("cake", f"{IN}?click_id=#s2&value=#price#", "macro_unclosed", "#s2", f"{IN}?click_id=#s2#&value=#price#"),
    ("cake", f"{IN}?click_id=s2#&value=#price#", "macro_unclosed", "s2#", f"{IN}?click_id=#s2#&value=#price#"),
    ("admitad", f"{IN}?click_id=[[[subid]]", "macro_unclosed", "[[[subid]]", f"{IN}?click_id=[[[subid]]]"),
    (None, f"{OFFER}?s={{click_id}}&q={{", "macro_unclosed", "{", ""),
    (None, f"{OFFER}?s={{click_id}}&q={{{{foo}}", "macro_unclosed", "{{foo}", ""),
    ("tune", f"{IN}?click_id=[aff_sub]", "macro_delimiter", "[aff_sub]", f"{IN}?{GOOD_ID}"),
    ("tune", f"{IN}?click_id=[aff_sub2]", "macro_delimiter", "[aff_sub2]", f"{IN}?click_id={{aff_sub2}}"),
    ("awin", f"{IN}?click_id=%%clickRef%%", "macro_delimiter", "%%clickRef%%", f"{IN}?click_id=!!!clickRef!!!"),
    ("propellerads", f"{CLICK}?source_click_id={{SUBID}}", "macro_delimiter", "{SUBID}",
     f"{CLICK}?source_click_id=${{SUBID}}"),
    (None, f"{OFFER}?s={{{{click_id}}}}", "macro_delimiter", "{{click_id}}", f"{OFFER}?s={{click_id}}"),
    (None, f"{OFFER}?s={{click_id}}&c=[country]", "macro_delimiter", "[country]", ""),
    ("tune", f"{IN}?click_id={{AFF_SUB}}", "macro_spelling", "{AFF_SUB}", f"{IN}?{GOOD_ID}"),
    (None, f"{OFFER}?s={{clickid}}", "macro_spelling", "{clickid}", f"{OFFER}?s={{click_id}}"),
    ("tune", f"{IN}?{GOOD_ID}&value={{payuot}}", "macro_unknown", "{payuot}", ""),
    (None, f"{OFFER}?s={{click_id}}&c={{contry}}", "macro_unknown", "{contry}", ""),
    (None, f"{OFFER}?s={{click_id}}&c={{zzz}}", "macro_unknown", "{zzz}", ""),
    (None, f"{TOLD}?c={{source_click_id}}&v={{valeu}}", "macro_unknown", "{valeu}", ""),
    ("tune", f"{IN}?click_id={{click_id}}", "macro_misplaced", "{click_id}", f"{IN}?{GOOD_ID}"),
    ("tune", f"{OFFER}?aff_sub={{aff_sub}}&s={{source}}", "macro_misplaced", "{aff_sub}",
     f"{OFFER}?aff_sub={{click_id}}&s={{source}}"),
    ("mgid", "https://a.mgid.com/postback?c={click_id}&e={goal}", "macro_misplaced", "{click_id}",
     "https://a.mgid.com/postback?c={source_click_id}&e={goal}"),
    (None, f"{TOLD}?c=<CLICK_ID>&v=<PAYOUT>&k=<ACCOUNT_KEY>", "placeholder", "<CLICK_ID>",
     f"{TOLD}?c={{source_click_id}}&v={{value}}&k={{account.KEY}}"),
    (None, "https://ad.propellerads.com/conversion.php?visitor_id=${SUBID}", "macro_misplaced", "${SUBID}",
     "https://ad.propellerads.com/conversion.php?visitor_id={source_click_id}"),
    (None, f"{TOLD}?c={{source_click_id}}&h=<ADCASH_HOST>", "placeholder", "<ADCASH_HOST>", ""),
    ("tune", f"{IN}?click_id=REPLACE_ME", "placeholder", "REPLACE_ME", f"{IN}?{GOOD_ID}"),
    # what it says
    ("tune", f"{OFFER}?offer=7", "click_id_missing", "/go?offer=7", f"{OFFER}?offer=7&aff_sub={{click_id}}"),
    ("tune", f"{OFFER}?aff_sub=&offer=7", "click_id_missing", "/go?aff_sub=&offer=7",
     f"{OFFER}?aff_sub={{click_id}}&offer=7"),
    (None, f"{OFFER}?offer=7", "click_id_missing", "/go?offer=7", ""),
    (None, f"{OFFER}?s={{source_click_id}}&v={{sub1}}&o={{click_idx}}", "macro_unknown", "{click_idx}", ""),
    ("tune", f"{IN}?value={{payout}}", "click_id_missing", f"/p/{KEY}?value={{payout}}",
     f"{IN}?value={{payout}}&{GOOD_ID}"),
    ("tune", f"{IN}?click_id=&value={{payout}}", "click_id_missing", "click_id=", f"{IN}?{GOOD_ID}&value={{payout}}"),
    ("tune", f"{IN}?click_id=12345", "click_id_missing", "click_id=12345", ""),
    ("mgid", f"{CLICK}?cost={{click_price}}", "click_id_missing", "/c/push?cost={click_price}",
     f"{CLICK}?cost={{click_price}}&source_click_id={{click_id}}"),
    ("taboola", "https://trc.taboola.com/actions-handler/log/3/s2s-action?name={goal}", "click_id_missing",
     "/actions-handler/log/3/s2s-action?name={goal}",
     "https://trc.taboola.com/actions-handler/log/3/s2s-action?name={goal}&click-id={source_click_id}"),
    ("tune", f"{OFFER}?aff_sub2={{click_id}}", "click_id_place", "aff_sub2={click_id}", ""),
    ("taboola", "https://trc.taboola.com/x?cid={source_click_id}", "click_id_place", "cid={source_click_id}", ""),
    (None, f"{OFFER}?s=a-{{click_id}}", "click_id_surrounded", "a-{click_id}", ""),
    ("tune", f"{IN}?click_id=x{{aff_sub}}", "click_id_surrounded", "x{aff_sub}", ""),
    ("tune", f"{IN}?clik_id={{aff_sub}}", "parameter_unknown", "clik_id={aff_sub}", f"{IN}?{GOOD_ID}"),
    ("tune", f"{IN}?{GOOD_ID}&payuot={{payout}}", "parameter_unknown", "payuot={payout}", ""),
    ("tune", f"{IN}?{GOOD_ID}&pay-out={{payout}}", "parameter_unknown", "pay-out={payout}",
     f"{IN}?{GOOD_ID}&payout={{payout}}"),
    ("tune", f"{IN}?{GOOD_ID}&cid={{aff_sub}}", "field_twice", "cid={aff_sub}", ""),
    ("tune", f"{IN}?{GOOD_ID}&value={{transaction_id}}", "macro_of_other_field", "{transaction_id}", ""),
    ("adjust", f"{IN}?click_id={{click_id}}&value={{revenue}}", "cents", "{revenue}",
     f"{IN}?click_id={{click_id}}&value={{revenue_float}}"),
    (None, f"{TOLD}?c={{source_click_id}}&amount_cents={{value}}", "cents", "{value}", ""),
    ("tune", f"{IN}?{GOOD_ID}&value={{payout_cents}}", "cents", "{payout_cents}", ""),
    (None, f"https://other.example.com/p/{KEY}?click_id={{x}}", "not_ours", "other.example.com", ""),
    (None, f"{BASE}/go?s={{click_id}}", "not_ours", "track.example.com", ""),
    # what it tells
    (None, f"{OFFER}?s={{click_id}}&m=anna@example.com", "personal_data", "m=anna@example.com", ""),
    (None, f"{OFFER}/anna%40example.com?s={{click_id}}", "personal_data", "anna%40example.com", ""),
    ("tune", f"{IN}?{GOOD_ID}&mail=anna%40example.com", "personal_data", "mail=anna%40example.com", f"{IN}?{GOOD_ID}"),
    ("tune", f"{IN}?ip={{ip}}&{GOOD_ID}", "personal_data", "{ip}", f"{IN}?{GOOD_ID}"),
    ("affise", f"{IN}?click_id={{sub1}}&time={{ip}}", "personal_data", "{ip}", ""),
    (None, f"{OFFER}?s={{click_id}}&password=hunter2", "secret", "password=hunter2", ""),
    (None, f"{TOLD}?c={{source_click_id}}&token=0a1b2c3d4e5f6a7b8c9d", "secret", "token=0a1b2c3d4e5f6a7b8c9d", ""),
    (None, f"{OFFER}?s={{click_id}}&x=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "secret",
     "x=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ""),
    (None, f"{OFFER}?s={{click_id}}&cb=https%3A%2F%2Ftrack.example.com%2Fp%2F{KEY}", "key_shown",
     f"https%3A%2F%2Ftrack.example.com%2Fp%2F{KEY}", ""),
    ("tune", f"{IN}/pixel.gif?{GOOD_ID}", "key_shown", KEY, ""),
    (None, " \t", "empty", " \t", ""),
)  # fmt: skip

# preset, URL: what looks like a flaw and is none
GOOD: tuple[tuple[str | None, str], ...] = (
    (None, f"{OFFER}?s={{click_id}}&u=https%3A%2F%2Fx.example%2F%3Fq%3Da%2520b"),  # encoded twice inside of a URL
    (None, f"{OFFER}?s={{click_id}}&q=50%25ab"),  # a percent sign that was meant
    (None, f"{OFFER}?s={{click_id}}&q=%C3%A4"),
    (None, f"{OFFER}?s={{click_id}}&filter[name]=1&ids[]=1&ids[]=2"),  # no macros
    (None, f"{OFFER}?s={{click_id}}&x=${{foo}}&y=[[bar]]&z=__baz__"),  # other systems'
    (None, f"{OFFER}/wiki_(page)?s={{click_id}}"),
    (None, f"{OFFER}?s={{click_id}}&n=a__b__c&v=1.2.3.4567&d=2026-11-26"),
    (None, f"{OFFER}?s={{click_id}}&u=https://x.example/?a=1"),  # a URL inside of it
    (None, f"{OFFER}?key=shoes&token=abc&s={{click_id}}"),  # too short for secrets
    (None, "https://shop.example.com/{click_id}/go"),
    (None, f"{OFFER}?s={{click_id}}&q=$foo"),
    ("appmetrica", "https://other.example.com/postback?cid={click_id}"),
    (None, "https://shop.example.com/p/shoes?s={click_id}"),  # a path of a shop
    (None, "https://shop.example.com/c/shoes?s={click_id}"),
    (None, "https://other.example.com/postback?cid={sub1}&payout={payout_amount}&txid={transaction_id}"),
    (None, f"{OFFER}?click_id={{click_id}}&cb=https%3A%2F%2Fother.example.com%2Fpostback%3Fcid%3D{{click_id}}"),
    ("tune", f"{IN}?click_id={{aff_sub2}}&value={{payout}}"),  # another number of a known word
    ("cake", f"{IN}?click_id=#s2##s3#&value=#price#"),  # one id over two sub ids
    ("keitaro", f"{IN}?click_id={{external_id}}&token=0a1b2c3d4e5f6a7b8c9d"),  # what its sender shows
    ("mgid", f"{CLICK}?source_click_id={{click_id}}&cost={{click_price:2}}"),  # a modifier
    ("meta", f"{CLICK}?sub1={{{{campaign.id}}}}"),  # it appends its click id
    ("tune", "https://other.example.com/postback?cid={aff_sub}&payout={payout}"),
    ("income-partners", f"{IN}?click_id={{transaction_id}}&value={{amount}}"),  # here it is the click id
    ("bitlabs", f"{IN}?click_id=[%UID%]&value=[%RAW%]"),
    (None, f"{TOLD}?c={{source_click_id}}&k={{account.KEY}}&x=[x]&y=#y#"),
    (None, f"{IN}?click_id=%adid%&value=%payout%"),  # begins like an escape and is a macro
)  # fmt: skip


@pytest.mark.parametrize(("preset", "url", "check", "place", "mended"), BAD)
def test_a_flaw_is_found_at_its_place_and_mended_where_that_is_safe(
    preset: str | None, url: str, check: str, place: str, mended: str
) -> None:
    linted = look(url, preset)
    assert check in found(linted), linted
    if place:
        assert found(linted)[check] == place
    if mended:
        assert linted.mended == mended
        assert check not in found(look(mended, preset))
    else:
        assert not any(flaw.safe for flaw in linted.flaws if flaw.check == check)


@pytest.mark.parametrize(("preset", "url"), GOOD)
def test_what_only_looks_like_a_flaw_is_none(preset: str | None, url: str) -> None:
    serious = [flaw for flaw in look(url, preset).flaws if flaw.severity is not Severity.ADVICE]
    assert serious == []


def test_every_check_has_a_case() -> None:
    """A check that no case shows would be one that nobody knows to work."""
    with_cases = {check for _, _, check, _, _ in BAD} | {"address_unknown"}
    assert len(with_cases) >= sum(map(len, CHECKS))


def test_the_guide_names_every_check() -> None:
    named = set(re.findall(r"^\| (`[a-z_ `]+) \|", GUIDE.read_text("utf-8"), re.MULTILINE))
    checks = {word.strip("`") for cell in named for word in cell.split()}
    assert {check for _, _, check, _, _ in BAD} - {"empty"} <= checks


# --- presets --------------------------------------------------------------------------------------------------

RIGHT = tuple(right_urls())


@pytest.mark.parametrize("right", RIGHT, ids=lambda right: right.name)
def test_what_a_preset_gives_is_clean_and_taken_for_what_it_is(right: Right) -> None:
    linted = Linter(None, [BASE], right.whose).lint(right.url)
    assert [flaw for flaw in linted.flaws if flaw.severity is not Severity.ADVICE] == []
    assert (linted.kind, linted.mended) == (right.kind, None)


def test_the_networks_own_examples_are_clean_but_for_the_one_that_asks_for_a_password() -> None:
    flaws = {
        (preset.id, flaw.check)
        for preset, url in examples()
        for flaw in Linter(None, [BASE], Whose(preset=preset.id)).lint(url).flaws
        if flaw.severity is not Severity.ADVICE
    }
    assert flaws == {("cpalead", "personal_data")}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_planted_fault_is_found_in_every_preset_when_the_kind_is_said(fault: Fault) -> None:
    missed, planted = list[object](), 0
    for right in RIGHT:
        bad = fault.plant(right)
        if bad is None or bad == right.url:
            continue
        planted += 1
        linted = Linter(None, [BASE], right.whose, right.kind).lint(bad)
        if not fault.found_by & {flaw.check for flaw in linted.flaws}:
            missed.append((right.name, bad, found(linted)))
        if linted.mended is not None:
            again = Linter(None, [BASE], right.whose, right.kind).lint(linted.mended)
            assert again.mended is None, (bad, linted.mended, again.mended)
    assert missed == []
    assert planted > 50


def test_nearly_all_planted_faults_are_found_when_the_kind_is_not_said() -> None:
    planted = [
        (right, bad, fault)
        for fault in FAULTS
        for right in RIGHT
        if (bad := fault.plant(right)) is not None and bad != right.url
    ]
    seen = sum(
        bool(fault.found_by & found(Linter(None, [BASE], right.whose).lint(bad)).keys())
        for right, bad, fault in planted
    )
    assert len(planted) > 1500
    assert seen / len(planted) > 0.98


# --- the catalog ----------------------------------------------------------------------------------------------

CATALOG = Catalog(
    generation=1,
    networks=(
        Network(id=1, name="Adnet", key=KEY, preset="tune"),
        Network(
            id=2, name="Wall", key="w" * 26, preset="acornads",
            senders=Senders(scheme=Scheme(kind="fields", template="{uid}{secret}", parameter="hash")),
        ),
    ),
    offers=(Offer(id=1, name="Shoes", network=1, url=f"{OFFER}?aff_sub={{click_id}}"),),
)  # fmt: skip


def in_catalog(url: str, whose: Whose = Whose()) -> Linted:  # noqa: B008 - immutable
    return Linter(CATALOG, [BASE], whose).lint(url)


def test_the_key_in_a_url_names_its_network_and_what_that_calls_things() -> None:
    linted = in_catalog(f"{IN}?click_id=[aff_sub]")
    assert (linted.whose, linted.mended) == ("TUNE (HasOffers)", f"{IN}?{GOOD_ID}")
    assert in_catalog(f"{IN}?{GOOD_ID}&value={{payout}}").flaws == ()


@pytest.mark.parametrize(
    ("url", "whose", "cause"),
    [
        (f"{BASE}/p/{'x' * 26}?click_id={{x}}", Whose(), "No network has this key."),
        (f"{IN}?click_id={{s1}}", Whose(network="Wall"), "This is the key of 'Adnet', not of 'Wall'."),
        (f"{BASE}/c/none", Whose(), "There is no campaign 'none'."),
    ],
)
def test_an_address_that_there_is_not_is_named(url: str, whose: Whose, cause: str) -> None:
    assert cause in [flaw.cause for flaw in in_catalog(url, whose).flaws if flaw.check == "address_unknown"]


def test_what_stands_for_a_hidden_key_is_no_error() -> None:
    (flaw,) = in_catalog(f"{BASE}/p/KEY?click_id={{x}}").flaws
    assert (flaw.check, flaw.severity) == ("address_unknown", Severity.ADVICE)


def test_an_offer_that_passes_the_id_in_another_sub_id_is_named_beside_the_postback_url() -> None:
    linted = in_catalog(f"{IN}?click_id={{aff_sub3}}")
    assert found(linted) == {"click_id_place": "click_id={aff_sub3}"}
    assert "offer 'Shoes' passes the id as aff_sub" in linted.flaws[0].cause


def test_what_a_networks_signature_needs_is_no_personal_data() -> None:
    url = f"{BASE}/p/{'w' * 26}?click_id={{s1}}&uid={{user_uid}}&offer_id={{offer_id}}&hash={{hash}}"
    assert in_catalog(url).flaws == ()
    assert "personal_data" in found(in_catalog(url.replace("{hash}", "{ip_address}")))


def test_a_key_of_the_catalog_is_found_in_whatever_browsers_see() -> None:
    assert found(in_catalog(f"{OFFER}?aff_sub={{click_id}}&ref={KEY}"))["key_shown"] == KEY


def test_a_local_base_says_nothing() -> None:
    assert Linter(None, ["http://127.0.0.1:8080"]).lint(f"{IN}?click_id={{x}}").flaws == ()


# --- whatever the text is -------------------------------------------------------------------------------------

_WORDS = (
    "https:// http: // track.example.com /p/k /c/x ? & = # % %25 %7B %7D %2520 { } [ ] < > {click_id} "
    "{{click_id}} ${SUBID} [aff_sub] #s2# #s2 __X__ !!!x!!! click_id value source_click_id aff_sub &amp; "
    "anna@example.com <CLICK_ID> REPLACE_ME a 1 %3D %26 https%3A%2F%2F {account.X} (x) cents token \\ ^"
)
_PIECES = st.sampled_from([*_WORDS.split(), " ", "\n", "\u200b", '"', "é", "\ud800"])
_TEXTS = st.one_of(st.text(max_size=60), st.lists(_PIECES, max_size=14).map("".join))
_PRESETS = [None, "tune", "cake", "propellerads", "adjust", "taboola", "admitad"]


@given(_TEXTS, st.sampled_from(_PRESETS), st.sampled_from([None, *Kind]))
def test_any_text_has_an_answer_and_a_mended_one_has_nothing_left_to_mend(
    text: str, preset: str | None, kind: Kind | None
) -> None:
    linted = look(text, preset, kind)
    assert all(0 <= flaw.start <= flaw.end <= len(text) for flaw in linted.flaws)
    assert (linted.mended is not None) == any(flaw.safe for flaw in linted.flaws)
    if linted.mended is not None:
        again = look(linted.mended, preset, kind)
        assert again.mended is None
        assert not any(flaw.safe for flaw in again.flaws)


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ('"' * 2000 + OFFER + '"' * 2000, OFFER),
        (f"{OFFER}?s={{click_id}}&{'amp;' * 1500}a=1", f"{OFFER}?s={{click_id}}&a=1"),
        (f"{OFFER}?s={{click_id}}&q=a%{'25' * 1500}20b", f"{OFFER}?s={{click_id}}&q=a%20b"),
        (f"{OFFER}?s=%{'25' * 1500}7Bclick_id%{'25' * 1500}7D", f"{OFFER}?s={{click_id}}"),
        (f"{'https://' * 900}shop.example.com/?s={{click_id}}", "https://shop.example.com/?s={click_id}"),
        (
            f"https%{'25' * 2000}3A//shop.example.com/?s={{click_id}}",
            "https://shop.example.com/?s={click_id}",
        ),
    ],
)
def test_what_was_done_a_thousand_times_is_undone_at_once(text: str, mended: str) -> None:
    assert look(text).mended == mended


def test_what_no_line_would_carry_is_refused_as_a_whole_and_many_flaws_are_counted() -> None:
    assert [flaw.check for flaw in look("https://x.example/" + "a" * MAX_CHARACTERS).flaws] == ["long"]
    many = look("https://shop.example.com/?s={click_id}&q=" + "^" * 300)
    assert len(many.flaws) == MOST_FLAWS
    assert many.more > 100
    assert many.mended is not None


def test_the_sentence_of_a_mismatch_is_the_doctors() -> None:
    known = Known(
        partner=describe_preset(find_preset("network", "tune")),  # type: ignore[arg-type]
        links=(read_link("Shoes", f"{OFFER}?sub9={{click_id}}"),),
    )
    linted = lint(f"{IN}?{GOOD_ID}", known)
    assert linted.flaws[0].cause.startswith(
        "The URL of offer 'Shoes' passes the id as sub9, and the postback URL reads"
    )
