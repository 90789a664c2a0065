"""How traffic sources answer what they are told: mostly well, sometimes not now, rarely never, and one not at all."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from postbackd.core.deliveries import Answer
from postbackd.market.cast import SOURCES, SourceRole
from postbackd.market.faults import TARGET_DOWN, Fault


def target_name(source: SourceRole) -> str:
    """What the target of a source is called."""
    return f"{source.name} postback"


def answer(draw: Random, target: str, at_ms: int, faults: Mapping[str, Fault]) -> Answer:
    """What a target answers to one attempt at a time."""
    down = faults[TARGET_DOWN]
    if target == down.where and at_ms >= down.since_ms:
        return Answer(error="connection refused", took_ms=3)
    source = _OF_TARGET[target]
    took_ms = int(90 * draw.lognormvariate(0.0, 0.5))
    luck = draw.random()
    if luck < source.refuses:
        return Answer(status=404, body=b"unknown click id", took_ms=took_ms)
    luck -= source.refuses
    if luck < source.stumbles / 2:
        return Answer(error="no answer within 5 s", took_ms=5000)
    if luck < source.stumbles:
        return Answer(status=503, body=b"try again later", took_ms=took_ms)
    return Answer(status=200, body=b"OK", took_ms=took_ms)


_OF_TARGET = {target_name(source): source for source in SOURCES}
