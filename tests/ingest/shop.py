"""The front door on a real socket over a real store, in a thread of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import urlencode

import apsw

from postbackd.core.click_id import StampMint
from postbackd.core.consent import Consent
from postbackd.core.model import Campaign, Network, Offer, Source, WeightedOffer
from postbackd.ingest.catalog import Snapshot
from postbackd.ingest.client import Entrance
from postbackd.ingest.front_door import FrontDoor
from postbackd.store.sqlite import SqliteStore
from tests.ingest.wire import Answer

T = TypeVar("T")
E = TypeVar("E", Network, Source, Offer, Campaign)

DEADLINE_S = 20.0
FILE_NAME = "postbackd.db"
KEY = "kEyOfTheNetwork0123456789"


def wait_until(condition: Callable[[], T], what: str) -> T:
    """Poll until the condition is true; returns what it said."""
    ends = monotonic() + DEADLINE_S
    while not (answer := condition()):
        assert monotonic() < ends, f"{what} did not happen within {DEADLINE_S} s"
        Event().wait(0.005)
    return answer


class Shop:
    """A server with one campaign, and the client that asks it."""

    def __init__(
        self,
        directory: Path,
        queue_limit: int = 10_000,
        entrance: Entrance | None = None,
        consent: Consent | None = None,
    ) -> None:
        self.directory = directory
        self.consent = consent
        self.queue_limit = queue_limit
        self.entrance = entrance or Entrance()
        self._editor = asyncio.run(SqliteStore.open(directory, create=True, busy_timeout_ms=5000))
        self.network = self.save(Network(id=0, name="net", key=KEY))
        self.source = self.save(Source(id=0, name="ads"))
        self.offer = self.save(
            Offer(id=0, name="shoes", network=self.network.id, url="https://shop.example/?sub1={click_id}")
        )
        self.campaign = self.save(
            Campaign(
                id=0, name="summer", slug="c1", source=self.source.id, offers=(WeightedOffer(self.offer.id),)
            )
        )
        self.generation = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._ready = Event()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self._thread.start()
        assert self._ready.wait(DEADLINE_S)
        self.client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)

    async def _serve(self) -> None:
        """As ``runtime`` builds the ingest role, without its signals."""
        self._stop = asyncio.Event()
        store = await SqliteStore.open(self.directory, create=False, busy_timeout_ms=30)
        store.sync_beside()
        snapshot = Snapshot(await store.load_catalog(), self.entrance.open_secret)
        mint = StampMint(0, await store.last_stamp())
        self.door = FrontDoor(
            store, snapshot, mint, self.queue_limit, 1024, entrance=self.entrance, consent=self.consent
        )
        await self.door.start(self._listening)
        tending = asyncio.ensure_future(self.door.tend())
        self._ready.set()
        await self._stop.wait()
        await self.door.stop()
        tending.cancel()
        await asyncio.wait([tending])
        await store.close()

    def close(self) -> None:
        self.client.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()
        asyncio.run(self._editor.close())

    # --- the catalog and the database, beside the server -----------------------------------------------------------

    def save(self, entry: E) -> E:
        return self._run(self._editor.save(entry))  # type: ignore[return-value]

    def _run(self, verb: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(verb)

    def publish(self, *entries: E) -> None:
        """Change the catalog and wait until the server knows it."""
        for entry in entries:
            self.save(entry)
        generation = self._run(self._editor.catalog_generation())
        wait_until(lambda: self.door._snapshot.generation == generation, "the new catalog")

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """What is stored, seen by another program."""
        db = apsw.Connection(str(self.directory / FILE_NAME))
        try:
            cursor = db.execute(sql, values)
            names = [column[0] for column in cursor.description] if sql else []
            return [dict(zip(names, row, strict=True)) for row in cursor]
        except apsw.ExecutionCompleteError:
            return []
        finally:
            db.close()

    def count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])

    # --- the client ---------------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        self.client.request(method, path, body, dict(headers or {}))
        response = self.client.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def post(self, path: str, body: bytes | str, content_type: str = "application/json") -> Answer:
        return self.ask("POST", path, body, {"Content-Type": content_type})

    def click(self, **parameters: str) -> str:
        """The id of a new click."""
        answer = self.get(f"/c/c1?{urlencode(parameters)}")
        assert answer.status == 302
        return answer.headers["location"].partition("sub1=")[2][:26]

    def postback(self, **parameters: str) -> dict[str, Any]:
        """The document that answers a postback."""
        answer = self.get(f"/p/{KEY}?{urlencode(parameters)}")
        assert answer.status == 200
        document: dict[str, Any] = json.loads(answer.body)
        assert document["verdict"] == answer.headers["postbackd-verdict"]
        assert document["request"] == answer.headers["x-request-id"]
        return document
