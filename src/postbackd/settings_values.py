"""What the text of a setting may be, where that is more than a type: addresses to listen on, names of hosts."""

from __future__ import annotations

import base64
import re
from ipaddress import ip_address


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message names the setting and what it may be."""


_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]*):(?P<port>[0-9]{1,5})")


def read_address(text: str, origin: str = "listen") -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; IPv6 in brackets, an empty host is every address.  Raises ``SettingsError``."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65535:
        raise SettingsError(f"{origin} {text!r} is not usable; write it as HOST:PORT, such as 127.0.0.1:8080")
    return match["host"].strip("[]"), int(match["port"])


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach an address that is listened on."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


_DOMAIN = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")


def read_domains(text: str, origin: str = "domain") -> tuple[str, ...]:
    """The names in a list with commas, in small letters, each once.  Raises ``SettingsError``."""
    names = dict.fromkeys(name.strip().lower().rstrip(".") for name in text.split(",") if name.strip())
    for name in names:
        if not _DOMAIN.fullmatch(name):
            hint = "; a certificate for *. names needs the DNS, which is not done here" if "*" in name else ""
            raise SettingsError(
                f"{origin} {name!r} is no name that a certificate can be obtained for; write it like "
                f"track.example.com{hint}"
            )
    return tuple(names)


def read_hmac_key(text: str, origin: str = "acme_eab_hmac_key") -> bytes:
    """The key that an authority gives out to bind an account: base64, as for URLs or not.  Raises ``SettingsError``."""
    plain = text.strip().rstrip("=").replace("+", "-").replace("/", "_")
    if not re.fullmatch(r"[A-Za-z0-9_-]{22,}", plain) or len(plain) % 4 == 1:
        raise SettingsError(
            f"{origin} is not usable; it is the HMAC key (base64) that the authority shows beside the key id"
        )
    return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
