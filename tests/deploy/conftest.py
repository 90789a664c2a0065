"""Front ends before servers that note what reaches them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.deploy.fronts import MAKERS, Answer, Change, Front
from tests.deploy.recorder import Recorder, Seen, recorder


@dataclass(frozen=True)
class Scene:
    """A front end and the two servers behind it."""

    front: Front
    servers: tuple[Recorder, Recorder]

    def seen(self) -> list[Seen]:
        """What has reached either server since the last time."""
        return [one for server in self.servers for one in server.take()]

    def pass_on(self, host: str, target: str, **headers: str) -> tuple[Answer, Seen]:
        """A GET that has to reach a server."""
        self.seen()
        answer = self.front.ask(host, target, "GET", None, **headers)
        (seen,) = self.seen()
        return answer, seen


class Scenes:
    """Makes front ends of one kind; those that are not changed are shared."""

    def __init__(self, kind: str, factory: pytest.TempPathFactory, stack: ExitStack) -> None:
        self.kind = kind
        self._factory = factory
        self._stack = stack
        self._made: dict[str, Scene] = {}

    def make(self, trusted: str = "", change: Change = str) -> Scene:
        servers = (self._stack.enter_context(recorder()), self._stack.enter_context(recorder()))
        directory = self._factory.mktemp(self.kind)
        addresses = [server.address for server in servers]
        front = self._stack.enter_context(MAKERS[self.kind](directory, addresses, trusted, change))
        return Scene(front, servers)

    def usual(self) -> Scene:
        """As shipped: nobody is trusted."""
        if "usual" not in self._made:
            self._made["usual"] = self.make()
        scene = self._made["usual"]
        scene.seen()
        return scene


@pytest.fixture(scope="module", params=sorted(MAKERS))
def scenes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    with ExitStack() as stack:
        yield Scenes(request.param, tmp_path_factory, stack)


@pytest.fixture
def scene(scenes: Scenes) -> Scene:
    return scenes.usual()
