"""Templates of known trackers, each with where it comes from and how sure that is.

``vendor``: the vendor's own pages say so.  ``others``: several independent sources do, or some parameters stand on the
vendor's pages and some do not (the note says which).  What no source said is not here: a template that you copy from
your tracker's own pages is always the better one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping, Tuple

from postbackd_client.answers import SILENT, Meaning
from postbackd_client.endpoint import EndpointError, Tracker

_SETTING = re.compile(r"<([a-z_]+)>")
_FITTING = re.compile(r"[A-Za-z0-9._~:-]+")


@dataclass(frozen=True)
class Preset:
    """A template in which ``<name>`` is what differs between customers."""

    template: str
    grade: str
    sources: Tuple[str, ...]
    note: str = ""
    meaning: Meaning = SILENT

    @property
    def settings(self) -> Tuple[str, ...]:
        return tuple(_SETTING.findall(self.template))


PRESETS: Mapping[str, Preset] = {
    "postbackd": Preset("https://<domain>/p/<key>", "vendor", ("docs/reference/http.md",)),
    "voluum": Preset(
        "https://<domain>/postback?cid={click_id}&payout={value}&currency={currency}&txid={transaction_id}&et={type}",
        "vendor",
        (
            "https://doc.voluum.com/article/parameters-in-postback-urls",
            "https://doc.voluum.com/en/tracking_conversions_postback.html",
        ),
        "A type is one of Settings > Custom Conversions, written exactly so.",
    ),
    "redtrack": Preset(
        "https://<domain>/postback?clickid={click_id}&sum={value}&type={type}&status={status}"
        "&rdtk_event_id={transaction_id}",
        "others",
        (
            "https://help.redtrack.io/knowledgebase/kb/conversion-tracking/tracking-event-types/",
            "https://docs.redtrack.io/knowledgebase/tracking-event-types/",
        ),
        "sum is not on the pages that were read. Set the offer source to ignore duplicates by event id.",
    ),
    "keitaro": Preset(
        "https://<domain>/<key>/postback?subid={click_id}&status={status}&payout={value}&currency={currency}"
        "&tid={transaction_id}&sale_status=approved&lead_status=pending&rejected_status=rejected,reversed",
        "others",
        ("https://docs.keitaro.io/en/campaigns-and-streams/s2s-postback-placeholders.html",),
        "Statuses are sent in postbackd's words, and the URL tells Keitaro what they mean.",
    ),
    "everflow": Preset(
        "https://<domain>/?nid=<nid>&transaction_id={click_id}&amount={value}&order_id={transaction_id}",
        "others",
        (
            "https://helpdesk.everflow.io/customer/accessing-editing-s2s-postback-urls",
            "https://mrpostback.com/everflow/",
        ),
        "Everflow's transaction_id is the click id. nid and amount are the vendor's word, order_id another's.",
    ),
    "tune": Preset(
        "https://<domain>/aff_lsr?transaction_id={click_id}&amount={value}&adv_sub={transaction_id}",
        "vendor",
        (
            "https://support.tune.com/hc/en-us/articles/4413247665431-Receiving-Conversions-via-Postback-URL",
            "https://support.tune.com/hc/en-us/articles/1500005236742-Customizing-a-Conversion-URL",
        ),
        "TUNE's transaction_id is the click id. It answers 200 to what it refuses, with the reason in the body.",
        Meaning(
            failure=re.compile(r"success=false;(?:\s*err_msg=([^;]*))?"),
            duplicate=re.compile(r"success=false;\s*err_msg=[^;]*[Dd]uplicate"),
        ),
    ),
}
"""Name -> preset."""


def preset(name: str, **settings: str) -> Tracker:
    """What to give to ``Client`` for a known tracker: ``preset("voluum", domain="track.example.com")``.

    Raises ``EndpointError`` for an unknown name and for settings that are missing or do not fit.
    """
    found = PRESETS.get(name)
    if found is None:
        raise EndpointError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    if set(settings) != set(found.settings):
        wanted = ", ".join(f'{setting}="…"' for setting in found.settings)
        raise EndpointError(f'write it as preset("{name}", {wanted})')
    for setting, text in settings.items():
        if not _FITTING.fullmatch(text):
            raise EndpointError(f"{setting} is {text!r}: letters, digits and . - _ ~ : are possible")
    return Tracker(_SETTING.sub(lambda part: settings[part[1]], found.template), found.meaning)
