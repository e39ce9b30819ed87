"""`/metrics`: what one watches of the process as a whole; each package keeps its own figures beside these."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bidder_api.access import Keyring, Role
from bidder_api.errors import Forbidden, Unauthenticated
from bidder_api.problems import response_to


class ServerMetrics:
    """Figures of the serving process.

    Args:
        registry: where they are kept; one per process, so that tests have their own.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self._management_duration_seconds = Histogram(
            "endcap_management_duration_seconds",
            "Time a management call took, its wait for a thread included.",
            ["operation"],
            registry=registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
        )
        self._problems = Counter("endcap_problems", "Requests refused, by code.", ["code"], registry=registry)
        self.snapshot_failures = Counter(
            "endcap_snapshot_failures", "Snapshots that could not be built or loaded.", registry=registry
        )
        self.ready = Gauge("endcap_ready", "1 when the process can serve.", registry=registry)

    def count_call(self, operation: str, seconds: float) -> None:
        """Count a management call."""
        self._management_duration_seconds.labels(operation).observe(seconds)

    def count_problem(self, code: str) -> None:
        """Count a refusal."""
        self._problems.labels(code).inc()


def routes(metrics: ServerMetrics, keyring: Keyring, mode: str) -> list[Route]:
    """Return the route of `/metrics`: `open`, with an admin's or auditor's `key`, or none at all when `off`."""

    async def show(request: Request) -> Response:
        if mode == "key":
            try:
                await _check(request)
            except (Unauthenticated, Forbidden) as refusal:
                answer = response_to(refusal)
                assert answer is not None
                return answer
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _check(request: Request) -> None:
        authorization = request.headers.get("authorization")
        if authorization is None:
            raise Unauthenticated("key_missing", "this needs a key; send it as: Authorization: Bearer <key>")
        caller = await keyring.identify(authorization.encode("latin-1"))
        if caller.role not in (Role.ADMIN, Role.AUDITOR):
            raise Forbidden("role_not_allowed", f"a key of role {caller.role} may not read the metrics")

    return [] if mode == "off" else [Route("/metrics", show)]
