"""The endpoints of the API, one topic a module."""

from __future__ import annotations

from postbackd.admin.api import (
    alarms,
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
    reconcile,
    replays,
    reports,
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
    *reports.ENDPOINTS,
    *log.ENDPOINTS,
    *unmatched.ENDPOINTS,
    *networks.ENDPOINTS,
    *sources.ENDPOINTS,
    *offers.ENDPOINTS,
    *campaigns.ENDPOINTS,
    *targets.ENDPOINTS,
    *rules.ENDPOINTS,
    *presets.ENDPOINTS,
    *catalog_file.ENDPOINTS,
    *deliveries.ENDPOINTS,
    *reconcile.ENDPOINTS,
    *alarms.ENDPOINTS,
    *upkeep.ENDPOINTS,
    *privacy.ENDPOINTS,
    *jobs.ENDPOINTS,
    *views.ENDPOINTS,
    *people.ENDPOINTS,
    *tokens.ENDPOINTS,
    *replays.ENDPOINTS,
)
"""All of them, in the order of the documentation."""
