"""Under which addresses the dashboard is reached, as far as the settings tell.

Apart from ``administration``, because the supervisor prints them and loads nothing of the admin role.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from postbackd.settings import Settings
from postbackd.settings_values import is_loopback, read_address


def serves_tls(settings: Settings) -> bool:
    """Whether the admin role speaks TLS itself, with the certificate of the front door: on loopback it does not."""
    host, _ = read_address(settings.admin_listen)
    return settings.serves_tls and not is_loopback(host)


def dashboard_url(settings: Settings, port: int) -> str:
    """Where people open it; ``port``: where it listens."""
    if settings.admin_url is not None:
        return settings.admin_url
    host, _ = read_address(settings.admin_listen)
    if not serves_tls(settings):
        return f"http://{_in_url(host)}:{port}"
    name = settings.domains[0] if settings.domains else _reached_as(host)
    return f"https://{_in_url(name)}" + ("" if port == 443 else f":{port}")


def _reached_as(host: str) -> str:
    return socket.gethostname() if host in ("", "0.0.0.0", "::") else host  # noqa: S104 - a question


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def dashboard_names(settings: Settings) -> list[str]:
    """The names under which it may be asked, beside ``localhost`` and addresses written as numbers."""
    host, _ = read_address(settings.admin_listen)
    names = [host, *settings.domains]
    if serves_tls(settings):
        names.append(socket.gethostname())
    if settings.admin_url is not None:
        names.append(urlsplit(settings.admin_url).hostname or "")
    return [name for name in names if name]
