"""Every setting once: name, type, default, limits, help and whether it is secret.

The fields of ``Settings`` are the only definition.  The options of the command line, the environment variables
(``POSTBACKD_<NAME>``), the keys of ``postbackd.toml`` and ``docs/reference/settings.md`` are made from them, so that a
new setting is one field here.  Where values come from, and which wins, is in ``settings_sources``.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from postbackd.core.consent import Consent, make_consent
from postbackd.core.privacy import mask_password
from postbackd.core.retention import Class, Keep
from postbackd.settings_dashboard import DashboardSettings
from postbackd.settings_tls import TlsSettings
from postbackd.settings_values import read_address

PREFIX = "POSTBACKD_"

CONFIG_VARIABLE = f"{PREFIX}CONFIG"
"""Names the one file that is read.  ``os.devnull``: none."""


class Settings(TlsSettings, frozen=True, kw_only=True):
    """What one postbackd was told; made once by ``settings_sources.load_settings``."""

    data: Annotated[
        str,
        Meta(
            min_length=1,
            description="Directory of the embedded database and of the lock file of a server; made when it is missing. "
            "Every server has one of its own.",
        ),
    ] = "./data"
    store: Annotated[
        str | None,
        Meta(
            description="Address of a PostgreSQL database, such as postgresql://user@host/name?sslmode=verify-full, "
            "when one machine is not enough. Not set: the embedded database in the data directory. "
            "Passwords belong into the environment variable or a password file (passfile=...), not on a command line.",
            extra={"secret": True},
        ),
    ] = None
    listen: Annotated[
        str,
        Meta(
            description="Address and port to listen on. Port 0 takes any free port. "
            "Only loopback is safe without a TLS proxy in front."
        ),
    ] = "127.0.0.1:8080"
    trusted_proxies: Annotated[
        str,
        Meta(
            description="Addresses of the proxies in front of this server, such as 127.0.0.1 or 10.0.0.0/8, separated "
            "by commas: what they say of a client's address is believed, counted from the right, and nobody else's.",
            extra={"list": True},
        ),
    ] = ""
    client_header: Annotated[
        Literal["x-forwarded-for", "forwarded"],
        Meta(
            description="The header in which these proxies name the client. Any other header of this kind comes from "
            "the client itself and is not read."
        ),
    ] = "x-forwarded-for"
    proxy_protocol: Annotated[
        Literal["off", "v1v2"],
        Meta(
            description="Whether connections of these proxies begin with a PROXY header of version 1 or 2. With v1v2 "
            "each has to; one that does not is closed."
        ),
    ] = "off"
    rate_per_prefix: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Requests a second from one /24 (v4) or /64 (v6) to one node, on average, and four seconds' "
            "worth at once; more are answered 429. A batch counts as its postbacks do. 0: no limit.",
        ),
    ] = 0
    rate_per_key: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="The same for the postbacks of one network, whose sender has been verified.",
        ),
    ] = 0
    public_url: Annotated[
        str | None,
        Meta(
            description="Address under which visitors and networks reach this server, for the URLs that are printed, "
            "such as https://track.example. Not set: the address of the running server, or http:// and listen."
        ),
    ] = None
    node: Annotated[
        int,
        Meta(
            ge=0,
            le=1023,
            description="Number of this machine in click ids. A PostgreSQL database gives out the numbers itself.",
        ),
    ] = 0
    busy_timeout_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="How long a write waits for a database that another program has locked.",
        ),
    ] = 250
    queue_limit: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="Requests that may wait to be stored; one more is answered 503 at once.",
        ),
    ] = 10_000
    batch_limit: Annotated[
        int, Meta(ge=1, le=100_000, description="Most requests that are committed in one transaction.")
    ] = 1024
    spool_mb: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Megabytes of requests that may be kept in the data directory while the database is away; "
            "0 answers 503 instead.",
        ),
    ] = 1024
    secret_key: Annotated[
        str | None,
        Meta(
            description="Key (32 bytes in base64) that seals what is secret in the database; while it is changed "
            "several, separated by commas, the newest first. Give the same to every process; not set: the file "
            "secret.key in the data directory, made when it is first needed.",
            extra={"secret": True, "list": True},
        ),
    ] = None
    deliver_ranges: Annotated[
        str,
        Meta(
            description="Addresses to which deliveries may go although they are not public, such as 127.0.0.1 or "
            "10.0.0.0/8, separated by commas.",
            extra={"list": True},
        ),
    ] = ""
    deliver_ports: Annotated[
        str,
        Meta(description="Ports to which deliveries may go, separated by commas.", extra={"list": True}),
    ] = "80,443"
    keep_clicks_days: Annotated[
        int, Meta(ge=0, le=36_500, description="Days for which clicks are kept; 0: for ever.")
    ] = 90
    keep_postbacks_days: Annotated[
        int, Meta(ge=0, le=36_500, description="Days for which the postback log is kept; 0: for ever.")
    ] = 30
    keep_attempts_days: Annotated[
        int,
        Meta(ge=0, le=36_500, description="Days for which attempts to deliver are kept; 0: for ever."),
    ] = 30
    keep_conversions_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="Days for which conversions are kept, with their history and deliveries; 0: for ever. "
            "Not fewer than clicks: what goes before its click could be counted again.",
        ),
    ] = 760
    keep_counts_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="Days for which counts by minute are kept (refusals, response times, finds of personal data, "
            "names of parameters that are not mapped); 0: for ever.",
        ),
    ] = 14
    honour_gpc: Annotated[
        bool,
        Meta(
            description="Whether clicks with Sec-GPC: 1 or DNT: 1 are kept short: no sub ids, no network address, "
            "and no ad platform is told of them (true or false)."
        ),
    ] = False
    consent_parameter: Annotated[
        str,
        Meta(
            description="Parameter of clicks that says whether the visitor consents: anything but a yes (1, true, yes, "
            "granted), or its absence, keeps the click as short. Empty: none."
        ),
    ] = ""
    consent_countries: Annotated[
        str,
        Meta(
            description="Countries, separated by commas, such as DE,FR, in which honour_gpc and consent_parameter "
            "apply, and to clicks of no known country. Empty: everywhere.",
            extra={"list": True},
        ),
    ] = ""
    purge_every_s: Annotated[
        int,
        Meta(
            ge=0,
            le=86_400,
            description="Seconds between two looks for what has to go; 0: only 'postbackd purge' deletes.",
        ),
    ] = 3600
    checkpoint_pages: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="Pages of 4 kB that the write-ahead log may hold before it starts over.",
        ),
    ] = 32_768
    sync: Annotated[
        Literal["commit", "beside"],
        Meta(
            description="How a commit reaches the disk before it is answered: by SQLite itself, or by a thread of "
            "ours beside the event loop (experimental)."
        ),
    ] = "commit"
    backup_dir: Annotated[
        str | None,
        Meta(
            description="Directory of the backups, best on another disk. Given to a server, it makes them by itself."
        ),
    ] = None
    backup_every_h: Annotated[
        int,
        Meta(ge=1, le=8760, description="Hours between the backups that a server makes."),
    ] = 24
    backup_keep: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="Backups that are kept in backup_dir; older ones are removed when a new one has been "
            "verified. 0 keeps all.",
        ),
    ] = 7
    backup_key_file: Annotated[
        str | None,
        Meta(
            description="File with the key that encrypts backups: 32 bytes in base64, or a passphrase. "
            "Not set: backups are not encrypted."
        ),
    ] = None
    log_format: Annotated[
        Literal["text", "json"],
        Meta(
            description="What the server writes on standard error: lines for people, or a JSON object a line."
        ),
    ] = "text"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return read_address(self.listen)

    @property
    def place(self) -> str:
        """Where the data are, for messages: the directory, or the database without its password."""
        if self.store is None:
            return self.data
        return mask_password(self.store)

    @property
    def consent(self) -> Consent | None:
        """What is honoured of what visitors say; ``None``: nothing."""
        return make_consent(self.honour_gpc, self.consent_parameter, self.consent_countries)

    @property
    def keep(self) -> Keep:
        """How long each class of rows is kept."""
        return Keep({class_: getattr(self, f"keep_{class_}_days") for class_ in Class})

    @property
    def base_url(self) -> str:
        """``public_url``, or the first domain, or the address to listen on, without a slash at the end."""
        if self.public_url is None and self.domain:
            return f"https://{self.domains[0]}"
        return self.public_url or f"http://{self.listen}"


class Setting(Struct, frozen=True):
    """One row of the table of settings."""

    name: str
    type: str
    default: Any
    help: str
    secret: bool
    is_list: bool
    """Its text is several values, separated by commas."""
    many: bool = False
    """Its option may be given several times; the values are joined by commas."""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()

    @property
    def file_variable(self) -> str:
        """The environment variable that names a file with the value; of secrets alone."""
        return f"{self.variable}_FILE"

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return f"--{self.name.replace('_', '-')}"


class Given(NamedTuple):
    """The value of a setting as somebody wrote it."""

    value: Any
    origin: str
    """Where it stands, for messages: ``--listen``, ``POSTBACKD_LISTEN``, ``postbackd.toml, line 3: listen``."""
    typed: bool = False
    """It has a type, as in TOML; otherwise it is text, whatever it stands for."""


@cache
def type_hints() -> dict[str, Any]:
    """Field of ``Settings`` -> its type, with what is said of it."""
    return get_type_hints(Settings, include_extras=True)


@cache
def list_settings() -> tuple[Setting, ...]:
    """The table of settings, in the order of ``Settings``, then those of TLS, those of the dashboard last."""
    rows = []
    fields, dashboard = msgspec.structs.fields(Settings), len(msgspec.structs.fields(DashboardSettings))
    inherited = len(msgspec.structs.fields(TlsSettings))
    for field in (*fields[inherited:], *fields[dashboard:inherited], *fields[:dashboard]):
        type_, meta = get_args(type_hints()[field.name])
        marks = [bool((meta.extra or {}).get(mark)) for mark in ("secret", "list", "many")]
        words = _describe_type(type_, meta)
        rows.append(Setting(field.name, words, field.default, meta.description, *marks))
    return tuple(rows)


def find_setting(name: str) -> Setting:
    """The row of one setting; an unknown name is a ``KeyError``."""
    return {setting.name: setting for setting in list_settings()}[name]


def _describe_type(type_: Any, meta: Meta) -> str:
    if type_ is int:
        return f"whole number, {meta.ge} to {meta.le}"
    if type_ is bool:
        return "true or false"
    if get_args(type_) and type(None) not in get_args(type_):
        return " or ".join(get_args(type_))
    return "text"
