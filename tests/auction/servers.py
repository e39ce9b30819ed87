"""A slot server in memory, with a clock and chance of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from affinity.model import neutral_model
from affinity.pseudonym import Pseudonymizer
from affinity.record import read_facts
from affinity.settings import Settings as AffinitySettings
from affinity.visitors import VisitorStore
from auction.builder import SnapshotSource, build_snapshot
from auction.receipt import ReceiptLog
from auction.serving import SlotServer
from auction.settings import Settings
from ledger.beacon import BeaconKeys
from ledger.terms import ChargeTerms
from tests.auction.worlds import NOW_MS


class FakeClock:
    """Milliseconds and nanoseconds that only move when told."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def ms(self) -> int:
        return self.now_ms

    def ns(self) -> int:
        return self.now_ms * 1_000_000


class Served:
    """A slot server, what it sealed, and its clock."""

    def __init__(
        self,
        source: SnapshotSource,
        folder: Path | None = None,
        settings: Settings | None = None,
        funds: int = 10**12,
        seal: Callable[[ChargeTerms], str] | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.keys = BeaconKeys({1: bytes(32)}, 1, first_count=0)
        self.visitors = VisitorStore(
            AffinitySettings(audience_size_min=1), Pseudonymizer(bytes(32)), None, read_facts(source.products)
        )
        used = Settings() if settings is None else settings
        count = iter(range(1 << 30))
        self.server = SlotServer(
            bind_model=neutral_model,
            visitors=self.visitors,
            seal=self.keys.seal_beacon if seal is None else seal,
            settings=used,
            key=bytes(range(32)),
            receipts=None if folder is None else ReceiptLog(folder, used),
            clock_ms=self.clock.ms,
            clock_ns=self.clock.ns,
            entropy=lambda: next(count).to_bytes(10, "big"),
        )
        self.server.swap(build_snapshot(source))
        for advertiser_id in self.server.market.snapshot.advertiser_id:
            self.server.apply_funds(advertiser_id, funds)

    def fill(self, asked: Any) -> Any:
        """Fill a page now."""
        return self.server.fill(asked, self.clock.now_ms)
