"""Offer URLs: filled fast and safely, refused with a reason."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.macro_syntax import find_macros
from postbackd.core.macros import KNOWN, MacroError, compile_url, looks_like_macro

VALUES = st.fixed_dictionaries({name: st.none() | st.text() for name in KNOWN})
EVERY_MACRO = "https://shop.example/?" + "&".join(f"{name}={{{name}}}" for name in KNOWN)
PRINTABLE_ASCII = re.compile(r"[!-~]*")


@given(VALUES)
def test_a_filled_url_is_printable_ascii_whatever_the_values(values: dict[str, str | None]) -> None:
    assert PRINTABLE_ASCII.fullmatch(compile_url(EVERY_MACRO).fill(values))


@given(st.dictionaries(st.sampled_from(KNOWN), st.text(st.characters(exclude_categories=["Cs"]))))
def test_the_shop_reads_back_exactly_the_values(values: dict[str, str]) -> None:
    query = compile_url(EVERY_MACRO).fill(values).partition("?")[2]
    pairs = dict(pair.split("=") for pair in query.split("&"))
    assert {name: unquote(text) for name, text in pairs.items()} == {n: values.get(n, "") for n in KNOWN}


@given(st.text())
def test_any_text_is_compiled_or_refused(text: str) -> None:
    for url in (text, "https://" + text, "https://shop.example/" + text):
        with suppress(MacroError):
            assert PRINTABLE_ASCII.fullmatch(compile_url(url).fill({}))


@given(st.text(alphabet="{}$[]#%_abc/.@:\\ \r\n", max_size=30))
def test_any_mixture_of_delimiters_is_compiled_or_refused(text: str) -> None:
    url = "https://shop.example/" + text
    with suppress(MacroError):
        assert compile_url(url).fill({}) == url


def test_an_unknown_macro_is_named_with_the_known_ones_and_a_next_step() -> None:
    with pytest.raises(MacroError) as refusal:
        compile_url("https://shop.example/?a={clickid}")
    message = str(refusal.value)
    assert "{clickid}" in message
    assert "{click_id}" in message
    assert "{sub10}" in message
    assert "Use one of these" in message


def test_a_template_knows_its_url_and_macros() -> None:
    template = compile_url("https://shop.example/?a={click_id}&b={sub1}&c={sub1}&d={{x}}")
    assert template.macros == {"click_id", "sub1"}
    assert template.url == "https://shop.example/?a={click_id}&b={sub1}&c={sub1}&d={{x}}"


@pytest.mark.parametrize("name", KNOWN)
def test_every_known_macro_is_filled(name: str) -> None:
    assert compile_url(f"https://shop.example/{{{name}}}").fill({name: "v"}) == "https://shop.example/v"


@given(st.text())
def test_no_text_makes_the_macro_check_raise(text: str) -> None:
    looks_like_macro(text)


@given(st.from_regex(r"[A-Za-z0-9_.-]{1,40}", fullmatch=True))
def test_ids_are_not_macros(text: str) -> None:
    capital_word = text.isupper() and not any(map(str.isdigit, text))
    assert not looks_like_macro(text) or capital_word or text == "SUB1" or text.startswith("__")


@pytest.mark.parametrize("opener", ["{", "[[[", "${", "#", "%", "%7B", "__", "!!!", "@@", "(", "<", "{{"])
def test_a_long_hostile_text_is_no_macro(opener: str) -> None:
    assert not looks_like_macro(opener * 20_000)
    assert not looks_like_macro(opener + "a" * 65_536)


@pytest.mark.parametrize(
    ("text", "macros"),
    [
        ("?a={x}&b={{y}}&c=${z}", ["{x}", "{{y}}", "${z}"]),
        ("?a=[x]&b=[[[y]]]&c=[%z%]&d=[=w=]", ["[x]", "[[[y]]]", "[%z%]", "[=w=]"]),
        ("?a=#s2##s3#&b=##X(y)##", ["#s2#", "#s3#", "##X(y)##"]),
        ("?a=__X__&b=!!!x!!!&c=@@X@@&d=%x%&e=%%x%%", ["__X__", "!!!x!!!", "@@X@@", "%x%", "%%x%%"]),
        ("?a=(x)&b=<y>", ["(x)", "<y>"]),
        ("/go/{x}/a?b={status:lead=0 sale=1}", ["{x}", "{status:lead=0 sale=1}"]),
        ("?a=%adid%", ["%adid%"]),
        ("?a=%C3%A4%20b&c=%ADx%20", []),
        ("?filter[name]=1&ids[]=2&a[b][c]=3", []),
        ("/wiki_(page)?a=1#top#", []),
        ("?a=x__y__z&b={", []),
    ],
)
def test_macros_are_found_in_urls_and_what_only_looks_like_one_is_not(text: str, macros: list[str]) -> None:
    assert [found.text for found in find_macros(text)] == macros
