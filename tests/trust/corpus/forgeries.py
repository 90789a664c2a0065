"""Postbacks of somebody who may not send, made from what he can have seen: the key, the address and old requests.

Signatures are computed here with the standard library alone, so that no line of the server takes part in judging
itself.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

WINDOW_S = 300


@dataclass(frozen=True)
class Secrets:
    """What a genuine sender of one network knows."""

    key: str
    secret: str


@dataclass(frozen=True)
class Genuine:
    """A request that was signed as it must be, and the parts that it was made of."""

    secrets: Secrets
    fields: tuple[tuple[str, str], ...]
    time_s: int
    body: bytes = b""

    @property
    def method(self) -> str:
        return "POST" if self.body else "GET"

    @property
    def path(self) -> str:
        return f"/p/{self.secrets.key}"

    @property
    def query(self) -> str:
        return "&".join(f"{name}={quote(value, safe='')}" for name, value in self.fields)

    def signature(self, secret: str | None = None) -> str:
        """Of this request, under its own secret or another one."""
        pairs = sorted((quote(n, safe="-._~"), quote(v, safe="-._~")) for n, v in self.fields)
        lines = [
            "postbackd-v1",
            self.method,
            self.path,
            "&".join(f"{n}={v}" for n, v in pairs),
            hashlib.sha256(self.body).hexdigest(),
            str(self.time_s),
        ]
        used = self.secrets.secret if secret is None else secret
        return hmac.new(used.encode(), "\n".join(lines).encode(), hashlib.sha256).hexdigest()

    def headers(self) -> dict[str, str]:
        return {"X-Postback-Signature": f"t={self.time_s},v1={self.signature()}"}

    def write(self, headers: Mapping[str, str] | None = None, target: str | None = None) -> bytes:
        """The bytes of the request."""
        lines = [f"{self.method} {target or f'{self.path}?{self.query}'} HTTP/1.1", "Host: postbackd.example"]
        lines += [
            f"{name}: {value}" for name, value in (self.headers() if headers is None else headers).items()
        ]
        if self.body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(self.body)}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body


Forge = Callable[[random.Random, Genuine], bytes]
"""Makes a forged request of a genuine one that was seen."""


def _change(genuine: Genuine, name: str, value: str) -> Genuine:
    fields = tuple((n, value if n == name else v) for n, v in genuine.fields)
    return replace(genuine, fields=fields)


def _fresh(rng: random.Random, genuine: Genuine) -> Genuine:
    """The same with another transaction id: what would be a new conversion."""
    return _change(genuine, "txid", f"F-{rng.getrandbits(64):x}")


def _with(genuine: Genuine, seen: Genuine) -> bytes:
    return genuine.write(seen.headers())


def _signed_with(rng: random.Random, genuine: Genuine, signature: str) -> bytes:
    return _fresh(rng, genuine).write({"X-Postback-Signature": f"t={genuine.time_s},v1={signature}"})


def _flip(rng: random.Random, genuine: Genuine) -> bytes:
    place, text = rng.randrange(64), genuine.signature()
    other = "0123456789abcdef".replace(text[place], "")
    flipped = text[:place] + rng.choice(other) + text[place + 1 :]
    return genuine.write({"X-Postback-Signature": f"t={genuine.time_s},v1={flipped}"})


FORGERIES: Mapping[str, Forge] = {
    "no signature": lambda rng, g: _fresh(rng, g).write({}),
    "an empty signature": lambda rng, g: _fresh(rng, g).write({"X-Postback-Signature": ""}),
    "random signature": lambda rng, g: _signed_with(rng, g, f"{rng.getrandbits(256):064x}"),
    "one digit changed": _flip,
    "cut off": lambda rng, g: g.write({"X-Postback-Signature": f"t={g.time_s},v1={g.signature()[:-2]}"}),
    "another secret": lambda rng, g: _signed_with(rng, g, _fresh(rng, g).signature("guess")),
    "the empty secret": lambda rng, g: _signed_with(rng, g, _fresh(rng, g).signature("")),
    "the key as the secret": lambda rng, g: _signed_with(rng, g, _fresh(rng, g).signature(g.secrets.key)),
    "seen signature, another transaction": lambda rng, g: _with(_fresh(rng, g), g),
    "seen signature, another value": lambda rng, g: _with(_change(g, "value", "9999"), g),
    "seen signature, a parameter more": lambda rng, g: _with(
        replace(_fresh(rng, g), fields=(*g.fields, ("status", "approved"))), g
    ),
    "seen signature, a doubled parameter": lambda rng, g: g.write(
        g.headers(), f"{g.path}?txid=F-{rng.getrandbits(64):x}&{g.query}"
    ),
    "seen signature, a parameter less": lambda rng, g: _with(replace(g, fields=g.fields[:-1]), g),
    "seen signature, another path": lambda rng, g: g.write(g.headers(), f"{g.path}/?{g.query}"),
    "seen signature, the path encoded": lambda rng, g: g.write(
        g.headers(), f"{g.path[:-1]}%{ord(g.path[-1]):02x}?{g.query}"
    ),
    "seen signature, a body": lambda rng, g: _with(
        replace(g, body=b'{"txid":"F-%x"}' % rng.getrandbits(64)), g
    ),
    "seen signature, a younger time": lambda rng, g: g.write(
        {"X-Postback-Signature": f"t={g.time_s + rng.randrange(1, 99)},v1={g.signature()}"}
    ),
    "signed, but long ago": lambda rng, g: replace(
        _fresh(rng, g), time_s=g.time_s - WINDOW_S - rng.randrange(60, 10**6)
    ).write(),
    "signed, for the future": lambda rng, g: replace(
        _fresh(rng, g), time_s=g.time_s + WINDOW_S + rng.randrange(60, 10**6)
    ).write(),
    "signed, without a time": lambda rng, g: g.write({"X-Postback-Signature": f"v1={g.signature()}"}),
    "seven wrong ones": lambda rng, g: _fresh(rng, g).write(
        {
            "X-Postback-Signature": f"t={g.time_s},"
            + ",".join(f"v1={rng.getrandbits(256):064x}" for _ in range(7))
        }
    ),
    "in the parameters": lambda rng, g: _fresh(rng, g).write(
        {}, f"{_fresh(rng, g).path}?{_fresh(rng, g).query}&sig_time={g.time_s}&sig={g.signature()}"
    ),
    "another header": lambda rng, g: _fresh(rng, g).write(
        {"X-Signature": g.signature(), "Authorization": "Bearer x"}
    ),
}
"""What he tries -> how.  None may be counted."""


def forge(rng: random.Random, seen: list[Genuine], count: int) -> Iterator[tuple[str, bytes]]:
    """So many forged requests, of every kind in turn: (kind, bytes)."""
    kinds = list(FORGERIES.items())
    for number in range(count):
        kind, make = kinds[number % len(kinds)]
        yield kind, make(rng, rng.choice(seen))
