"""A keeper of certificates on a shelf of its own, before a scripted authority."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from postbackd.store.shelf import FileShelf
from postbackd.tls.call import Caller
from postbackd.tls.documents import (
    CERTIFICATE,
    TROUBLE,
    Binding,
    Held,
    Plan,
    Trouble,
    load_document,
    read_certificate,
)
from postbackd.tls.keeper import Keeper
from tests.tls.scripted import Scripted

NAMES = ["a.example", "b.example"]


class Desk:
    """A keeper on a shelf of its own, whose clock the test sets."""

    def __init__(self, directory: Path, scripted: Scripted, root: Path) -> None:
        self.directory = directory
        self.scripted = scripted
        self.root = root
        self.ahead_ms = 0
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.ahead_ms

    def keeper(
        self,
        names: list[str] | None = None,
        url: str = "",
        challenge: str = "http-01",
        binding: Binding | None = None,
    ) -> Keeper:
        address = url or f"{self.scripted.base}/dir"
        plan = Plan(address, names or NAMES, "me@a.example", challenge, binding)
        return Keeper(
            FileShelf(self.directory),
            plan,
            lambda: Caller(str(self.root)),
            self.now_ms,
            lambda: 0.5,
            self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def turn(self, keeper: Keeper | None = None) -> float:
        return asyncio.run((keeper or self.keeper()).turn())

    @property
    def held(self) -> Held | None:
        return asyncio.run(self._held())

    async def _held(self) -> Held | None:
        return read_certificate(await FileShelf(self.directory).load(CERTIFICATE))

    @property
    def trouble(self) -> Trouble | None:
        return asyncio.run(load_document(FileShelf(self.directory), TROUBLE, Trouble))

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()}
