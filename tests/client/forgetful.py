"""The control: the Flask shop with a client that keeps what it has to send in its memory alone."""

from __future__ import annotations

import os
import queue
import threading
from typing import Any

import flask_shop  # type: ignore[import-not-found]

from postbackd_client import Client, Conversion


class Forgetful:
    """Sends in the background and tries again, as the real one does; a killed process forgets what it had."""

    def __init__(self) -> None:
        self._client = Client(os.environ["POSTBACK_URL"])
        self._waiting: queue.Queue[Conversion] = queue.Queue()
        self._started = threading.Lock()
        self._pause = threading.Event()

    def conversion(self, click_id: str, **fields: Any) -> None:
        self._waiting.put(Conversion(click_id, **fields))
        if self._started.acquire(blocking=False):
            threading.Thread(target=self._send, daemon=True).start()

    def _send(self) -> None:
        while True:
            conversion = self._waiting.get()
            while not self._client.deliver(conversion).settled:
                self._pause.wait(0.05)


flask_shop.client = Forgetful()
app = flask_shop.app
