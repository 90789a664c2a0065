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
    reasons,
    reconcile,
    replays,
    reports,
    rules,
    sources,
    targets,
    tokens,
    trial,
    unmatched,
    upkeep,
    views,
)
from postbackd.admin.endpoints import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *health.ENDPOINTS,
    *reasons.ENDPOINTS,
    *reports.ENDPOINTS,
    *log.ENDPOINTS,
    *unmatched.ENDPOINTS,
    *networks.ENDPOINTS,
    *sources.ENDPOINTS,
    *offers.ENDPOINTS,
    *campaigns.ENDPOINTS,
    *targets.ENDPOINTS,
    *rules.ENDPOINTS,
    *trial.ENDPOINTS,
    *presets.ENDPOINTS,
    *catalog_file.ENDPOINTS,
    *deliveries.ENDPOINTS,
    *replays.ENDPOINTS,
    *reconcile.ENDPOINTS,
    *alarms.ENDPOINTS,
    *upkeep.ENDPOINTS,
    *privacy.ENDPOINTS,
    *jobs.ENDPOINTS,
    *views.ENDPOINTS,
    *people.ENDPOINTS,
    *tokens.ENDPOINTS,
)
"""All of them, in the order of the documentation."""
