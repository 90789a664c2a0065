"""A systemd of our own: process 1 in namespaces of its own, with the shipped units and nothing else.

It sees the files of the machine, but /etc, /var/lib, /opt and /run are its own and gone afterwards; so are its network
and its processes.  It needs root and the named control group hierarchy of systemd (cgroup v1 or hybrid).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

from tests.deploy.tools import DEPLOY, ROOT, need
from tests.trust.server import descendants, wait_until

GROUPS = Path("/sys/fs/cgroup/systemd")
PYTHON = Path("/usr/bin/python3")
"""The interpreter must lie outside the homes, which the units hide."""

DISTRIBUTIONS = (
    "apsw",
    "asyncpg",
    "cffi",
    "click",
    "cryptography",
    "httptools",
    "msgspec",
    "tomli_w",
    "uvloop",
)

_TARGETS = ("sysinit", "basic", "network-online", "multi-user", "sockets", "shutdown", "umount", "final")

_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/lock /run/etc /run/etc.work /run/lib /run/lib.work /run/units
umount -R /sys/fs/cgroup
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work /etc
mount -t overlay overlay -o lowerdir=/var/lib,upperdir=/run/lib,workdir=/run/lib.work /var/lib
mount -t tmpfs tmpfs /opt
cp -r {directory}/opt/postbackd /opt/
cp -r {directory}/units/. /run/units/
systemd-sysusers {directory}/sysusers.conf
install -d /etc/postbackd
exec env -i container=other PATH=/usr/bin:/usr/sbin:/bin SYSTEMD_UNIT_PATH=/run/units \
    {systemd} --system --unit=multi-user.target --log-target=console --show-status=no \
    --default-standard-output=inherit
"""

_LAUNCHER = """#!{python}
import os, sys
sys.path.insert(0, "/opt/postbackd/lib")
os.environ["PYTHONPATH"] = "/opt/postbackd/lib"
from postbackd.cli.main import main
main()
"""

_DROP_IN = "[Service]\nWatchdogSec={watchdog_s}\nStandardOutput=append:{log}\nStandardError=append:{log}\n"

_ASK = "import ssl as s, sys, urllib.request as u; sys.stdout.write(str(u.urlopen(sys.argv[1], timeout=20, "
_ASK += "context=s._create_unverified_context()).status))"


def why_not() -> str:
    """What this machine lacks; empty when nothing does."""
    if os.environ.get("POSTBACKD_TEST_SYSTEMD") != "1":
        return "starts a systemd of its own as root; set POSTBACKD_TEST_SYSTEMD=1"
    if os.geteuid() != 0 or not (GROUPS / "cgroup.procs").exists():
        return f"needs root and {GROUPS}"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not PYTHON.resolve().name.endswith(version):
        return f"needs {PYTHON} to be Python {version}, as the wheels that are installed here"
    return ""


class Booted:
    """The running systemd."""

    def __init__(self, pid: int, directory: Path) -> None:
        self.pid = pid
        self.log = directory / "units.log"

    def run(self, *command: str) -> str:
        """What a command inside prints.  Raises ``CalledProcessError``."""
        inside = [
            "nsenter",
            "--target",
            str(self.pid),
            "--mount",
            "--pid",
            "--cgroup",
            "--ipc",
            "--uts",
            "--net",
        ]
        done = subprocess.run([*inside, *command], capture_output=True, text=True, timeout=120, check=True)
        return done.stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit)

    def status(self, port: int, path: str = "/readyz", scheme: str = "http") -> int:
        """The status of a request from inside, 0 without an answer.  Any certificate will do."""
        try:
            return int(self.run(str(PYTHON), "-c", _ASK, f"{scheme}://127.0.0.1:{port}{path}"))
        except subprocess.CalledProcessError:
            return 0

    def role(self, unit: str) -> int:
        """The front door's process under a supervisor, as its number inside."""
        main = self.show(unit, "MainPID")
        return int(self.run("pgrep", "--newest", "--parent", main, "--full", "postbackd ingest"))


@contextmanager
def booted(directory: Path, watchdog_s: int) -> Iterator[Booted]:
    """Boot it with the shipped units, whose watchdogs wait for ``watchdog_s`` only."""
    _lay(directory, watchdog_s)
    group = GROUPS / f"postbackd-test-{os.getpid()}"
    group.mkdir()
    command = [
        need("unshare"),
        "--mount",
        "--pid",
        "--fork",
        "--cgroup",
        "--ipc",
        "--uts",
        "--net",
        "--mount-proc",
    ]
    command = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "boot", *command]
    with (directory / "boot.log").open("wb") as log:
        outside = subprocess.Popen(
            [*command, "sh", str(directory / "boot.sh")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        made = _wait_for(outside, directory)
        yield made
    finally:
        for pid in descendants(outside.pid)[:1]:
            os.kill(pid, signal.SIGKILL)  # process 1 of its namespace: all the others go with it
        outside.wait(30)
        wait_until(lambda: _remove(group), 30, "the end of the control groups")


def _wait_for(outside: subprocess.Popen[bytes], directory: Path) -> Booted:
    def running() -> bool:
        assert outside.poll() is None, (directory / "boot.log").read_text()
        (pid, *_) = descendants(outside.pid) or [0]
        if not pid or b"--system" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return False
        try:
            return Booted(pid, directory).run("systemctl", "is-system-running") == "running"
        except subprocess.CalledProcessError:
            return False

    wait_until(running, 30, "a running systemd")
    return Booted(descendants(outside.pid)[0], directory)


def _remove(group: Path) -> bool:
    try:
        for path in sorted(group.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
        group.rmdir()
    except OSError:
        return False  # a process is still ending
    return True


def _lay(directory: Path, watchdog_s: int) -> None:
    """Everything that the boot copies into its own folders."""
    units = directory / "units"
    units.mkdir()
    for name in _TARGETS:
        (units / f"{name}.target").write_text(f"[Unit]\nDescription={name}\nDefaultDependencies=no\n")
    for path in [*(DEPLOY / "systemd").glob("*.service"), *(DEPLOY / "systemd").glob("*.socket")]:
        shutil.copy(path, units)
        if path.suffix == ".service":
            (units / f"{path.name}.d").mkdir()
            drop_in = _DROP_IN.format(watchdog_s=watchdog_s, log=directory / "units.log")
            (units / f"{path.name}.d" / "test.conf").write_text(drop_in)
    for name in ("sysusers.conf", "postbackd-https.conf"):
        shutil.copy(DEPLOY / "systemd" / name, directory)
    library, programs = directory / "opt/postbackd/lib", directory / "opt/postbackd/.venv/bin"
    library.mkdir(parents=True)
    programs.mkdir(parents=True)
    shutil.copytree(ROOT / "src" / "postbackd", library / "postbackd")
    for name in DISTRIBUTIONS:
        _copy_distribution(name, library)
    (programs / "postbackd").write_text(_LAUNCHER.format(python=PYTHON))
    (programs / "postbackd").chmod(0o755)
    systemd = "/lib/systemd/systemd"
    (directory / "boot.sh").write_text(_BOOT.format(directory=directory, systemd=systemd))


def _copy_distribution(name: str, library: Path) -> None:
    found = distribution(name)
    for file in found.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = library / str(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(found.locate_file(file)), target)
