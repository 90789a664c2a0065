"""The endpoints of the API, one topic a module."""

from __future__ import annotations

from postbackd.admin.api import campaigns, health, networks, offers, presets, rules, sources, targets
from postbackd.admin.endpoints import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *health.ENDPOINTS,
    *networks.ENDPOINTS,
    *sources.ENDPOINTS,
    *offers.ENDPOINTS,
    *campaigns.ENDPOINTS,
    *targets.ENDPOINTS,
    *rules.ENDPOINTS,
    *presets.ENDPOINTS,
)
"""All of them, in the order of the documentation."""
