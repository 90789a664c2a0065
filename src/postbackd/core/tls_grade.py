"""One letter for the TLS of an endpoint, with its reasons.

- **A**: trusted, for this name, more than a sixth of its life left; TLS 1.2 and 1.3 and nothing older.
- **B**: trusted, but one of TLS 1.2 and 1.3 is missing, or the certificate should have been renewed by now.
- **C**: trusted, but TLS 1.0 or 1.1 is offered, which RFC 8996 forbids.
- **F**: not trusted, for another name, expired, or no handshake.
- **none**: not encrypted.
"""

from __future__ import annotations

from msgspec import Struct

from postbackd.core.certificates import missing_names
from postbackd.core.endpoint import GOOD_PROTOCOLS, OLD_PROTOCOLS, SOON, Seen


class Grade(Struct, frozen=True, kw_only=True):
    """A letter and why it is no better one."""

    letter: str
    reasons: tuple[str, ...] = ()


UNENCRYPTED = Grade(letter="none", reasons=("http: whoever is on the way reads and changes it",))


def grade_tls(seen: Seen) -> Grade:
    """The grade of what a probe has seen."""
    term = seen.term
    failed = [seen.chain_error] if seen.chain_error else []
    if term is None:
        return Grade(letter="F", reasons=tuple(failed) or ("no certificate was shown",))
    if missing_names(term.names, [seen.host]):
        failed.append(f"the certificate is for {', '.join(term.names[:3]) or 'nobody'}")
    if failed:
        return Grade(letter="F", reasons=tuple(failed))
    old = [version for version in OLD_PROTOCOLS if seen.protocols.get(version)]
    if old:
        return Grade(letter="C", reasons=(f"offers {', '.join(old)}",))
    reasons = [f"does not offer {version}" for version in GOOD_PROTOCOLS if not seen.protocols.get(version)]
    left_ms = term.until_ms - seen.now_ms
    if left_ms <= term.life_ms * SOON:
        reasons.append(f"its certificate ends in {left_ms / 86_400_000:.1f} days")
    return Grade(letter="B" if reasons else "A", reasons=tuple(reasons))
