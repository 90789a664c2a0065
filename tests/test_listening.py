"""Where the server listens: every address of both families, and lines that say what to do when it cannot."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from postbackd.supervisor import CannotListen, listen_on, read_inherited


def test_no_host_means_every_address_of_both_families() -> None:
    sockets = listen_on({"https": ":0"})
    with sockets["https"] as listening:
        port = listening.getsockname()[1]
        for host in ("127.0.0.1", "::1") if listening.family == socket.AF_INET6 else ("127.0.0.1",):
            socket.create_connection((host, port), 5).close()


def test_a_socket_that_was_bound_is_let_go_when_another_cannot_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = socket.create_server(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotListen, match="choose another --https-listen"):
            listen_on({"listen": address, "https": busy})
        listen_on({"listen": address})["listen"].close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the right up")
def test_a_low_port_without_the_right_says_which_right() -> None:
    code = (
        "import os; from postbackd.supervisor import listen_on; os.setgroups([]); os.setuid(65534)\n"
        "listen_on({'http': '127.0.0.1:81'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    low = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    assert "CAP_NET_BIND_SERVICE" in done.stderr or low <= 81


def test_what_is_inherited_is_told_by_name() -> None:
    assert read_inherited("listen=3,https=5,lifeline=9") == {"listen": 3, "https": 5, "lifeline": 9}
