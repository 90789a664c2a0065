"""The endpoints of the API, one topic a module."""

from __future__ import annotations

from postbackd.admin.api import (
    campaigns,
    catalog_file,
    deliveries,
    health,
    jobs,
    log,
    networks,
    offers,
    people,
    presets,
    privacy,
    reasons,
    rules,
    sources,
    targets,
    tokens,
    trial,
    unmatched,
    upkeep,
)
from postbackd.admin.endpoints import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *health.ENDPOINTS,
    *reasons.ENDPOINTS,
    *log.ENDPOINTS,
    *unmatched.ENDPOINTS,
    *networks.ENDPOINTS,
    *trial.ENDPOINTS,
    *sources.ENDPOINTS,
    *offers.ENDPOINTS,
    *campaigns.ENDPOINTS,
    *targets.ENDPOINTS,
    *rules.ENDPOINTS,
    *presets.ENDPOINTS,
    *catalog_file.ENDPOINTS,
    *deliveries.ENDPOINTS,
    *upkeep.ENDPOINTS,
    *privacy.ENDPOINTS,
    *jobs.ENDPOINTS,
    *people.ENDPOINTS,
    *tokens.ENDPOINTS,
)
"""All of them, in the order of the documentation."""
