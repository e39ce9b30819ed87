"""A small deployment for tests: a migrated database, a clock one can move, a key for every role, an application."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy.engine import Connection
from starlette.testclient import TestClient

from bidder_api.access import Keyring, Role
from bidder_api.call import Desk
from bidder_api.database import Database
from bidder_api.keys import KeyDraft, make_key
from bidder_api.metrics import ServerMetrics
from bidder_api.readiness import Readiness
from bidder_api.server import Parts, build_app, management_routes
from bidder_api.settings import Settings
from bidder_api.store import Deployment, insert_deployment
from bidder_api.table import MANAGEMENT

RETAILER = "retailer"
HASH_KEY = b"h" * 32
NOW_MS = 1_795_000_000_000
ORIGIN = "https://shop.example"


class FakeClock:
    """A clock that stands still until it is told."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


class World:
    """An application over a database, and callers of it."""

    def __init__(self, database: Database, client: TestClient, clock: FakeClock, keyring: Keyring) -> None:
        self.database = database
        self.client = client
        self.clock = clock
        self.keyring = keyring
        self.operations = MANAGEMENT
        self._keys: dict[tuple[str, tuple[str, ...]], str] = {}

    def key(self, role: str, *advertiser_ids: str, **draft: Any) -> str:
        """Make a key and return its text."""
        origin = ORIGIN if role == Role.SITE else None
        wanted = KeyDraft(role=Role(role), advertiser_ids=list(advertiser_ids), **{"origin": origin, **draft})
        _record, text = self.database.transact(
            lambda connection: make_key(connection, RETAILER, wanted, HASH_KEY, self.clock())
        )
        return text

    def headers(self, role: str, *advertiser_ids: str) -> dict[str, str]:
        """Return the headers of a caller; the same key each time."""
        if role == Role.ADVERTISER and not advertiser_ids:
            advertiser_ids = ("acme",)
        if role == Role.AGENCY and not advertiser_ids:
            advertiser_ids = ("acme", "brio")
        if (role, advertiser_ids) not in self._keys:
            self._keys[role, advertiser_ids] = self.key(role, *advertiser_ids)
        headers = {"Authorization": f"Bearer {self._keys[role, advertiser_ids]}"}
        return headers | {"Origin": ORIGIN} if role == Role.SITE else headers

    def call(self, method: str, path: str, body: Any = None, *, role: str = "advertiser", **more: Any) -> Any:
        """Make a call in a role and return the answer."""
        tenants = more.pop("tenants", ())
        headers = self.headers(role, *tenants) | more.pop("headers", {})
        named = {"json": body} if body is not None else {}
        return self.client.request(method, path, headers=headers, **named, **more)

    def read(self, work: Callable[[Connection], Any]) -> Any:
        """Look at the database."""
        return self.database.read(work)


@contextmanager
def world_over(database: Database, **settings: Any) -> Iterator[World]:
    """Yield the management API over a migrated database."""
    clock = FakeClock()
    database.transact(lambda connection: insert_deployment(connection, Deployment(RETAILER, "EUR", "UTC", NOW_MS)))
    keyring = Keyring(database, RETAILER, HASH_KEY, clock)
    desk = Desk(database, RETAILER, clock)
    app = build_app(
        Parts(
            settings=Settings(**settings),
            operations=MANAGEMENT,
            surfaces=management_routes(desk, keyring, HASH_KEY, lambda audience, pattern: None),
            keyring=keyring,
            metrics=ServerMetrics(CollectorRegistry()),
            readiness=Readiness(),
        )
    )
    with TestClient(app, base_url="http://endcap.test", raise_server_exceptions=False) as client:
        yield World(database, client, clock, keyring)
