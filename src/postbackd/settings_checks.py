"""Makes ``Settings`` of what was given, and refuses what cannot be used, with the place where it was written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from postbackd.core.addresses import read_allowed
from postbackd.core.client_address import read_ranges
from postbackd.core.consent import make_consent
from postbackd.core.money import CURRENCIES
from postbackd.settings import Given, Setting, Settings, find_setting, type_hints
from postbackd.settings_tls import ACME_DIRECTORIES
from postbackd.settings_values import SettingsError, is_loopback, read_address, read_domains, read_hmac_key


def make_settings(given: Mapping[str, Given]) -> Settings:
    """The settings, by name; one that is not given has its default.

    Raises ``SettingsError`` naming the setting, where its value came from and what it may be.
    """
    settings = Settings(**{name: _convert(find_setting(name), one) for name, one in given.items()})
    _check(settings, {name: one.origin for name, one in given.items()})
    return _trim_url(settings)


def _convert(setting: Setting, given: Given) -> Any:
    try:
        return msgspec.convert(given.value, type_hints()[setting.name], strict=given.typed)
    except msgspec.ValidationError as error:
        shown = "" if setting.secret else f" {given.value!r}"
        raise SettingsError(
            f"{given.origin}{shown} is not usable; {setting.name} is {setting.type}"
        ) from error


def _check_reports(settings: Settings, origins: Mapping[str, str]) -> None:
    if settings.cost_currency not in CURRENCIES:
        raise SettingsError(
            f"{origins['cost_currency']} is no currency; write a code of ISO 4217 such as EUR"
        )
    if settings.report_zone == "UTC":
        return
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(settings.report_zone)
    except (LookupError, ValueError, OSError) as error:
        raise SettingsError(
            f"{origins['report_zone']} is no time zone that this system knows; write a name such as Europe/Berlin "
            "(where there are none at all, install the package tzdata)"
        ) from error


def _check(settings: Settings, origins: Mapping[str, str]) -> None:
    read_address(settings.listen, origins.get("listen", "listen"))
    _check_admin(settings, origins)
    _check_tls(settings, origins)
    _check_reports(settings, origins)
    if settings.store is not None and not settings.store.startswith(("postgresql://", "postgres://")):
        origin = origins.get("store", "store")
        raise SettingsError(f"{origin} is not usable; write it like postgresql://user@host/database")
    try:
        read_allowed(settings.deliver_ranges, settings.deliver_ports)
    except ValueError as error:
        where = [origins[name] for name in ("deliver_ranges", "deliver_ports") if name in origins]
        raise SettingsError(f"{' or '.join(where)}: {error}") from error
    try:
        trusted = read_ranges(settings.trusted_proxies)
    except ValueError as error:
        raise SettingsError(f"{origins.get('trusted_proxies', 'trusted_proxies')}: {error}") from error
    if settings.proxy_protocol != "off" and not trusted:
        raise SettingsError(
            f"{origins['proxy_protocol']} needs the addresses of the proxies; set trusted_proxies as well"
        )
    try:
        make_consent(settings.honour_gpc, settings.consent_parameter, settings.consent_countries)
    except ValueError as error:
        raise SettingsError(f"consent_countries: {error}") from error
    if problem := settings.keep.problem():
        raise SettingsError(problem)
    _check_alarms(settings, origins)
    url = settings.public_url
    if url is not None and not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", url):
        origin = origins.get("public_url", "public_url")
        raise SettingsError(f"{origin} {url!r} is not usable; write it like https://track.example")


def _check_admin(settings: Settings, origins: Mapping[str, str]) -> None:
    url = settings.admin_url
    if url is not None and not re.fullmatch(_SAFE_URL, url):
        raise SettingsError(
            f"{origins.get('admin_url', 'admin_url')} {url!r} is not usable; write it like https://stats.example.com, "
            "without a path"
        )
    if settings.admin_listen == "off":
        return
    origin = origins.get("admin_listen", "admin_listen")
    host, _ = read_address(settings.admin_listen, origin)
    if not is_loopback(host) and url is None and not settings.serves_tls:
        raise SettingsError(
            f"{origin} {settings.admin_listen!r} would send passwords in clear over the network; listen on 127.0.0.1, "
            "or serve TLS (--domain, --cert), or set admin_url to the https address of the proxy in front"
        )


_SAFE_URL = r"https://[^/\s?#@]+/?|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?/?"
"""What nobody on the way can read."""


def _check_tls(settings: Settings, origins: Mapping[str, str]) -> None:
    read_address(settings.https_listen, origins.get("https_listen", "https_listen"))
    if settings.http_listen != "off":
        read_address(settings.http_listen, origins.get("http_listen", "http_listen"))
    read_domains(settings.domain, origins.get("domain", "domain"))
    if settings.domain and settings.cert:
        raise SettingsError("give --domain (we look after the certificate) or --cert (you do), not both")
    if settings.key and not settings.cert:
        raise SettingsError("--key needs --cert: the certificate that belongs to it")
    if settings.tls == "self-signed" and settings.cert:
        raise SettingsError("give --tls self-signed or --cert, not both")
    if not settings.acme_url.startswith("https://"):
        origin = origins.get("acme_directory", "acme_directory")
        words = " or ".join(ACME_DIRECTORIES)
        raise SettingsError(
            f"{origin} {settings.acme_directory!r} is not usable; write {words}, or an https address"
        )
    _check_challenge(settings, origins)
    _check_binding(settings, origins)
    if settings.email and not re.fullmatch(r"[^\s@,?]+@[^\s@,?]+", settings.email):
        raise SettingsError(f"{origins.get('email', 'email')} {settings.email!r} is no address")


def _check_challenge(settings: Settings, origins: Mapping[str, str]) -> None:
    """Whether anybody could answer the authority.  On a PostgreSQL database it may be another node that does."""
    obtains = bool(settings.domain) and settings.tls == "auto" and settings.store is None
    if obtains and settings.http_listen == "off" and settings.acme_challenge == "http-01":
        raise SettingsError(
            f"{origins['http_listen']} off leaves nobody to answer the authority on port 80; give --acme-challenge "
            "tls-alpn-01, which needs port 443 alone, or let http_listen be"
        )


def _check_binding(settings: Settings, origins: Mapping[str, str]) -> None:
    """External account binding: both halves, and an authority that would know them."""
    given = [name for name in ("acme_eab_kid", "acme_eab_hmac_key") if getattr(settings, name) is not None]
    if not given:
        return
    if len(given) == 1:
        other = "acme_eab_hmac_key" if given == ["acme_eab_kid"] else "acme_eab_kid"
        raise SettingsError(
            f"{origins[given[0]]} needs {other}: the authority shows both of them on its site"
        )
    if settings.acme_directory in ACME_DIRECTORIES:
        raise SettingsError(
            f"{origins['acme_eab_kid']} is for authorities that bind accounts, which Let's Encrypt does not: name the "
            "address of the other one with --acme-directory"
        )
    read_hmac_key(settings.acme_eab_hmac_key or "", origins["acme_eab_hmac_key"])


def _check_alarms(settings: Settings, origins: Mapping[str, str]) -> None:
    if settings.alarm_webhook is not None:
        origin = origins.get("alarm_webhook", "alarm_webhook")
        if not re.fullmatch(r"https?://[^/\s?#@]+(/\S*)?", settings.alarm_webhook):
            raise SettingsError(f"{origin} is not usable; write it like https://chat.example/hooks/postbackd")
        if settings.alarm_webhook_secret is None:
            raise SettingsError(
                f"{origin} needs alarm_webhook_secret, with which it is signed; make one with: "
                "openssl rand -base64 32 | sed s/^/whsec_/"
            )
    if settings.alarm_webhook_secret is not None:
        from postbackd.core.webhooks import read_secret

        try:
            read_secret(settings.alarm_webhook_secret)
        except ValueError as error:
            raise SettingsError(
                f"{origins.get('alarm_webhook_secret', 'alarm_webhook_secret')}: {error}"
            ) from error
    _check_mail(settings, origins)


def _check_mail(settings: Settings, origins: Mapping[str, str]) -> None:
    given = [("alarm_email_to", one) for one in settings.alarm_recipients]
    if settings.smtp_from is not None:
        given.append(("smtp_from", settings.smtp_from))
    for name, address in given:
        if not re.fullmatch(r"[!-+\--?A-~]+@[!-+\--?A-~]+", address):
            raise SettingsError(
                f"{origins.get(name, name)} {address!r} is no address; write it like ops@example.com"
            )
    if settings.alarm_recipients and not (settings.smtp_host and settings.smtp_sender):
        origin = origins.get("alarm_email_to", "alarm_email_to")
        missing = "smtp_host" if not settings.smtp_host else "smtp_from"
        raise SettingsError(f"{origin} needs {missing}: e-mail is handed over to a mail server")
    if settings.smtp_password is not None and settings.smtp_user is None:
        origin = origins.get("smtp_password", "smtp_password")
        raise SettingsError(f"{origin} needs smtp_user, whose password it is")


def _trim_url(settings: Settings) -> Settings:
    names = [name for name in ("public_url", "admin_url") if getattr(settings, name) is not None]
    trimmed = {name: getattr(settings, name).rstrip("/") for name in names}
    return msgspec.structs.replace(settings, **trimmed) if trimmed else settings
