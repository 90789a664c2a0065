"""The settings of the admin role: where the dashboard listens, what reports count in, where alarms go.

Part of the one table in ``settings``, in a file of its own because of its length.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class DashboardSettings(Struct, frozen=True, kw_only=True):
    """What ``Settings`` holds for the admin role."""

    admin_listen: Annotated[
        str,
        Meta(
            description="Address and port of the dashboard and the API. Only loopback is safe without a TLS proxy in "
            "front. off: neither is served."
        ),
    ] = "127.0.0.1:8081"
