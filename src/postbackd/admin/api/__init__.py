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
    replays,
    rules,
    sources,
    targets,
    tokens,
    unmatched,
    upkeep,
    views,
)
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
    *catalog_file.ENDPOINTS,
    *log.ENDPOINTS,
    *unmatched.ENDPOINTS,
    *replays.ENDPOINTS,
    *deliveries.ENDPOINTS,
    *upkeep.ENDPOINTS,
    *privacy.ENDPOINTS,
    *jobs.ENDPOINTS,
    *people.ENDPOINTS,
    *tokens.ENDPOINTS,
    *views.ENDPOINTS,
)
"""All of them, in the order of the documentation."""
