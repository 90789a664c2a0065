"""What has to happen around a fork: the parent's files, connections and threads are not the child's.

gunicorn, uWSGI, multiprocessing and ``os.fork`` copy a process with all its memory, but of its threads only the one
that forks.  A client that was used before is as good as new in the child: it takes files of its own with the first
report.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, List
from weakref import WeakSet

if TYPE_CHECKING:
    from postbackd_client.client import Client

_clients: WeakSet[Client] = WeakSet()
_held: List[threading.RLock] = []
_registering = threading.Lock()
_registered = False


def watch(client: Client) -> None:
    """From now on this client survives forks."""
    global _registered  # noqa: PLW0603 - hooks of a process cannot be taken back
    with _registering:
        if not _registered:
            os.register_at_fork(before=_before, after_in_parent=_release, after_in_child=_begin_child)
            _registered = True
        _clients.add(client)


def _before() -> None:
    """No thread is inside SQLite while the process is copied: its locks would stay locked in the child for ever."""
    for client in list(_clients):
        _held.extend(client.lock_for_fork())


def _release() -> None:
    while _held:
        _held.pop().release()


def _begin_child() -> None:
    _held.clear()  # the child gets new ones
    for client in list(_clients):
        client.begin_in_child()
