"""The settings of TLS: whose certificate is shown, where it comes from, and where https is listened for.

Part of the one table in ``settings``, in a file of its own because of its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from postbackd.settings_dashboard import DashboardSettings
from postbackd.settings_values import read_domains

ACME_DIRECTORIES: Mapping[str, str] = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
"""Words for ``acme_directory``."""


class TlsSettings(DashboardSettings, frozen=True, kw_only=True):
    """What ``Settings`` holds for TLS; after those of the dashboard, because a record has one line of ancestors."""

    domain: Annotated[
        str,
        Meta(
            description="Name under which the Internet reaches this server, such as track.example.com: a certificate "
            "for it is obtained and renewed by ACME, which agrees to the authority's terms. Given several times, or "
            "separated by commas: several names in one certificate.",
            extra={"list": True, "many": True},
        ),
    ] = ""
    email: Annotated[
        str | None, Meta(description="Address that the certificate's authority may write to.")
    ] = None
    acme_directory: Annotated[
        str,
        Meta(
            min_length=1,
            description="The authority for --domain: letsencrypt, staging (of Let's Encrypt, to try things out: its "
            "certificates are not trusted), or the https address of an ACME directory.",
        ),
    ] = "letsencrypt"
    acme_challenge: Annotated[
        Literal["http-01", "tls-alpn-01"],
        Meta(
            description="How the authority sees that --domain is ours: http-01 needs port 80 to be reached from the "
            "Internet, tls-alpn-01 port 443 alone, without a CDN or a proxy that ends TLS in between. The same for "
            "every node."
        ),
    ] = "http-01"
    acme_eab_kid: Annotated[
        str | None,
        Meta(
            description="Key id of external account binding, for authorities that ask for it (ZeroSSL, Google Trust "
            "Services): their site shows it.",
        ),
    ] = None
    acme_eab_hmac_key: Annotated[
        str | None,
        Meta(
            description="HMAC key (base64) that belongs to acme_eab_kid. Used when the account is registered.",
            extra={"secret": True},
        ),
    ] = None
    acme_ca_file: Annotated[
        str | None,
        Meta(
            description="File with the certificates that prove the authority's own server, when this machine does not "
            "know them."
        ),
    ] = None
    cert: Annotated[
        str | None,
        Meta(
            description="File with the certificate of this server, and behind it those that lead to a known authority "
            "(PEM), when somebody else looks after it. Read again when it changes."
        ),
    ] = None
    key: Annotated[
        str | None,
        Meta(
            description="File with the private key that belongs to --cert (PEM, not encrypted). Not set: it stands in "
            "the file of --cert."
        ),
    ] = None
    tls: Annotated[
        Literal["auto", "self-signed"],
        Meta(
            description="Whether to speak TLS: as --domain or --cert say, or, for tests only, with a certificate that "
            "nobody has reason to trust."
        ),
    ] = "auto"
    https_listen: Annotated[
        str, Meta(description="Address and port for https, with --domain, --cert or --tls self-signed.")
    ] = ":443"
    http_listen: Annotated[
        str,
        Meta(
            description="Address and port for plain http beside https: answers the authority's challenges, sends "
            "visitors to https and refuses postbacks. off: nothing listens there."
        ),
    ] = ":80"

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the certificate that ``domain`` asks for."""
        return read_domains(self.domain)

    @property
    def serves_tls(self) -> bool:
        return bool(self.domain or self.cert) or self.tls == "self-signed"

    @property
    def acme_url(self) -> str:
        """Address of the authority's directory."""
        return ACME_DIRECTORIES.get(self.acme_directory, self.acme_directory)
