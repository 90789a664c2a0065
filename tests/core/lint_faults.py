"""URLs that are right, made from every preset, and the faults that people put into them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from postbackd.catalog.linting import Whose
from postbackd.catalog.urls import click_url, postback_url
from postbackd.core.linting import Kind
from postbackd.core.macro_syntax import syntax_of
from postbackd.core.model import Campaign, Network, Source, WeightedOffer
from postbackd.core.outgoing import convert_preset_url
from postbackd.presets import Preset, load_presets

BASE = "https://track.example.com"
GIVEN = {
    "ADCASH_HOST": "pixelhere.com", "GOAL_ID": "{goal}", "SOURCE_AD_ID": "{sub1}", "TUNE_NETWORK": "acme",
    "DOMAIN": "tracker.example.com",
}  # fmt: skip
"""What stands for the placeholders of targets that are no value of an account."""


class Right(NamedTuple):
    """A URL without a flaw."""

    preset: Preset
    kind: Kind
    url: str

    @property
    def name(self) -> str:
        return f"{self.preset.id}-{self.kind}"

    @property
    def whose(self) -> Whose:
        return Whose(preset=self.preset.id)


def right_urls() -> Iterator[Right]:
    """All that the presets give: what is pasted into a network or source, an offer's link, a target."""
    for preset in load_presets():
        yield from _of(preset)


def _of(preset: Preset) -> Iterator[Right]:
    if "network" in preset.roles and "click_id" in preset.fields:
        network = Network(id=1, name=preset.name, key="k" * 26, preset=preset.id)
        yield Right(preset, Kind.POSTBACK, postback_url(BASE, network))
        link = f"https://shop.example.com/go?offer=7&{word_of(preset.fields['click_id'])}={{click_id}}"
        yield Right(preset, Kind.OFFER, link)
    if "source" in preset.roles:
        source = Source(id=1, name=preset.name, preset=preset.id, fields=preset.click_names())
        campaign = Campaign(id=1, name="C", slug="push", source=1, offers=(WeightedOffer(1),))
        yield Right(preset, Kind.CLICK, click_url(BASE, campaign, source))
    if preset.target_url:
        yield Right(preset, Kind.TARGET, convert_preset_url(preset.target_url, GIVEN))


def examples() -> Iterator[tuple[Preset, str]]:
    """The networks' own examples of postback URLs, for any tracker."""
    for preset in load_presets():
        example = preset.postback_url or ""
        if "network" in preset.roles and example.startswith("https://<TRACKER>/"):
            yield preset, re.sub(r"<[^>]*>", "x", example.replace("<TRACKER>", "other.example.com"))


def word_of(macro: str) -> str:
    """What stands between the delimiters."""
    syntax = syntax_of(macro)
    assert syntax is not None
    return macro[len(syntax.opener) : -len(syntax.closer)]


# --- faults ---------------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """What somebody does to a URL, and by which checks it may be found."""

    name: str
    plant: Callable[[Right], str | None]
    """``None``: it cannot be done to this URL."""
    found_by: frozenset[str]


def _id_macro(right: Right) -> str:
    """The macro that everything hangs on."""
    if right.kind is Kind.OFFER:
        return "{click_id}"
    if right.kind is Kind.TARGET:
        return "{source_click_id}"
    if right.kind is Kind.POSTBACK:
        return right.preset.fields["click_id"]
    return right.preset.fields.get("source_click_id") or next(iter(right.preset.others.values()))


def _replaced(right: Right, text: str) -> str:
    macro = _id_macro(right)
    if right.kind is Kind.POSTBACK:
        return right.url.replace(f"click_id={macro}", f"click_id={text}", 1)
    return right.url.replace(macro, text, 1)


def misspell(right: Right) -> str | None:
    macro, word = _id_macro(right), word_of(_id_macro(right))
    letters = [at for at in range(len(word) - 1) if word[at : at + 2].isalpha() and word[at] != word[at + 1]]
    if len(word) < 4 or not letters:
        return None
    at = letters[len(letters) // 2]
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return _replaced(right, macro.replace(word, swapped))


def respell(right: Right) -> str | None:
    macro, word = _id_macro(right), word_of(_id_macro(right))
    other = word.upper() if word != word.upper() else word.lower()
    return _replaced(right, macro.replace(word, other)) if other != word else None


def unclose(right: Right) -> str:
    return _replaced(right, _id_macro(right)[:-1])


def unopen(right: Right) -> str:
    return _replaced(right, _id_macro(right)[1:])


def swap_delimiters(right: Right) -> str:
    macro = _id_macro(right)
    return _replaced(
        right,
        f"[{word_of(macro)}]" if macro.startswith(("{", "$", "_", "#", "!")) else f"{{{word_of(macro)}}}",
    )


def encode_macro(right: Right) -> str:
    macro = _id_macro(right)
    return _replaced(
        right,
        "".join(c if c.isalnum() or c in "_-." else f"%{ord(c):02X}" for c in macro)
        if not macro.startswith("__")
        else macro.replace("__", "%5F%5F"),
    )


def encode_twice(right: Right) -> str:
    return f"{right.url}{'&' if '?' in right.url else '?'}sub9=a%2520b"


def escape_html(right: Right) -> str | None:
    return right.url.replace("&", "&amp;") if "&" in right.url else None


def use_http(right: Right) -> str | None:
    return right.url.replace("https://", "http://", 1) if right.url.startswith("https://") else None


def hide_in_fragment(right: Right) -> str | None:
    return right.url.replace("?", "#", 1) if "?" in right.url else None


def repeat(right: Right) -> str | None:
    pair = right.url.partition("?")[2].partition("&")[0]
    return f"{right.url}&{pair}" if pair else None


def lose_id(right: Right) -> str | None:
    return None if right.preset.click_id_parameter else _replaced(right, "")


def add_person(right: Right) -> str:
    return f"{right.url}{'&' if '?' in right.url else '?'}mail=anna%40example.com"


def add_space(right: Right) -> str:
    return f"{right.url}{'&' if '?' in right.url else '?'}sub8=two words"


def ask_twice(right: Right) -> str | None:
    head, mark, tail = right.url.rpartition("&")
    return f"{head}?{tail}" if mark and "=" in tail else None


def break_line(right: Right) -> str:
    return f" {right.url[:30]}\n{right.url[30:]}"


def take_ours(right: Right) -> str | None:
    """The macro of the wrong system."""
    if right.kind is Kind.OFFER:
        return (
            _replaced(right, right.preset.fields["click_id"])
            if right.preset.fields["click_id"] != "{click_id}"
            else None
        )
    if right.kind is Kind.TARGET:
        theirs = right.preset.fields.get("source_click_id")
        return _replaced(right, theirs) if theirs else None
    if right.kind is Kind.CLICK:
        return (
            None
            if _id_macro(right) == "{click_id}" or "source_click_id" not in right.preset.fields
            else _replaced(right, "{click_id}")
        )
    return _replaced(right, "{click_id}") if _id_macro(right) != "{click_id}" else None


OTHER_SIDE = frozenset({"macro_misplaced", "macro_unknown", "macro_spelling", "click_id_missing"})

FAULTS = (
    Fault("misspelt macro", misspell, frozenset({"macro_unknown", "macro_spelling"})),
    Fault("macro in the other case", respell, frozenset({"macro_spelling", "macro_delimiter"})),
    Fault("macro not closed", unclose, frozenset({"macro_unclosed"})),
    Fault("macro not opened", unopen, frozenset({"macro_unclosed", "macro_delimiter"})),
    Fault("other delimiters", swap_delimiters, frozenset({"macro_delimiter", "macro_misplaced"})),
    Fault("macro of the other side", take_ours, OTHER_SIDE),
    Fault("macro percent-encoded", encode_macro, frozenset({"macro_encoded"})),
    Fault("value encoded twice", encode_twice, frozenset({"double_encoding"})),
    Fault("&amp; for &", escape_html, frozenset({"html_escaped"})),
    Fault("http", use_http, frozenset({"not_https"})),
    Fault("# for ?", hide_in_fragment, frozenset({"fragment"})),
    Fault("second ?", ask_twice, frozenset({"separator"})),
    Fault("parameter twice", repeat, frozenset({"twice"})),
    Fault("click id empty", lose_id, frozenset({"click_id_missing"})),
    Fault("e-mail address", add_person, frozenset({"personal_data"})),
    Fault("space", add_space, frozenset({"unencoded"})),
    Fault("line broken", break_line, frozenset({"white_space"})),
)
