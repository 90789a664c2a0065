"""Metrics as the settings want them: what is measured beside the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from postbackd.https import certificate_until_ms
from postbackd.reports.metrics import Surroundings
from postbackd.settings import Settings


def surroundings_of(settings: Settings) -> Surroundings:
    """The directories and the certificate that the metrics speak of."""
    return Surroundings(
        Path(settings.data),
        None if settings.backup_dir is None else Path(settings.backup_dir),
        _certificate_term(settings),
    )


def _certificate_term(settings: Settings) -> Callable[[], Awaitable[int | None]] | None:
    if settings.cert is None and not settings.domain:
        return None
    return lambda: certificate_until_ms(settings)
