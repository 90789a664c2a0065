"""What a server says of the time of a simulated market: asked of its database, or of its API."""

from __future__ import annotations

import json
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from postbackd.catalog.urls import postback_url
from postbackd.cli.options import now_ms
from postbackd.cli.send_options import make_context, read_server
from postbackd.cli.session import Session, base_url
from postbackd.core.deliveries import Outgoing
from postbackd.core.moments import write_moment
from postbackd.delivery.request import Place
from postbackd.exchanges.timed import Timer
from postbackd.reports.period import Period
from postbackd.reports.report import build_report
from postbackd.reports.unmatched import examine_unmatched
from postbackd.settings import Settings
from postbackd.settings_values import is_loopback
from postbackd.simulating.catalog import MARK
from postbackd.simulating.checking import Said

_PAGE = 5_000
_API_MS, _API_BYTES = 60_000, 64 * 1024 * 1024
"""How long an answer of the API may take, and be."""


async def ask_store(session: Session, period: Period, settings: Settings) -> Said:
    """With every conversion."""
    write_url = partial(postback_url, base_url(settings))
    store = session.store
    return Said(
        by_network=await build_report(store, period, "network"),
        by_campaign=await build_report(store, period, "campaign"),
        unmatched=await examine_unmatched(store, period, write_url, now_ms()),
        conversions=await _list_conversions(session, period),
    )


async def _list_conversions(session: Session, period: Period) -> list[dict[str, Any]]:
    """Every conversion of the simulated networks that was counted in a period."""
    found: list[dict[str, Any]] = []
    catalog = await session.load(removed=True)
    for network in catalog.networks:
        if not network.name.endswith(MARK):
            continue
        after: dict[str, Any] = {}
        while rows := await session.store.query(
            "conversions_of_network", network=network.id, limit=_PAGE, **after
        ):
            found += [
                {**row, "network": network.name} for row in rows if _is_within(period, row["conversion_id"])
            ]
            after = {f"after_{name}": rows[-1][name] for name in ("click_id", "type", "transaction_id")}
    return found


def _is_within(period: Period, stamp: int) -> bool:
    stamps = period.stamps()
    return stamps["since"] <= stamp < stamps["until"]


def read_access(url: str, token_file: Path | None) -> tuple[Place, str]:
    """Where the API is, and a token for it.  Raises ``ClickException``."""
    if token_file is None:
        raise click.UsageError("--api needs --token-file FILE, with a token of 'postbackd token add check'")
    place = read_server(url)
    try:
        token = token_file.read_text("ascii").strip()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{token_file} holds no token, which is letters and digits alone") from error
    except OSError as error:
        raise click.ClickException(f"{token_file} cannot be read ({error.strerror})") from error
    if not (place.tls or is_loopback(place.host)):
        raise click.UsageError(f"a token is not sent to {place.host} in the clear; name its https address")
    return place, token


async def ask_api(place: Place, token: str, period: Period) -> Said:
    """Without the conversions one by one, which no endpoint gives.  Raises ``ClickException``."""
    times = {"since": period.since_ms or 0, "until": period.until_ms or 0}
    query = "&".join(f"{name}={quote(write_moment(at_ms))}" for name, at_ms in times.items())
    with closing(Timer(make_context(None), total_ms=_API_MS, kept_bytes=_API_BYTES)) as timer:

        async def ask(path: str) -> Any:
            return await _ask(timer, place, token, path)

        return Said(
            by_network=await ask(f"/report?by=network&{query}"),
            by_campaign=await ask(f"/report?by=campaign&{query}"),
            unmatched=await ask(f"/unmatched?{query}"),
        )


async def _ask(timer: Timer, place: Place, token: str, path: str) -> Any:
    request = Outgoing("GET", f"{place.origin}/api/v1{path}", (("Authorization", f"Bearer {token}"),))
    heard = await timer.exchange(request, keep=True)
    if heard.error:
        raise click.ClickException(f"the API at {place.origin} did not answer ({heard.error})")
    if heard.status != 200:
        raise click.ClickException(
            f"the API at {place.origin} answered {heard.status}; name the dashboard's address and a valid token"
        )
    try:
        return json.loads(heard.body)
    except ValueError as error:
        raise click.ClickException(
            f"what answers at {place.origin} is not the API, or its answer is too long; name the dashboard's address"
        ) from error
