"""The shipped configurations of nginx, HAProxy and Caddy, run as they are except for ports, paths and servers.

Whatever is replaced has to be there: a configuration that was changed past its tests is noticed at once.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.recorder import Address
from tests.deploy.tools import DEPLOY, make_certificate, need, run
from tests.trust.server import free_port, wait_until

CLICK, POSTBACK = "click.example.com", "postback.example.com"

_NGINX_CONF = """
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/start.log;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include conf.d/*.conf;
}}
"""

Change = Callable[[str], str]
"""What a control does to the configuration."""


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Front:
    """A front end that runs."""

    name: str
    port: int
    plain_port: int
    directory: Path
    certificate: Path

    def ask(
        self, host: str, target: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Answer:
        """One request over TLS on a connection of its own; ``_`` in the names of headers is ``-``."""
        tls = ssl.create_default_context(cafile=str(self.certificate))
        with socket.create_connection(("127.0.0.1", self.port), timeout=40) as plain:
            return _ask(tls.wrap_socket(plain, server_hostname=host), host, target, method, body, headers)

    def ask_from(self, source: str, host: str, target: str, **headers: str) -> Answer:
        """A GET over TLS from one of the machine's own addresses, such as 127.0.0.2."""
        tls = ssl.create_default_context(cafile=str(self.certificate))
        with socket.create_connection(("127.0.0.1", self.port), 40, (source, 0)) as plain:
            return _ask(tls.wrap_socket(plain, server_hostname=host), host, target, "GET", None, headers)

    def ask_plainly(self, host: str, target: str) -> Answer:
        """One request to the port without TLS."""
        with socket.create_connection(("127.0.0.1", self.plain_port), timeout=40) as plain:
            return _ask(plain, host, target, "GET", None, {})

    def access_log(self) -> list[str]:
        return (self.directory / "access.log").read_text(errors="replace").splitlines()

    def everything_written(self) -> str:
        """All its logs together."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.directory.glob("*.log")))


def _ask(
    connected: socket.socket,
    host: str,
    target: str,
    method: str,
    body: bytes | None,
    headers: Mapping[str, str],
) -> Answer:
    with connected:
        connection = http.client.HTTPConnection(host)
        connection.sock = connected
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": host, **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def replace(text: str, old: str, new: str) -> str:
    """Replace a pattern that has to be there."""
    changed, count = re.subn(old, new, text, flags=re.MULTILINE)
    assert count, f"{old!r} is not in the shipped file any more"
    return changed


def lay_nginx(
    directory: Path,
    servers: Sequence[Address],
    ports: tuple[int, int],
    trusted: str = "",
    change: Change = str,
    upstream: Path = DEPLOY / "nginx" / "upstream.conf",
) -> Path:
    """Write the shipped files into a directory as they lie under /etc/nginx.  Returns the main configuration."""
    certificate, key = make_certificate(directory, (CLICK, POSTBACK))
    (directory / "conf.d").mkdir()
    (directory / "postbackd" / "tls").mkdir(parents=True)
    for name in ("click", "postback"):
        (directory / "postbackd" / "tls" / f"{name}.crt").write_bytes(certificate.read_bytes())
        (directory / "postbackd" / "tls" / f"{name}.key").write_bytes(key.read_bytes())
    source = DEPLOY / "nginx"
    for path in sorted(source.glob("*.conf")):
        text = (upstream if path.name == "upstream.conf" else path).read_text()
        if path.name == "upstream.conf":
            text = _name_servers(text, r"^    server \S+", "    server {}", servers)
        if path.name == "trusted-proxies.conf" and trusted:
            text += f"set_real_ip_from {trusted};\n"
        if "/var/log/nginx/" in text:
            text = text.replace("/var/log/nginx/", f"{directory}/")
        if path.name == "postbackd.conf":
            text = replace(text, r"^ *listen \[::\]:.*\n", "")
            text = replace(text, r"listen 443 ", f"listen 127.0.0.1:{ports[0]} ")
            text = replace(text, r"listen 80\b", f"listen 127.0.0.1:{ports[1]}")
        place = "conf.d" if path.name == "postbackd.conf" else "postbackd"
        (directory / place / path.name).write_text(change(text))
    main = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    main.write_text(_NGINX_CONF.format(directory=directory, user=user))
    return main


def lay_haproxy(
    directory: Path,
    servers: Sequence[Address],
    ports: tuple[int, int],
    trusted: str = "",
    change: Change = str,
) -> Path:
    """Write the shipped file into a directory as it lies under /etc/haproxy.  Returns its path."""
    certificate, key = make_certificate(directory, (CLICK, POSTBACK))
    (directory / "postbackd" / "tls").mkdir(parents=True)
    (directory / "postbackd" / "tls" / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    shipped = (DEPLOY / "haproxy" / "trusted-proxies").read_text()
    (directory / "postbackd" / "trusted-proxies").write_text(f"{shipped}{trusted}\n")
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    text = replace(text, r"^ *bind :::.*\n", "")
    text = replace(text, r"bind :443 ", f"bind 127.0.0.1:{ports[0]} ")
    text = replace(text, r"bind :80\b", f"bind 127.0.0.1:{ports[1]}")
    text = replace(text, r"^    log /dev/log local0", "    log stdout format raw local0")
    text = replace(text, r"^    (user|group) haproxy\n", "")
    text = _name_servers(text, r"^    server (node\d) \S+", "    server node{n} {}", servers)
    path = directory / "haproxy.cfg"
    path.write_text(change(text))
    return path


def lay_caddy(
    directory: Path,
    servers: Sequence[Address],
    ports: tuple[int, int],
    trusted: str = "",
    change: Change = str,
) -> Path:
    """Write the shipped file into a directory, with a certificate of our own.  Returns its path."""
    certificate, key = make_certificate(directory, (CLICK, POSTBACK))
    text = (DEPLOY / "caddy" / "Caddyfile").read_text()
    text = replace(text, r"/var/log/caddy/postbackd\.log", f"{directory}/access.log")
    text = replace(
        text, r"\A((?:#.*\n|\n)*\{)", rf"\1\n\tadmin off\n\thttps_port {ports[0]}\n\thttp_port {ports[1]}"
    )
    text = replace(text, r"^(https://\S+ \{)", rf"\1\n\tbind 127.0.0.1\n\ttls {certificate} {key}")
    text = replace(text, r"^(http://\S+ \{)", r"\1\n\tbind 127.0.0.1")
    named = " ".join(f"{host}:{port}" for host, port in servers)
    text = replace(text, r"reverse_proxy 127\.0\.0\.1:8080 127\.0\.0\.1:8081", f"reverse_proxy {named}")
    if trusted:
        text = replace(text, r"^.*header_up X-Forwarded-For .*$", f"\t\ttrusted_proxies {trusted}")
    path = directory / "Caddyfile"
    path.write_text(change(text))
    return path


def _name_servers(text: str, line: str, new: str, servers: Sequence[Address]) -> str:
    """Put these servers into the places of the shipped ones, of which there are two; more places fall away."""
    places = re.findall(line, text, flags=re.MULTILINE)
    assert len(places) == 2, places
    left = list(enumerate(servers, 1))

    def name(_: re.Match[str]) -> str:
        if not left:
            return "    # server"
        n, (host, port) = left.pop(0)
        return new.format(f"{host}:{port}", n=n)

    return re.sub(line, name, text, flags=re.MULTILINE)


@contextmanager
def nginx(
    directory: Path, servers: Sequence[Address], trusted: str = "", change: Change = str
) -> Iterator[Front]:
    """nginx on the shipped files."""
    program, ports = need("nginx"), (free_port(), free_port())
    main = lay_nginx(directory, servers, ports, trusted, change)
    command = [program, "-p", str(directory), "-c", str(main), "-e", str(directory / "start.log")]
    with _running("nginx", command, directory, ports, directory / "output.log") as front:
        yield front


@contextmanager
def haproxy(
    directory: Path, servers: Sequence[Address], trusted: str = "", change: Change = str
) -> Iterator[Front]:
    """HAProxy on the shipped file."""
    program, ports = need("haproxy"), (free_port(), free_port())
    path = lay_haproxy(directory, servers, ports, trusted, change)
    with _running(
        "haproxy", [program, "-db", "-f", str(path)], directory, ports, directory / "access.log"
    ) as f:
        yield f


@contextmanager
def caddy(
    directory: Path, servers: Sequence[Address], trusted: str = "", change: Change = str
) -> Iterator[Front]:
    """Caddy on the shipped file."""
    program, ports = need("caddy"), (free_port(), free_port())
    path = lay_caddy(directory, servers, ports, trusted, change)
    command = [program, "run", "--adapter", "caddyfile", "--config", str(path)]
    homes = {name: str(directory) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    with _running("caddy", command, directory, ports, directory / "start.log", homes) as front:
        yield front


Maker = Callable[..., AbstractContextManager[Front]]

MAKERS: dict[str, Maker] = {"nginx": nginx, "haproxy": haproxy}
"""Those that send a request to another server when one fails."""

ALL_MAKERS: dict[str, Maker] = {**MAKERS, "caddy": caddy}


@contextmanager
def _running(
    name: str,
    command: list[str],
    directory: Path,
    ports: tuple[int, int],
    output: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Front]:
    env = {**os.environ, **(environment or {})}
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=env
        )
    front = Front(name, *ports, directory, directory / "certificate.pem")
    try:
        wait_until(lambda: process.poll() is not None or _accepts(ports), 20, f"the start of {name}")
        assert process.poll() is None, front.everything_written()
        yield front
    finally:
        process.terminate()
        process.wait(timeout=30)


def _accepts(ports: Sequence[int]) -> bool:
    try:
        for port in ports:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def check(name: str, path: Path) -> None:
    """Let the program judge its configuration."""
    if name == "nginx":
        options = ["-t", "-p", str(path.parent), "-c", str(path), "-e", str(path.parent / "start.log")]
    else:
        options = ["-c", "-f", str(path)]
    done = run(need(name), *options)
    assert done.returncode == 0, done.stdout
    assert "warn" not in done.stdout.lower(), done.stdout
