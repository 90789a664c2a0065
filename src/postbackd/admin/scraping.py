"""``/metrics``: what Prometheus is shown, to whoever may read."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from postbackd.admin.calls import name_absence, refuse
from postbackd.admin.endpoints import Scope
from postbackd.admin.identity import Doorkeeper
from postbackd.admin.problems import Problem
from postbackd.reports.metrics import CONTENT_TYPE, Metrics
from postbackd.store.base import Store, StoreUnavailable


def metrics_route(metrics: Metrics, store: Store, doorkeeper: Doorkeeper, now_ms: Callable[[], int]) -> Route:
    """The route; a scrape sends a token with the scope ``read``.  A database that is away is one of the figures."""

    async def scrape(request: Request) -> Response:
        try:
            who = await doorkeeper.identify(request)
            if Scope.READ not in who.scopes:
                raise refuse(Scope.READ, who.kind)
        except Problem as problem:
            return problem.answer()
        except StoreUnavailable as error:  # nobody knows whose token it is
            return name_absence(error).answer()
        return Response(await metrics.collect(store, now_ms()), headers={"Content-Type": CONTENT_TYPE})

    return Route("/metrics", scrape, methods=["GET"])
