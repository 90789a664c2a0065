"""File systems that a test may pull the plug on or fill: ext4 on a loop file, and a small tmpfs.  Both need root."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.trust.registry import Skip, need_root, need_tools
from tests.trust.server import wait_until

_FS_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
"""EXT4_GOING_FLAGS_NOLOGFLUSH: neither dirty pages nor the journal in memory reach the device."""


_BUSY_DEADLINE_S = 15


def _run(*command: str) -> None:
    environment = os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def _unmount(path: Path) -> None:
    """Unmount; a process that was killed a moment ago may still be leaving."""
    last: list[OSError] = []

    def unmounted() -> bool:
        try:
            _run("umount", str(path))
        except OSError as error:
            last[:] = [error]
            return False
        return True

    try:
        wait_until(unmounted, _BUSY_DEADLINE_S, f"unmounting {path}")
    except TimeoutError as error:
        raise last[0] from error


class LoopDisk:
    """An ext4 file system in a file, whose power can be cut."""

    def __init__(self, directory: Path, megabytes: int = 512) -> None:
        """Make and mount it below ``directory``.  Raises ``Skip`` when this machine does not let us."""
        need_root("mounts an ext4 file system on a loop device")
        need_tools("mkfs.ext4", "mount", "umount", "losetup")
        directory.mkdir(parents=True, exist_ok=True)
        self._image = directory / "disk.img"
        self.path = directory / "disk"
        self.path.mkdir(exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(megabytes << 20)
        try:
            _run("mkfs.ext4", "-q", "-F", str(self._image))
            self.mount()
        except OSError as error:
            raise Skip(f"cannot mount ext4 on a loop device: {error}") from error

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    def unmount(self) -> None:
        if os.path.ismount(self.path):
            _unmount(self.path)

    def cut_power(self) -> None:
        """From this call on nothing that is in memory reaches the disk, and every write fails with EIO."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _FS_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(directory)

    def remove(self) -> None:
        self.unmount()
        self._image.unlink(missing_ok=True)


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """A tmpfs of that size, mounted below ``directory``.  Raises ``Skip`` when this machine does not let us."""
    need_root("mounts a small tmpfs")
    need_tools("mount", "umount")
    path = directory / "small"
    path.mkdir(parents=True)
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(path))
    except OSError as error:
        raise Skip(f"cannot mount a tmpfs: {error}") from error
    try:
        yield path
    finally:
        _run("umount", "-l", str(path))


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A file or directory that cannot be written: by its mode, and for root (who may all) by a read-only bind mount."""
    if os.geteuid() != 0:
        mode = path.stat().st_mode
        path.chmod(0o500 if path.is_dir() else 0o400)
        try:
            yield
        finally:
            path.chmod(mode)
        return
    need_tools("mount", "umount")
    try:
        _run("mount", "--bind", str(path), str(path))
        _run("mount", "-o", "remount,ro,bind", str(path))
    except OSError as error:
        raise Skip(f"cannot make a read-only bind mount: {error}") from error
    try:
        yield
    finally:
        _run("umount", "-l", str(path))
