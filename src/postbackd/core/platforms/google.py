"""What both of Google's APIs for conversions share: the account, the click, the token, the consent.

The Data Manager API is ``google_data_manager``, the upload of the Google Ads API that came before it ``google_ads``.
Both are written from Google's public reference and its published interface definitions (google.ads.datamanager.v1,
google.ads.googleads), and tested against stand-ins; neither was tried against the service.  To be known:

- The upload has been closed to new users since 2026-06-15.  Both take the same conversions.
- A target is one conversion action; rules choose what is sent to it.
- The stored id is a gclid unless option ``click_id_kind`` says gbraid or wbraid.
- Google asks for the consent of visitors of the European Economic Area.  It is told of the one that the click
  brought (``core.consent``), and only where option ``consent_covers`` says what the visitor was asked for.
  A visitor who did not consent is not told of at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlencode

from postbackd.core.deliveries import Answer, Delivery, Message, Outgoing
from postbackd.core.platforms.base import (
    ACCESS_TOKEN,
    DAY_MS,
    SENDING_MS,
    Token,
    TokenRefused,
    check_names,
    clicked_ms,
    read_json,
    source_id,
    untellable,
)

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address

KINDS = ("gclid", "gbraid", "wbraid")
OLDEST_CLICK_MS = 90 * DAY_MS
"""The longest click-through window that a conversion action can have."""

CONSENTS = {"ad_user_data": "adUserData", "ad_personalization": "adPersonalization"}
"""What a visitor can be asked for, and how Google calls it."""

_OAUTH = ("CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN")
_SHORTEST_TOKEN_S = 60
_ANSWER_BYTES = 262_144
_COMMON_OPTIONS = ("login_customer_id", "click_id_kind", "consent_covers", "validate_only")
_COMMAS = re.compile(r"\s*,\s*")


class Google:
    """The half of a ``Platform`` that does not depend on the API."""

    most = 100
    answer_bytes = _ANSWER_BYTES

    def cannot(self, options: Mapping[str, str]) -> Mapping[Message, str]:
        raise NotImplementedError

    def check_delivery(self, delivery: Delivery, options: Mapping[str, str], now_ms: int) -> str:
        reason = untellable(
            self.cannot(options), delivery, "no gclid, gbraid or wbraid was stored with the click"
        )
        if not reason and now_ms - clicked_ms(delivery) > OLDEST_CLICK_MS - SENDING_MS:
            reason = "the click is older than 90 days, for which Google takes no conversions"
        return reason

    def ask_token(self, accounts: Mapping[str, str]) -> Outgoing | None:
        """An access token lasts an hour; with a refresh token there is always a new one (RFC 6749, section 6)."""
        if not all(accounts.get(name) for name in _OAUTH):
            return None
        form = {name.lower(): accounts[name] for name in _OAUTH} | {"grant_type": "refresh_token"}
        content_type = ("Content-Type", "application/x-www-form-urlencoded")
        return Outgoing("POST", TOKEN_URL, (content_type,), urlencode(form).encode("ascii"))

    def read_token(self, answer: Answer, now_ms: int) -> Token:
        document = read_json(answer)
        token, lasts_s = document.get("access_token"), document.get("expires_in")
        if answer.status == 200 and isinstance(token, str) and token and isinstance(lasts_s, int):
            return Token(token, now_ms + max(lasts_s - _SHORTEST_TOKEN_S, 0) * 1000)
        said = (
            document.get("error_description")
            or document.get("error")
            or answer.error
            or "no token in the answer"
        )
        advice = "check the account values " + ", ".join(_OAUTH)
        raise TokenRefused(f"Google gave no access token (HTTP {answer.status}: {said}); {advice}")


def check_google(
    options: Mapping[str, str],
    secrets: Collection[str],
    more: Collection[str],
    *asked: str,
    consents: Collection[str] = tuple(CONSENTS),
) -> None:
    """Raise ``ValueError`` for what is wrong with options that both APIs have.

    ``more``: options of this one; ``asked``: its account values; ``consents``: what it can be told that was given.
    """
    needed = ("customer_id", "conversion_action_id")
    check_names(options, needed, (*_COMMON_OPTIONS, *more), secrets, *asked)
    if ACCESS_TOKEN not in secrets and not all(name in secrets for name in _OAUTH):
        raise ValueError(
            f"account values {', '.join(_OAUTH)} are missing; give them with the target "
            f"(or {ACCESS_TOKEN}, which lasts an hour)"
        )
    for name in (*needed, "login_customer_id"):
        if not digits(options.get(name, "0")).isdigit():
            raise ValueError(f"option {name} is a number, with or without dashes")
    if click_id_kind(options) not in KINDS:
        raise ValueError(f"option click_id_kind is one of {', '.join(KINDS)}")
    if options.get("validate_only", "false") not in ("true", "false"):
        raise ValueError("option validate_only is true or false")
    if not set(_covered(options)) <= set(consents):
        raise ValueError(f"option consent_covers is one or more of {', '.join(consents)}, with commas")


def digits(number: str) -> str:
    """Customer ids are shown as 123-456-7890 and sent without the dashes."""
    return number.replace("-", "") if number.isascii() else ""


def click_id_kind(options: Mapping[str, str]) -> str:
    return options.get("click_id_kind", KINDS[0])


def validate_only(options: Mapping[str, str]) -> dict[str, bool]:
    return {"validateOnly": True} if options.get("validate_only") == "true" else {}


def click(delivery: Delivery, options: Mapping[str, str]) -> dict[str, str]:
    """The identifier of the click, under its name."""
    return {click_id_kind(options): source_id(delivery)}


def consent(delivery: Delivery, options: Mapping[str, str], granted: str) -> dict[str, dict[str, str]]:
    """What the visitor of the click has agreed to, in Google's words; nothing when that is not known."""
    given = {CONSENTS[name]: granted for name in _covered(options)} if delivery.owed.facts.consented else {}
    return {"consent": given} if given else {}


def _covered(options: Mapping[str, str]) -> list[str]:
    text = options.get("consent_covers", "").strip()
    return _COMMAS.split(text) if text else []
