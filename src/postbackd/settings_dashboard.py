"""The settings of the admin role: where the dashboard listens, what reports count in, where alarms go.

Part of the one table in ``settings``, in a file of its own because of its length.
"""

from __future__ import annotations

from typing import Annotated, Literal

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
    report_zone: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            description="Time zone of reports, such as Europe/Berlin, unless a viewer asks for another one. Its days "
            "are kept added up; a change has them added up anew, in the background.",
        ),
    ] = "UTC"
    cost_currency: Annotated[
        str,
        Meta(
            pattern="^[A-Z]{3}$",
            description="Currency of what clicks cost: sources name none. Profit and ROI are told in it.",
        ),
    ] = "USD"
    alarm_webhook: Annotated[
        str | None,
        Meta(
            description="Address that is told of alarms by a signed webhook, such as "
            "https://chat.example/hooks/postbackd. Not public: allow it with deliver_ranges and deliver_ports. Secret, "
            "because whoever knows such an address may often post there.",
            extra={"secret": True},
        ),
    ] = None
    alarm_webhook_secret: Annotated[
        str | None,
        Meta(
            description="What signs it (Standard Webhooks): whsec_ and 24 to 64 bytes in base64.",
            extra={"secret": True},
        ),
    ] = None
    alarm_email_to: Annotated[
        str,
        Meta(
            description="Addresses that are told of alarms by e-mail, separated by commas.",
            extra={"list": True},
        ),
    ] = ""
    smtp_host: Annotated[str | None, Meta(description="Mail server that takes these e-mails.")] = None
    smtp_port: Annotated[
        int, Meta(ge=1, le=65_535, description="Its port: 587 with starttls, 465 with tls.")
    ] = 587
    smtp_tls: Annotated[
        Literal["starttls", "tls", "off"],
        Meta(
            description="How the connection to it is encrypted; its certificate has to be good. off: not at all, for a "
            "server on this machine."
        ),
    ] = "starttls"
    smtp_user: Annotated[
        str | None, Meta(description="User there. Not set: it takes mail without a sign-in.")
    ] = None
    smtp_password: Annotated[
        str | None, Meta(description="Password of the user.", extra={"secret": True})
    ] = None
    smtp_from: Annotated[
        str | None,
        Meta(description="Address that the e-mails come from. Not set: the user, if that is an address."),
    ] = None

    @property
    def alarm_recipients(self) -> tuple[str, ...]:
        """The addresses in ``alarm_email_to``."""
        return tuple(dict.fromkeys(one.strip() for one in self.alarm_email_to.split(",") if one.strip()))

    @property
    def smtp_sender(self) -> str | None:
        """Whom e-mails come from; ``None``: nobody has said."""
        return self.smtp_from or (self.smtp_user if self.smtp_user and "@" in self.smtp_user else None)
