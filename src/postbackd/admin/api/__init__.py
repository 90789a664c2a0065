"""The endpoints of the API, one topic a module."""

from __future__ import annotations

from postbackd.admin.api import health, log, unmatched
from postbackd.admin.endpoints import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (*health.ENDPOINTS, *log.ENDPOINTS, *unmatched.ENDPOINTS)
"""All of them, in the order of the documentation."""
