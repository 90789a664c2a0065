"""The part of ``postbackd doctor`` that looks at a public endpoint from outside, and at the certificate from inside."""

from __future__ import annotations

import asyncio
import secrets
from urllib.parse import urlsplit

import click
import msgspec

from postbackd.cli.options import now_ms
from postbackd.cli.session import Session, visit
from postbackd.core.certificates import Term, missing_names
from postbackd.core.click_id import read_stamp
from postbackd.core.endpoint import SOON, Tried, judge_endpoint, judge_try
from postbackd.core.finding import Finding
from postbackd.core.model import Catalog
from postbackd.core.moments import write_moment
from postbackd.core.params import POSTBACK_NAMES, FieldMap
from postbackd.settings import Settings
from postbackd.store.base import StoreRefused, StoreUnavailable
from postbackd.store.shelf import Shelf

_DAY_MS = 86_400_000

DIFFICULT = " +%&/"
"""What a proxy that rewrites queries gets wrong."""


def read_endpoint(text: str) -> tuple[str, int]:
    """Host and port of an https address.  Raises ``click.UsageError``."""
    parts = urlsplit(text if "://" in text else f"https://{text}")
    try:
        port = parts.port or 443
    except ValueError:
        port = 0
    if parts.scheme != "https" or not parts.hostname or not port:
        raise click.UsageError(f"--endpoint {text!r} is not usable; write it like https://track.example.com")
    return parts.hostname, port


def look_from_outside(settings: Settings, endpoint: str, *, with_store: bool) -> list[Finding]:
    """What a sender would meet.  ``with_store``: also send a test postback to an endpoint key of the catalog."""
    from postbackd.tls.probe import probe

    host, port = read_endpoint(endpoint)
    found = judge_endpoint(probe(host, port, now_ms()))
    proved = {finding.check for finding in found if finding.ok} >= {"chain", "name"}
    if with_store and proved:  # an endpoint key is not sent to whom nobody knows
        found += visit(settings, lambda session: _send_test(session, host, port))
    return [msgspec.structs.replace(finding, check=f"endpoint {finding.check}") for finding in found]


async def _send_test(session: Session, host: str, port: int) -> list[Finding]:
    from postbackd.tls.probe import try_postback

    catalog: Catalog = await session.load()
    if not catalog.networks:
        return []
    network = catalog.networks[0]
    names = FieldMap(POSTBACK_NAMES, network.fields).names
    transaction_id = f"doctor{DIFFICULT}{secrets.token_hex(4)}"
    called = (names["click_id"][0], names["transaction_id"][0])
    tried = await asyncio.to_thread(try_postback, host, port, f"/p/{network.key}", called, transaction_id)
    return [judge_try(await _find_in_log(session, tried, transaction_id))]


async def _find_in_log(session: Session, tried: Tried, transaction_id: str) -> Tried:
    stamp = read_stamp(tried.request) if tried.request else None
    if stamp is None or tried.error:
        return tried
    rows = await session.store.query("postback", request_id=stamp)
    if rows and rows[0].get("transaction_id") not in (None, transaction_id):
        return msgspec.structs.replace(
            tried, verdict="changed", reason="on the way: the query arrived as another"
        )
    return msgspec.structs.replace(tried, kept=bool(rows))


def look_at_shelf(settings: Settings) -> list[Finding]:
    """The certificate of ``--domain`` and the last failure to get one, from the documents about them."""
    from postbackd.https import open_shelf

    try:
        return asyncio.run(_look_at_shelf(settings, open_shelf(settings)))
    except (StoreRefused, StoreUnavailable) as error:
        fix = "Do what the line says, then run 'postbackd doctor' again."
        return [Finding(check="certificate", ok=False, detail=str(error), fix=fix)]


async def _look_at_shelf(settings: Settings, shelf: Shelf) -> list[Finding]:
    from postbackd.tls.documents import CERTIFICATE, TROUBLE, Trouble, load_document, read_certificate

    try:
        held = read_certificate(await shelf.load(CERTIFICATE))
        trouble = await load_document(shelf, TROUBLE, Trouble)
    finally:
        await shelf.close()
    findings = []
    if held is not None:
        findings.append(_look_at_term(settings, held.pair.term))
    elif settings.domain and trouble is None:
        fix = "It is obtained as soon as 'postbackd serve' runs with --domain."
        findings.append(Finding(check="certificate", ok=False, detail="there is none yet", fix=fix))
    if trouble is not None:
        findings.append(
            Finding(
                check="certificate authority",
                ok=False,
                detail=f"{trouble.failures} failures in a row, the last at {write_moment(trouble.at_ms)}: "
                f"{trouble.what}; tried again at {write_moment(trouble.next_ms)}",
                fix=f"{trouble.fix[:1].upper()}{trouble.fix[1:]}. Then: postbackd certificates --try-now "
                f"--domain {settings.domain or 'NAME, as the server has it'}",
            )
        )
    return findings


def _look_at_term(settings: Settings, term: Term) -> Finding:
    now = now_ms()
    missing = missing_names(term.names, settings.domains)
    left_ms = term.until_ms - now
    ok = not missing and term.from_ms <= now and left_ms > term.life_ms * SOON
    lacks = f", not for {', '.join(missing)}" if missing else ""
    return Finding(
        check="certificate",
        ok=ok,
        detail=f"for {', '.join(term.names)}{lacks}, {left_ms / _DAY_MS:.1f} days left",
        fix=None if ok else "A new one should have been obtained by now: read the log of the server.",
    )
