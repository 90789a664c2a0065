"""The real server with its dashboard, and the one-time link that it prints."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from pathlib import Path

from tests.trust.server import Server, free_port, wait_until


class Dashboard(Server):
    """``postbackd serve`` with the dashboard on a port of its own."""

    def __init__(self, data_dir: Path, env: Mapping[str, str] | None = None) -> None:
        self.admin_port = free_port()
        super().__init__(data_dir, env=env)
        self.stdout_path = data_dir.with_name(f"{data_dir.name}.stdout")
        self.env |= {
            "POSTBACKD_ADMIN_LISTEN": f"127.0.0.1:{self.admin_port}",
            "POSTBACKD_PUBLIC_URL": f"http://127.0.0.1:{self.port}",
        }

    @property
    def base(self) -> str:
        """Where the dashboard is."""
        return f"http://127.0.0.1:{self.admin_port}"

    def link(self) -> str:
        """Lets the first owner in."""
        wait_until(lambda: "#/welcome" in self.stdout_path.read_text(), 20, "the one-time link")
        found = re.search(r"http\S+#/welcome\?code=\S+", self.stdout_path.read_text())
        assert found is not None
        return found.group()


def ask(server: Dashboard, path: str) -> tuple[int, str]:
    """Status and destination of what the front door answers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("location", "")
    finally:
        connection.close()
