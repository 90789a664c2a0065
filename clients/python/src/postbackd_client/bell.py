"""How one thread wakes another, from wherever it is."""

from __future__ import annotations

from queue import Empty, SimpleQueue


class Bell:
    """Wakes the one thread that waits for it.

    May be rung from a signal handler or a destructor that has interrupted this very ringing: the lock inside a
    ``threading.Event`` would then wait for itself, and the shop's request with it.
    """

    def __init__(self) -> None:
        self._rings: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        if self._rings.empty():
            self._rings.put(None)

    def wait(self, timeout_s: float) -> None:
        """Until it rings, or so long; that it has rung is forgotten."""
        try:
            self._rings.get(timeout=max(0.0, timeout_s))
        except Empty:
            return
        self.silence()

    def silence(self) -> None:
        """Forget that it has rung."""
        while not self._rings.empty():
            self._rings.get()
