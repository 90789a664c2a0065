"""Under which names the admin role may be asked.

A page of a foreign name can be made to resolve to our address (DNS rebinding), and is then of our origin for the
browser; the name it uses stands in ``Host``.  So only our own names are answered.  Addresses written as numbers are:
nobody can make them lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from postbackd.admin.problems import Problem


def host_of(text: str) -> str:
    """The name in ``Host`` or an origin, without its port, in lower case; empty where there is none."""
    try:
        return (urlsplit(text if "//" in text else f"//{text}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Hosts:
    """The names that are ours."""

    def __init__(self, names: Collection[str]) -> None:
        """``names``: beside ``localhost`` and addresses."""
        self._names = {"localhost", *(name.lower() for name in names)}

    def __contains__(self, host: object) -> bool:
        name = host_of(str(host))
        return name in self._names or is_address(name)


def is_address(name: str) -> bool:
    """Whether a host is written as numbers."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class HostGuard:
    """Answers 421 to whoever asks for another name, before anything else is looked at."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = Headers(scope=scope).getlist("host")
            if len(hosts) != 1 or hosts[0] not in self._hosts:
                detail = (
                    f"this server is not {host_of(hosts[0]) if hosts else 'asked for by any name'!r}; if people reach "
                    "it under that name, set admin_url to its https address"
                )
                await Problem(421, detail).answer()(scope, receive, send)
                return
        await self._app(scope, receive, send)
