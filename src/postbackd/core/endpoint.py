"""What was found of a public endpoint from outside, and what to do about it.

``tls.probe`` looks; here it is judged.  A finding is one line: what was looked at, whether it is well, what was seen,
and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from postbackd.core.certificates import Term, missing_names
from postbackd.core.finding import Finding

_DAY_MS = 86_400_000

SOON = 1 / 6
"""The part of its life that a certificate has left when it should have been renewed long since."""

OLD_PROTOCOLS, GOOD_PROTOCOLS = ("TLSv1", "TLSv1.1"), ("TLSv1.2", "TLSv1.3")


class Seen(Struct, frozen=True, kw_only=True):
    """What the probe saw; what could not be looked at any more is empty."""

    host: str
    port: int
    now_ms: int
    addresses: Sequence[str] = ()
    dns_error: str = ""
    refused: Mapping[str, str] = {}
    """Address -> why no connection came about."""
    chain_error: str = ""
    """Why a client that verifies does not trust the certificate; empty: it does."""
    term: Term | None = None
    chain: int = 0
    """Certificates that were sent, 0: not known."""
    protocols: Mapping[str, bool | None] = {}
    """Version -> whether it is offered; ``None``: this machine cannot tell."""
    status: int = 0
    headers: Mapping[str, str] = {}
    body: str = ""
    answer_error: str = ""


class Tried(Struct, frozen=True, kw_only=True):
    """A test postback that was sent, and what came back."""

    status: int = 0
    verdict: str = ""
    reason: str = ""
    request: str = ""
    error: str = ""
    kept: bool | None = None
    """Whether it reached the log of our database; ``None``: nobody looked."""


def judge_endpoint(seen: Seen) -> list[Finding]:
    """The findings, in the order in which a request meets them; after one that ends it all there are no more."""
    findings = [_judge_dns(seen)]
    if not seen.addresses:
        return findings
    findings.append(_judge_port(seen))
    if len(seen.refused) == len(seen.addresses):
        return findings
    findings += [*judge_tls(seen), _judge_answer(seen), _judge_front(seen)]
    return findings


def judge_tls(seen: Seen) -> list[Finding]:
    """Chain, name and term of the certificate, and the protocols."""
    findings = [_judge_chain(seen)]
    if seen.term is not None:
        findings += [_judge_name(seen, seen.term), _judge_expiry(seen, seen.term)]
    return [*findings, _judge_protocols(seen)]


def _judge_dns(seen: Seen) -> Finding:
    if not seen.addresses:
        fix = f"Point the A and AAAA records of {seen.host} to the machine, and wait until they are seen."
        return Finding(check="DNS", ok=False, detail=f"{seen.host}: {seen.dns_error}", fix=fix)
    return Finding(check="DNS", ok=True, detail=f"{seen.host} is {', '.join(seen.addresses)}")


def _judge_port(seen: Seen) -> Finding:
    if not seen.refused:
        return Finding(check="port", ok=True, detail=f"{seen.port} is open")
    details = ", ".join(f"{address}: {why}" for address, why in seen.refused.items())
    part = " of some addresses" if len(seen.refused) < len(seen.addresses) else ""
    return Finding(
        check="port",
        ok=False,
        detail=f"{seen.port} is not open{part}: {details}",
        fix=f"Open port {seen.port} in firewalls and forwarding, and take addresses out of the DNS that nobody serves.",
    )


def _judge_chain(seen: Seen) -> Finding:
    error = seen.chain_error
    if not error:
        return Finding(
            check="chain", ok=True, detail=f"trusted, {seen.chain} certificates" if seen.chain else "trusted"
        )
    if "handshake" in error.lower() or "unrecognized" in error.lower():
        fix = "The server has no certificate yet: read its log, and run 'postbackd doctor' beside it."
    elif "unable to get local issuer" in error:
        fix = (
            "The chain is incomplete, or ends at an authority that this machine does not know: put the intermediate "
            "certificates behind the server's own in the file of --cert."
        )
    elif "self" in error:
        fix = "Use --domain, or a certificate of a known authority; staging certificates are not trusted either."
    elif "expired" in error or "not yet valid" in error:
        fix = "Renew the certificate; check the clocks of both machines."
    else:
        fix = "Senders that verify will not deliver: use a certificate of a known authority for this name."
    return Finding(check="chain", ok=False, detail=error, fix=fix)


def _judge_name(seen: Seen, term: Term) -> Finding:
    fits = not missing_names(term.names, [seen.host])
    return Finding(
        check="name",
        ok=fits,
        detail=f"the certificate is for {', '.join(term.names) or 'nobody'}",
        fix=None
        if fits
        else f"Name {seen.host} with --domain too, or use the name that the certificate is for.",
    )


def _judge_expiry(seen: Seen, term: Term) -> Finding:
    left_ms = term.until_ms - seen.now_ms
    days = left_ms / _DAY_MS
    well = left_ms > term.life_ms * SOON and seen.now_ms >= term.from_ms
    return Finding(
        check="expiry",
        ok=well,
        detail=f"{days:.1f} days left" if left_ms > 0 else f"expired {-days:.1f} days ago",
        fix=None
        if well
        else "It should have been renewed by now: read the server's log, run 'postbackd doctor' there.",
    )


def _judge_protocols(seen: Seen) -> Finding:
    offered = [version for version, is_offered in seen.protocols.items() if is_offered]
    old = [version for version in offered if version in OLD_PROTOCOLS]
    missing = [version for version in GOOD_PROTOCOLS if version not in offered]
    ok = not old and not missing
    fix = None
    if old:
        fix = f"Whatever answers there offers {', '.join(old)}, which is broken: switch it off in the proxy."
    elif missing:
        fix = f"Switch {', '.join(missing)} on in the proxy: some senders speak nothing else."
    return Finding(check="protocols", ok=ok, detail=", ".join(offered) or "none", fix=fix)


_FRONTS: Mapping[str, str] = {
    "cf-ray": "Cloudflare",
    "x-amz-cf-id": "CloudFront",
    "x-served-by": "Fastly",
    "x-akamai-transformed": "Akamai",
    "x-azure-ref": "Azure Front Door",
    "x-vercel-id": "Vercel",
    "x-sucuri-id": "Sucuri",
    "x-iinfo": "Imperva",
    "via": "a proxy",
    "x-cache": "a cache",
}
"""Header -> who puts it there."""


def _judge_answer(seen: Seen) -> Finding:
    ours = seen.status == 200 and seen.body.strip() == "ok"
    if ours:
        return Finding(check="answer", ok=True, detail="/healthz is ours")
    what = seen.answer_error or f"HTTP {seen.status} {seen.body[:80]!r}"
    challenge = (
        "challenge" in seen.body.lower() or "captcha" in seen.body.lower() or seen.status in (401, 403)
    )
    fix = (
        "A firewall or a bot check answers instead: exempt /p/ and /c/ from it, because senders cannot solve it."
        if challenge
        else "Another program answers: let the name and the path reach postbackd."
    )
    return Finding(check="answer", ok=False, detail=f"/healthz is not ours: {what}", fix=fix)


def _judge_front(seen: Seen) -> Finding:
    """A proxy is no fault, but whoever looks for one has to know of it."""
    found = [name for header, name in _FRONTS.items() if header in seen.headers]
    server = seen.headers.get("server", "")
    if not found and not server:  # ours sends none
        return Finding(check="in between", ok=True, detail="nothing that shows itself")
    shown = ", ".join(dict.fromkeys([*found, *([f"Server: {server[:60]}"] if server else [])]))
    return Finding(
        check="in between",
        ok=True,
        detail=shown,
        fix="It must not cache, change the query or ask for proof of being human on /p/ and /c/; "
        "client addresses are those of the proxy.",
    )


def judge_try(tried: Tried) -> Finding:
    """What became of the test postback; it carries a test word, is logged and never counted."""
    if tried.error:
        fix = "The way to /p/ is not the way to /healthz: look at the rules of what is in between."
        return Finding(check="test postback", ok=False, detail=tried.error, fix=fix)
    if tried.verdict != "rejected" or tried.reason not in ("", "test_event"):
        what = f"HTTP {tried.status}, " + (
            f"verdict {tried.verdict} {tried.reason}" if tried.verdict else "no verdict"
        )
        fix = "The answer is not ours, or the query was changed on the way: something in between rewrites requests."
        return Finding(check="test postback", ok=False, detail=what.strip(), fix=fix)
    if tried.kept is False:
        fix = "The endpoint belongs to another installation, or keeps its log in another database."
        detail = f"answered, but request {tried.request} is not in the log here"
        return Finding(check="test postback", ok=False, detail=detail, fix=fix)
    kept = ", and in the log" if tried.kept else ""
    detail = f"recognised as a test, not counted{kept} (request {tried.request})"
    return Finding(check="test postback", ok=True, detail=detail)
