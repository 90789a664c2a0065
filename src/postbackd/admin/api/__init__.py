"""The endpoints of the API, one topic a module."""

from __future__ import annotations

from postbackd.admin.api import (
    campaigns,
    health,
    networks,
    offers,
    presets,
    reasons,
    rules,
    sources,
    targets,
    trial,
)
from postbackd.admin.endpoints import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *health.ENDPOINTS,
    *reasons.ENDPOINTS,
    *networks.ENDPOINTS,
    *trial.ENDPOINTS,
    *sources.ENDPOINTS,
    *offers.ENDPOINTS,
    *campaigns.ENDPOINTS,
    *targets.ENDPOINTS,
    *rules.ENDPOINTS,
    *presets.ENDPOINTS,
)
"""All of them, in the order of the documentation."""
