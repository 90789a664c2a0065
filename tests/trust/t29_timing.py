"""T29: whether the time of a comparison tells how much of a guess is right.

Two classes of guesses, in random order: wrong from the first byte on, and right for three quarters of it.  Welch's t of
their times must stay below 4.5.  Control: a comparison that ends at the first difference.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, variance

from postbackd.core.model import Catalog, Network, SigningKey
from postbackd.core.sender_rules import Sender, SenderRules, hash_token
from postbackd.core.senders import Scheme, Secret, Senders, Token
from postbackd.core.signature import Signed, sign
from postbackd.ingest.catalog import Snapshot
from tests.trust.registry import Control, Result, Size, trust_test

LIMIT = 4.5
_VARIANT_BITS = 15
"""So many different guesses of each class: of a few the hashes alone would tell them apart."""
_BLOCK = 64

_KEPT = 0.95
"""Of all times the shortest so many: interrupts of the machine make the rest."""

_NOW_MS = 1_750_000_000_000
_HEX = "0123456789abcdef"
_KEY = "8tn9e60v24v6xt2vz156tjrycy"
_TOKEN = "pbt_" + "k" * 43

Look = Callable[[str], object]


@trust_test("T29", "timing of key, token and signature compare: Welch's t below 4.5", alone=True)
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Each comparison of the program, and one that leaks."""
    calls = size.pick(ci=200_000, nightly=1_000_000, release=5_000_000)
    rng = random.Random(seed)
    signature = _signature()
    found = {
        "key": measure(rng, _look_up_key(), _KEY, "0123456789abcdefghjkmnpqrstvwxyz", calls),
        "token": measure(rng, _look_at_token(), _TOKEN, "abcdefghij", calls),
        "signature": measure(rng, _look_at_signature(), signature, _HEX, calls),
    }
    leak = measure(rng, lambda guess: _naive(guess, signature), signature, _HEX, calls // 10)
    control = Control(
        "a comparison that ends at the first difference", abs(leak) > LIMIT, {"t": round(leak, 2)}
    )
    figures = {"n": calls * len(found), **{f"t of {name}": round(t, 2) for name, t in found.items()}}
    return Result(all(abs(t) < LIMIT for t in found.values()), figures, (control,))


def _look_up_key() -> Look:
    keys = (SigningKey(id=1, secret=bytes(32), active_from_ms=0),)
    networks = (Network(id=1, name="n", key=_KEY),)
    snapshot = Snapshot(Catalog(generation=1, networks=networks, signing_keys=keys, privacy_key=b"k"))

    def look(guess: str) -> object:
        return snapshot.endpoints.get(guess) or snapshot.former_endpoint(guess, _NOW_MS)

    return look


def _look_at_token() -> Look:
    rules = SenderRules(Senders(token_mode="enforce", tokens=(Token(hash_token(_TOKEN)),)), str, {})

    def look(guess: str) -> object:
        headers = {b"x-postback-token": guess.encode()}
        return rules.check(Sender(Signed("GET", "/p/k", "", b"", headers), ""), _NOW_MS)

    return look


def _signature() -> str:
    return sign(Scheme(), Signed("GET", "/p/k", "a=1"), "secret", str(_NOW_MS // 1000)) or ""


def _look_at_signature() -> Look:
    senders = Senders(signature_mode="enforce", scheme=Scheme(), secrets=(Secret("secret"),))
    rules = SenderRules(senders, str, {})

    def look(guess: str) -> object:
        headers = {b"x-postback-signature": f"t={_NOW_MS // 1000},v1={guess}".encode()}
        return rules.check(Sender(Signed("GET", "/p/k", "a=1", b"", headers), ""), _NOW_MS)

    return look


def _naive(guess: str, right: str) -> bool:
    return all(ours == theirs for ours, theirs in zip(guess, right, strict=True))


def measure(rng: random.Random, look: Look, right: str, alphabet: str, calls: int) -> float:
    """Welch's t of the times of two kinds of guesses, asked in random order."""
    guesses: tuple[list[str], list[str]] = ([], [])
    for _ in range(1 << _VARIANT_BITS):  # in turn, so that neither class lies nearer in the memory
        for kind, length in enumerate((0, len(right) * 3 // 4)):
            guesses[kind].append(_guess(rng, right, alphabet, length))
    times: tuple[list[int], list[int]] = ([], [])
    for guess in guesses[0][:200] + guesses[1][:200]:
        look(guess)
    for _ in range(-(-calls // _BLOCK)):
        for kind, guess in _block(rng, guesses):
            began = time.perf_counter_ns()
            look(guess)
            times[kind].append(time.perf_counter_ns() - began)
    limit = sorted(times[0] + times[1])[int(_KEPT * (len(times[0]) + len(times[1])))]
    return welch([t for t in times[0] if t <= limit], [t for t in times[1] if t <= limit])


def _block(rng: random.Random, guesses: tuple[list[str], list[str]]) -> list[tuple[int, str]]:
    """Guesses of both kinds in random order, as new texts, since one that was asked for before knows its hash.

    They are made before any of them is timed: what is fetched from the memory meanwhile would be timed with the first.
    """
    kinds = [rng.getrandbits(1) for _ in range(_BLOCK)]
    return [(kind, (guesses[kind][rng.getrandbits(_VARIANT_BITS)] + ".")[:-1]) for kind in kinds]


def _guess(rng: random.Random, right: str, alphabet: str, length: int) -> str:
    """A guess that is right for so many bytes, wrong at the next, and random behind it."""
    wrong = rng.choice(alphabet.replace(right[length], ""))
    rest = len(right) - length - 1
    return right[:length] + wrong + "".join(rng.choice(alphabet) for _ in range(rest))


def welch(one: Sequence[int], other: Sequence[int]) -> float:
    """The difference of the means, in units of its own standard error."""
    return (fmean(one) - fmean(other)) / sqrt(variance(one) / len(one) + variance(other) / len(other))
