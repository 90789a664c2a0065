"""Programs that pip cannot bring, and the shipped files that they are shown."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

FOLDERS = ("nginx", "haproxy", "caddy", "systemd", "docker")
"""The parts of ``deploy`` that are tested here."""

PACKAGES = {
    "chromium": "chromium",
    "promtool": "prometheus",
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "openssl": "openssl",
    "systemd-analyze": "systemd",
    "systemd-sysusers": "systemd",
    "docker-compose": "docker-compose",
    "unshare": "util-linux",
}
"""Program -> Debian's package."""


def need(program: str) -> str:
    """The path of a program.  Skips the test without it, or fails it where everything has to be there."""
    path = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    return path or miss(f"{program} is not installed (apt install {PACKAGES[program]})")


def miss(reason: str) -> NoReturn:
    """This machine lacks something: a skip, or with ``POSTBACKD_TEST_REQUIRE_TOOLS=1`` a failure."""
    if os.environ.get("POSTBACKD_TEST_REQUIRE_TOOLS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def shipped() -> list[Path]:
    """Every file of these folders."""
    return sorted(path for folder in FOLDERS for path in (DEPLOY / folder).rglob("*") if path.is_file())


def run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A short command with its whole output on ``stdout``."""
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, env=env
    )


def make_certificate(directory: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """(certificate, key) for these host names, signed by itself, good for two days."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    done = run(
        need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", f"/CN={names[0]}", "-out", str(certificate), "-keyout", str(key),
        "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return certificate, key
