"""Real nginx, haproxy and Caddy in front of a server: configuration in a directory, own ports, ended by process id.

Each writes the requests that it saw, one a line, to a log.  That log is what tells a smuggled request from an ordinary
one: what the server executed and the proxy never saw was hidden in another request.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.trust.corpus.wire import Address
from tests.trust.server import free_port, wait_until

_NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    log_format seen '$request';
    access_log {log} seen;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    ignore_invalid_headers off;
    underscores_in_headers on;
    merge_slashes off;
    upstream backend {{ server {backend}; keepalive 16; }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            add_header X-Backend-Status $upstream_status always;
        }}
    }}
}}
"""

_BALANCER = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream nodes {{
        {backend}
        keepalive 16;
    }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass http://nodes;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream error timeout http_503 non_idempotent;
        }}
    }}
}}
"""

_HAPROXY = """
global
    log stdout format raw local0
    maxconn 1024
defaults
    mode http
    log global
    log-format "%{{+Q}}r"
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 15s
    timeout server 15s
frontend door
    bind {listen}
    {lenient}
    default_backend app
backend app
    http-response set-header X-Backend-Status %[status]
    server app {backend}
"""


_CADDY = """
{{
    admin off
    auto_https off
    storage file_system {directory}
    servers {{
        protocols h1
    }}
}}
:{port} {{
    bind 127.0.0.1
    log {{
        output file {log}
        format filter {{
            wrap json
            fields {{
                request>headers delete
                resp_headers delete
            }}
        }}
    }}
    reverse_proxy {backend} {{
        header_down X-Backend-Status {{rp.status_code}}
    }}
}}
"""
"""What it logs of a request is its line alone: what is hidden in a header was not seen."""


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs."""

    name: str
    address: Address
    log: Path

    def seen(self) -> str:
        """The request lines that it took for requests."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@contextmanager
def nginx(directory: Path, backend: Address) -> Iterator[Proxy]:
    """nginx that passes invalid header names on and keeps connections to the server open."""
    with _proxy("nginx", _NGINX, directory, _join(backend), ("-p", str(directory), "-c")) as proxy:
        yield proxy


@contextmanager
def balancer(directory: Path, backends: Sequence[Address]) -> Iterator[Proxy]:
    """nginx in front of several nodes: what one of them cannot answer is asked of another one."""
    nodes = "\n        ".join(f"server {_join(backend)} max_fails=0;" for backend in backends)
    with _proxy("nginx", _BALANCER, directory, nodes, ("-p", str(directory), "-c")) as proxy:
        yield proxy


@contextmanager
def haproxy(directory: Path, backend: Address, *, lenient: bool = False) -> Iterator[Proxy]:
    """haproxy; ``lenient`` makes it pass on requests that it would refuse."""
    option = "option accept-invalid-http-request" if lenient else ""
    name = "haproxy-lenient" if lenient else "haproxy"
    with _proxy(name, _HAPROXY, directory, _join(backend), ("-db", "-f"), lenient=option) as proxy:
        yield proxy


@contextmanager
def caddy(directory: Path, backend: Address) -> Iterator[Proxy]:
    """Caddy, which understands a request and writes it anew."""
    options = ("run", "--adapter", "caddyfile", "--config")
    with _proxy("caddy", _CADDY, directory, _join(backend), options) as proxy:
        yield proxy


@contextmanager
def _proxy(
    name: str, template: str, directory: Path, backend: str, options: Sequence[str], **words: str
) -> Iterator[Proxy]:
    directory.mkdir(parents=True)
    address = ("127.0.0.1", free_port())
    log = directory / "seen.log"
    config = directory / "proxy.conf"
    places = {
        "listen": _join(address),
        "port": str(address[1]),
        "backend": backend,
        "log": str(log),
        "directory": str(directory),
    }
    text = template.format(**places, **words)
    config.write_text(f"user root;\n{text}" if name == "nginx" and os.geteuid() == 0 else text)
    program = shutil.which(name.partition("-")[0], path=os.environ.get("PATH", "") + ":/usr/sbin")
    output = (log if "stdout" in template else directory / "output.log").open("wb")
    process = subprocess.Popen(
        [str(program), *options, str(config)],
        env={**os.environ, "XDG_CONFIG_HOME": str(directory)},  # where Caddy keeps a copy
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until(lambda: process.poll() is not None or _accepts(address), 30, f"the start of {name}")
        if process.poll() is not None:
            raise RuntimeError(
                f"{name} ended: {(directory / 'output.log').read_text(errors='replace')[-500:]}"
            )
        yield Proxy(name, address, log)
    finally:
        process.terminate()
        process.wait(timeout=20)
        output.close()


def _join(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _accepts(address: Address) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True
