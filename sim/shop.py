"""The server's own parts in one process, on a simulated clock: what fills pages, keeps visitors and bills.

Nothing here decides: it composes the packages as the server does, and hands them the world's time, chance and
predictions.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct

from affinity.matching import Happening
from affinity.model import BoundModel, Ranked
from affinity.navigation import NavigationBatch, NavigationEvent
from affinity.pseudonym import Pseudonymizer
from affinity.record import read_facts
from affinity.settings import Settings as AffinitySettings
from affinity.view import NO_AFFINITY, NO_PPMS, NO_ROWS
from affinity.visitors import VisitorStore
from auction.builder import SnapshotSource, build_snapshot
from auction.receipt import ReceiptLog
from auction.request import Fill, SlotRequest, SlotResponse
from auction.serving import SlotServer
from auction.settings import Settings as AuctionSettings
from ledger.beacon import BeaconKeys
from ledger.event import EventType, ReportedEvent
from ledger.spend import SpendUpdate
from ledger.terms import NO_VISITOR
from sim.agent import Agent
from sim.chance import Int64s, Stream, key_of
from sim.result import Books
from sim.site import CURRENCY
from sim.till import Till
from sim.world import World

RECEIPT_SETTINGS = AuctionSettings(receipt_bytes_max=8_000_000_000, receipt_queue_max=1_000_000)


class Billed(Struct, frozen=True):
    """What the ledger made of the event a paid fill is charged for.

    Attributes:
        price_micros: what the beacon promised.
        amount_micros: what was billed of it.
        is_hostile: a rival clicked, not a visitor.
    """

    session_row: int
    placement_id: str
    fill: Fill
    price_micros: int
    amount_micros: int
    is_hostile: bool


class WorldModel(BoundModel):
    """A model that predicts what the world says this retailer would: the truth, off by its own noise."""

    def __init__(self, product_ids: Sequence[str], base_quality_ppm: Int64s) -> None:
        super().__init__(product_ids, base_quality_ppm)
        self.name = "world"
        self.ranked = Ranked(NO_ROWS, NO_PPMS, NO_AFFINITY)

    def rank_visitor(self, events: Sequence[Happening], now_ms: int, *_: object) -> Ranked:
        """Return the predictions for the visitor whose page comes next."""
        return self.ranked


class Shop:
    """Serves one simulated market.

    Args:
        source: what the first snapshot is built from.
        world: predictions come from it.
        agents: whose accounts are opened.
        now_ms: when the market begins.
        seed: of ids, keys and ties.
        receipts: folder to keep receipts in, for replay; None keeps none.
    """

    def __init__(
        self,
        source: SnapshotSource,
        world: World,
        agents: Sequence[Agent],
        now_ms: int,
        seed: int,
        receipts: Path | None,
    ) -> None:
        self._now_ms = now_ms
        keys = self._keys = BeaconKeys({1: _secret(seed, "beacons")}, 1, first_count=0)
        self._visitors = VisitorStore(
            AffinitySettings(
                visitor_count_max=world.visitor_count + 1,
                visitor_ready_count_max=world.visitor_count + 1,
                audience_size_min=0,  # nobody is real
            ),
            Pseudonymizer(_secret(seed, "visitors")),
            None,
            read_facts(source.products),
        )
        ids = [product.product_id for product in world.products]
        in_snapshot = np.argsort(np.array(ids, dtype=object))  # a snapshot's products are in the order of their ids
        self._snapshot_row = np.empty(len(ids), np.int64)
        self._snapshot_row[in_snapshot] = np.arange(len(ids))
        self._model = WorldModel([ids[row] for row in in_snapshot], world.average_click_ppm(in_snapshot))
        self._receipts = None if receipts is None else ReceiptLog(receipts, RECEIPT_SETTINGS, f"{seed:020d}")
        self._server = SlotServer(
            bind_model=lambda *_: self._model,
            visitors=self._visitors,
            seal=keys.seal_beacon,
            settings=RECEIPT_SETTINGS,
            key=_secret(seed, "ties"),
            receipts=self._receipts,
            clock_ms=lambda: self._now_ms,
            clock_ns=lambda: 0,  # a page never waits too long here
            entropy=_entropy(Stream(key_of(seed, "auctions"))),
        )
        self._spent: dict[tuple[str, str], int] = {}
        self._waiting: list[tuple[ReportedEvent, Fill, int, str, bool]] = []
        self._event_count = 0
        self._till = Till(keys, CURRENCY, source.time_zone, lambda: self._now_ms, self._take_over)
        self.swap(source)
        for agent in agents:
            self._till.open_account(
                agent.advertiser_id,
                agent.campaign_id,
                agent.group.daily_budget_micros,
                agent.group.total_budget_micros,
                agent.funds_micros,
            )

    @property
    def waiting_count(self) -> int:
        """Count the events the ledger has not seen yet."""
        return len(self._waiting)

    def set_clock(self, now_ms: int) -> None:
        """Go on to a later moment."""
        self._now_ms = now_ms

    def swap(self, source: SnapshotSource) -> None:
        """Bring other bids live."""
        self._server.swap(build_snapshot(source))

    def note(self, event: NavigationEvent) -> None:
        """Take in what the site reports of a visitor who consented."""
        self._visitors.post(NavigationBatch(events=[event]), self._now_ms)

    def predict(self, rows: Int64s, predicted_ppm: Int64s) -> None:
        """Set what the model says of the visitor whose page comes next."""
        own = self._snapshot_row[rows]
        order = np.argsort(own)
        self._model.ranked = Ranked(own[order].astype(np.int32), predicted_ppm[order], np.zeros(len(order), np.float32))

    def fill(self, request: SlotRequest) -> SlotResponse:
        """Fill a page now."""
        return self._server.fill(request, self._now_ms)

    def report(
        self, fill: Fill, event_type: EventType, session_row: int, placement_id: str, *, is_hostile: bool = False
    ) -> None:
        """Send a beacon; the ledger takes it with the next batch, what serving learns from it is known at once."""
        self._event_count += 1
        terms = self._keys.redeem_beacon(fill.beacon_token, self._now_ms).terms
        self._server.note_event(terms, event_type is EventType.CLICK, self._now_ms)
        event = ReportedEvent(event_id=f"e{self._event_count}", type=event_type, beacon_token=fill.beacon_token)
        self._waiting.append((event, fill, session_row, placement_id, is_hostile))

    def note_sale(self, fill: Fill, amount_micros: int) -> None:
        """Tell serving of an order of a product that was clicked, which is how campaigns with a target learn of it."""
        terms = self._keys.redeem_beacon(fill.beacon_token, self._now_ms).terms
        if terms.visitor_pseudonym != NO_VISITOR:
            self._server.note_order([terms.visitor_pseudonym], fill.product_id, amount_micros, self._now_ms)

    def settle(self) -> list[Billed]:
        """Let the ledger commit what waits, and return what became of events that are charged for, each once."""
        waiting, self._waiting = self._waiting, []
        if self._receipts is not None:
            self._receipts.write()
        if not waiting:
            return []
        results = self._till.record([one[0] for one in waiting])
        return [
            Billed(
                session_row, placement_id, fill, fill.clearing_price_micros or 0, result.amount_micros or 0, is_hostile
            )
            for result, (event, fill, session_row, placement_id, is_hostile) in zip(results, waiting, strict=True)
            if fill.charge_on == event.type.value and result.result != "duplicate"
        ]

    def spent_on_day_micros(self, campaign_id: str, day: str) -> int:
        """Return what the ledger billed to a campaign on a day."""
        return self._spent.get((campaign_id, day), 0)

    def close(self) -> Books:
        """Return what the books say at the end."""
        return self._till.close()

    def _take_over(self, update: SpendUpdate) -> None:
        """Hand on what a commit moved to what decides who may be served."""
        for one in update.campaigns:
            self._spent[one.campaign_id, one.day] = one.spent_day_micros
            self._server.apply_campaign(one.campaign_id, one.day, one.spent_day_micros, one.spent_total_micros)
        for funds in update.funds:
            self._server.apply_funds(funds.advertiser_id, funds.funds_micros)


def _secret(seed: int, name: str) -> bytes:
    """Return 32 bytes for a key of a simulated deployment, which has no secrets."""
    return b"".join(key_of(seed, name, part).to_bytes(8, "big") for part in range(4))


def _entropy(stream: Stream) -> Callable[[], bytes]:
    return lambda: stream.next().to_bytes(10, "big")
