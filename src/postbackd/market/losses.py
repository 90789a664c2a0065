"""What visitors lose on their way: pixels that blockers eat, pages that are left too soon, cookies.

The luck of a visitor is drawn once and held against the rates afterwards, so that the same visitors are the ones that
are lost first when a rate rises: figures of different rates can be compared sale by sale.
"""

from __future__ import annotations

from random import Random

from msgspec import Struct

from postbackd.market.cast import Device

BLOCKED, ABANDONED = "blocked", "abandoned"


class VisitorsLuck(Struct, frozen=True, gc=False):
    """What becomes of one buyer's pixel and cookie."""

    no_pixel: str
    """``blocked``, ``abandoned``, or empty: the pixel is asked for."""
    pixel_after_ms: int
    cookie_lost: bool


class Losses(Struct, frozen=True, kw_only=True):
    """Rates from 0 to 1."""

    blockers: float | None = None
    """Share of the browsers that block pixels; ``None``: each kind of device its own."""
    abandonment: float = 0.06
    """Share of the buyers who leave before the page with the pixel has loaded."""
    cookies: float = 0.02
    """Share of the buyers whose browser has lost the click id: neither the pixel nor the network can name it."""

    def draw(self, draw: Random, device: Device) -> VisitorsLuck:
        """The luck of one buyer; takes as many numbers from ``draw`` whatever the rates are."""
        blocked, left, cookie, after_ms = (
            draw.random(), draw.random(), draw.random(), int(draw.uniform(300, 2400)),
        )  # fmt: skip
        blockers = device.blocks if self.blockers is None else self.blockers
        no_pixel = BLOCKED if blocked < blockers else ABANDONED if left < self.abandonment else ""
        return VisitorsLuck(no_pixel, after_ms, cookie < self.cookies)
