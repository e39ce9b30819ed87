"""A small deployment for tests: a migrated database, a clock one can move, a key for every role, an application."""

import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal
from sqlalchemy.engine import Connection
from starlette.testclient import TestClient

from affinity.settings import Settings as AffinitySettings
from bidder_api.access import Role, derive_secret
from bidder_api.database import Database
from bidder_api.keys import KeyDraft, make_key
from bidder_api.serving import Serving, compose
from bidder_api.settings import AllSettings, Settings, beacon_keys
from bidder_api.snapshots import SnapshotBuilder
from bidder_api.store import Deployment, insert_deployment
from bidder_api.table import OPERATIONS
from ledger.beacon import BeaconKeys
from ledger.pipe import Intake, LocalIntake
from ledger.spend import OnSpend
from ledger.writer import LedgerWriter

RETAILER = "retailer"
HASH_KEY = derive_secret(bytes.fromhex("5e" * 32), "access keys")
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

    def __init__(
        self, database: Database, client: TestClient, clock: FakeClock, serving: Serving, builder: SnapshotBuilder
    ) -> None:
        self.database = database
        self.client = client
        self.clock = clock
        self.serving = serving
        self.keyring = serving.keyring
        self.operations = OPERATIONS
        self._builder = builder
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

    def publish(self) -> None:
        """Build a snapshot of what there is and serve from it."""
        news = self._builder.build_if_changed()
        if news is not None:
            self.portal.call(self.serving.hear, news)

    @property
    def portal(self) -> BlockingPortal:
        """Return the way onto the application's event loop."""
        assert self.client.portal is not None
        return self.client.portal

    def wait_started(self) -> None:
        """Wait until the application has read what the database and the log hold."""
        ends = time.monotonic() + 30
        while "visitors" in self.serving.readiness.pending and time.monotonic() < ends:
            time.sleep(0.01)

    def read(self, work: Callable[[Connection], Any]) -> Any:
        """Look at the database."""
        return self.database.read(work)


@contextmanager
def world_over(database: Database, affinity: AffinitySettings | None = None, **settings: Any) -> Iterator[World]:
    """Yield everything of a serving process over a migrated database, the ledger's writer beside it in a thread."""
    clock = FakeClock()
    deployment = Deployment(RETAILER, "EUR", "UTC", NOW_MS)
    database.transact(lambda connection: insert_deployment(connection, deployment))
    with tempfile.TemporaryDirectory() as folder:
        everything = AllSettings(
            server=Settings(data_dir=Path(folder), secret_key="5e" * 32, beacon_keys=BeaconKeys.generate(), **settings),
            affinity=affinity or AffinitySettings(),
        )

        @asynccontextmanager
        async def intake_of(on_spend: OnSpend) -> AsyncIterator[Intake]:
            keys = BeaconKeys.parse(beacon_keys(everything.server))
            writer = LedgerWriter(database.transact, database.read, RETAILER, keys, everything.ledger, clock)
            async with LocalIntake(writer, everything.ledger, on_spend, lambda failure: None) as intake:
                yield intake

        serving = compose(everything, database, deployment, intake_of, clock_ms=clock)
        builder = SnapshotBuilder(database, deployment, Path(folder) / "snapshots", clock_ms=clock)
        assert serving.app is not None
        with TestClient(serving.app, base_url="http://endcap.test", raise_server_exceptions=False) as client:
            yield World(database, client, clock, serving, builder)
