"""Debian's pebble: an authority that validates for real and makes its clients' life hard on purpose."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.tls.issuer import Issuer
from tests.trust.server import free_port, wait_until

PROGRAMS = ("pebble", "pebble-challtestsrv")


def missing_programs() -> list[str]:
    """Which of the programs are not here (apt-get install pebble)."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Pebble:
    """The authority, and the name server by which it finds every name on loopback."""

    def __init__(
        self, directory: Path, http_port: int, *, bad_nonces: int = 50, life_s: int = 90 * 86_400,
        env: Mapping[str, str] | None = None, tls_port: int | None = None,
        bindings: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """``http_port``, ``tls_port``: where it looks for answers; ``bad_nonces``: of a hundred good nonces so many are
        refused; ``bindings``: key id -> key in base64, of which every account needs one.
        """
        directory.mkdir(parents=True)
        self._directory = directory
        self._env = {
            **os.environ,
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_WFE_NONCEREJECT": str(bad_nonces),
            **(env or {}),
        }
        self.port, self._management, self._dns = free_port(), free_port(), free_port()
        issuer = Issuer()
        chain, key = issuer.make("localhost")
        (directory / "chain.pem").write_bytes(chain)
        (directory / "key.pem").write_bytes(key)
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(issuer.root)
        self.roots = directory / "roots.pem"
        """What clients of its certificates trust: the roots of every start."""
        self.log = directory / "log"
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(directory / "chain.pem"),
            "privateKey": str(directory / "key.pem"),
            "httpPort": http_port,
            "tlsPort": tls_port or free_port(),
            "certificateValidityPeriod": life_s,
            "externalAccountBindingRequired": bindings is not None,
            "externalAccountMACKeys": dict(bindings or {}),
        }
        (directory / "config.json").write_text(json.dumps({"pebble": settings}))
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def options(self) -> list[str]:
        """For a server that uses it."""
        return ["--acme-directory", self.url, "--acme-ca-file", str(self.ca_file)]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/dir"

    @property
    def orders(self) -> int:
        """How many orders were made since it was first started."""
        return self.count("Added order")

    def count(self, words: str) -> int:
        """How often it said something."""
        return self.log.read_text(errors="replace").count(words) if self.log.exists() else 0

    def start(self) -> None:
        names = ["pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]
        names += ["-dns01", f"127.0.0.1:{self._dns}", "-http01", "", "-https01", "", "-tlsalpn01", ""]
        names += ["-management", f"127.0.0.1:{free_port()}"]
        pebble = [
            "pebble",
            "-config",
            str(self._directory / "config.json"),
            "-dnsserver",
            f"127.0.0.1:{self._dns}",
        ]
        with self.log.open("ab") as log:
            for command in (names, pebble):
                self._processes.append(
                    subprocess.Popen(command, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                )
        wait_until(self._note_root, 20, "pebble's answer")

    def _note_root(self) -> bool:
        """Add its root to those that are trusted; every start makes another."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        try:
            with urllib.request.urlopen(
                f"https://localhost:{self._management}/roots/0", context=context, timeout=5
            ) as answer:
                root: bytes = answer.read()
        except OSError:
            return False
        with self.roots.open("ab") as file:
            file.write(root)
        return True

    def stop(self) -> None:
        """Everything it knew is lost."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()

    def __enter__(self) -> Pebble:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
