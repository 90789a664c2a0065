"""The endpoints of the API, one topic a module."""

from __future__ import annotations

from postbackd.admin.api import health, reasons
from postbackd.admin.endpoints import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (*health.ENDPOINTS, *reasons.ENDPOINTS)
"""All of them, in the order of the documentation."""
