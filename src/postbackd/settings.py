"""Every setting once: name, type, default, limits, help and whether it is secret.

The fields of ``Settings`` are the only definition.  The options of the command line, the environment variables
(``POSTBACKD_<NAME>``) and ``docs/reference/settings.md`` are made from them, so that a new setting is one field here.
Given on the command line, a value wins over the environment, the environment over the default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from postbackd.core.addresses import read_allowed
from postbackd.core.consent import Consent, make_consent
from postbackd.core.privacy import mask_password
from postbackd.core.retention import Class, Keep

PREFIX = "POSTBACKD_"


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message names the setting and what it may be."""


class Settings(Struct, frozen=True, kw_only=True):
    """What one postbackd was told; made once by ``load_settings``."""

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
            description="Key (32 bytes in base64) that seals the secrets of targets. Give the same to every process; "
            "not set: the file secret.key in the data directory, made when it is first needed.",
            extra={"secret": True},
        ),
    ] = None
    deliver_ranges: Annotated[
        str,
        Meta(
            description="Addresses to which deliveries may go although they are not public, such as 127.0.0.1 or "
            "10.0.0.0/8, separated by commas."
        ),
    ] = ""
    deliver_ports: Annotated[
        str, Meta(description="Ports to which deliveries may go, separated by commas.")
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
            description="Days for which counts by minute are kept (refusals, response times, finds of personal data); "
            "0: for ever.",
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
            description="Countries in which honour_gpc and consent_parameter apply, such as DE,FR, and to clicks of no "
            "known country. Empty: everywhere."
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
        """``public_url``, or the address to listen on, without a slash at the end."""
        return self.public_url or f"http://{self.listen}"


class Setting(Struct, frozen=True):
    """One row of the table of settings."""

    name: str
    type: str
    default: Any
    help: str
    secret: bool

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Settings, include_extras=True)


@cache
def list_settings() -> tuple[Setting, ...]:
    """The table of settings, in the order of ``Settings``."""
    rows = []
    for field in msgspec.structs.fields(Settings):
        type_, meta = get_args(_hints()[field.name])
        secret = bool((meta.extra or {}).get("secret"))
        rows.append(Setting(field.name, _describe_type(type_, meta), field.default, meta.description, secret))
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


def load_settings(overrides: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The settings from the command line (``overrides``; ``None`` means not given) and the environment.

    Raises ``SettingsError`` naming the setting, where its value came from and what it may be.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in list_settings():
        given, origin = overrides.get(setting.name), f"--{setting.name.replace('_', '-')}"
        if given is None:
            given, origin = environ.get(setting.variable) or None, setting.variable
        if given is not None:
            values[setting.name], origins[setting.name] = _convert(setting, given, origin), origin
    unknown = set(overrides) - {setting.name for setting in list_settings()}
    if unknown:
        raise SettingsError(f"there is no setting {min(unknown)!r}; see docs/reference/settings.md")
    settings = Settings(**values)
    _check(settings, origins)
    return _trim_url(settings)


def _convert(setting: Setting, given: Any, origin: str) -> Any:
    try:
        return msgspec.convert(given, _hints()[setting.name], strict=False)
    except msgspec.ValidationError as error:
        shown = "" if setting.secret else f" {given!r}"
        raise SettingsError(f"{origin}{shown} is not usable; {setting.name} is {setting.type}") from error


def _check(settings: Settings, origins: Mapping[str, str]) -> None:
    read_address(settings.listen, origins.get("listen", "listen"))
    if settings.store is not None and not settings.store.startswith(("postgresql://", "postgres://")):
        origin = origins.get("store", "store")
        raise SettingsError(f"{origin} is not usable; write it like postgresql://user@host/database")
    try:
        read_allowed(settings.deliver_ranges, settings.deliver_ports)
    except ValueError as error:
        raise SettingsError(f"deliver_ranges or deliver_ports: {error}") from error
    try:
        make_consent(settings.honour_gpc, settings.consent_parameter, settings.consent_countries)
    except ValueError as error:
        raise SettingsError(f"consent_countries: {error}") from error
    if problem := settings.keep.problem():
        raise SettingsError(problem)
    url = settings.public_url
    if url is not None and not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", url):
        origin = origins.get("public_url", "public_url")
        raise SettingsError(f"{origin} {url!r} is not usable; write it like https://track.example")


def _trim_url(settings: Settings) -> Settings:
    if settings.public_url is None:
        return settings
    return msgspec.structs.replace(settings, public_url=settings.public_url.rstrip("/"))


_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]*):(?P<port>[0-9]{1,5})")


def read_address(text: str, origin: str = "listen") -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; IPv6 in brackets, an empty host is every address.  Raises ``SettingsError``."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65535:
        raise SettingsError(f"{origin} {text!r} is not usable; write it as HOST:PORT, such as 127.0.0.1:8080")
    return match["host"].strip("[]"), int(match["port"])
