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
            description="Address and port of the dashboard and the API; any but loopback needs TLS (--domain, --cert), "
            "or admin_url. off: neither is served."
        ),
    ] = "127.0.0.1:8081"
    admin_url: Annotated[
        str | None,
        Meta(
            description="Address under which people reach the dashboard, such as https://stats.example.com. Says that "
            "a TLS proxy stands in front of admin_listen, or that a container's port is published on loopback "
            "(http://127.0.0.1:8081)."
        ),
    ] = None
