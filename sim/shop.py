"""The server's own parts in one process, on a simulated clock: what fills pages, keeps visitors and bills.

Nothing here decides: it composes the packages as the server does, and hands them the world's time, chance and
predictions.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from affinity.matching import Happening
from affinity.model import BoundModel, Ranked
from affinity.navigation import NavigationBatch, NavigationEvent
from affinity.pseudonym import Pseudonymizer
from affinity.record import read_facts
from affinity.settings import Settings as AffinitySettings
from affinity.targets import Targets, compile_targets
from affinity.view import NO_AFFINITY
from affinity.visitors import VisitorStore
from auction.builder import SnapshotSource, build_snapshot
from auction.engine import Decision, hold_auction, no_deadline
from auction.market import Market
from auction.request import Fill, PlacementFills, SlotRequest
from auction.settings import Settings as AuctionSettings
from auction.spend import SpendView
from ledger.beacon import BeaconKeys
from ledger.event import EventType, ReportedEvent
from ledger.money import Micros
from ledger.spend import SpendUpdate
from ledger.terms import NO_VISITOR, ChargeTerms, new_id
from sim.agent import Agent
from sim.chance import Int64s, key_of
from sim.result import Books
from sim.site import CURRENCY
from sim.till import Till
from sim.world import World


class Billed(Struct, frozen=True):
    """What the ledger made of the event a paid fill is charged for.

    Attributes:
        price_micros: what the beacon promised.
        amount_micros: what was billed of it.
    """

    session_row: int
    placement_id: str
    fill: Fill
    price_micros: int
    amount_micros: int


class WorldModel(BoundModel):
    """A model that predicts what the world says this retailer would: the truth, off by its own noise."""

    def __init__(self, product_ids: Sequence[str], base_quality_ppm: Int64s) -> None:
        super().__init__(product_ids, base_quality_ppm)
        self.ranked = Ranked(np.zeros(0, np.int32), np.zeros(0, np.int64), NO_AFFINITY)

    def rank_visitor(self, events: Sequence[Happening], now_ms: int) -> Ranked:
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
    """

    def __init__(self, source: SnapshotSource, world: World, agents: Sequence[Agent], now_ms: int, seed: int) -> None:
        self._now_ms = now_ms
        self._seed = seed
        self._keys = BeaconKeys({1: key_of(seed, "beacons").to_bytes(8, "big") * 4}, 1, first_count=0)
        self._visitors = VisitorStore(
            AffinitySettings(visitor_count_max=world.visitor_count + 1),
            Pseudonymizer(key_of(seed, "visitors").to_bytes(8, "big") * 2),
            None,
            read_facts(source.products),
        )
        ids = [product.product_id for product in world.products]
        rows = np.argsort(np.array(ids))  # a snapshot's products are in the order of their ids
        self._snapshot_row = np.empty(len(ids), np.int64)
        self._snapshot_row[rows] = np.arange(len(ids))
        self._model = WorldModel([ids[row] for row in rows], world.average_click_ppm(rows.astype(np.int64)))
        self._settings = AuctionSettings()
        self._targets = Targets([], [])
        self._spent: dict[tuple[str, str], int] = {}
        snapshot = build_snapshot(source)
        self._market = Market(snapshot, self._model)
        self._spend = SpendView(self._settings, snapshot)
        self._auction_count = 0
        self._waiting: list[tuple[ReportedEvent, Fill, int, str]] = []
        self._till = Till(self._keys, CURRENCY, source.time_zone, lambda: self._now_ms, self._take_over)
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
        snapshot = build_snapshot(source)
        spec = snapshot.targets_spec
        self._targets = compile_targets(spec.audiences, spec.patterns, self._targets)
        self._market = Market(snapshot, self._model)
        self._spend.bind(snapshot)

    def note(self, event: NavigationEvent) -> None:
        """Take in what the site reports of a visitor who consented."""
        self._visitors.post(NavigationBatch(events=[event]), self._now_ms)

    def predict(self, rows: Int64s, predicted_ppm: Int64s) -> None:
        """Set what the model says of the visitor whose page comes next."""
        own = self._snapshot_row[rows]
        order = np.argsort(own)
        self._model.ranked = Ranked(own[order].astype(np.int32), predicted_ppm[order], np.zeros(len(order), np.float32))

    def fill(self, request: SlotRequest) -> list[PlacementFills]:
        """Fill a page now."""
        now_ms = self._now_ms
        if now_ms >= self._spend.refresh_at_ms:
            self._spend.refresh(now_ms)
        visitor = self._visitors.view(request.visitor_id, request.consent, self._targets, self._model, now_ms)
        self._auction_count += 1
        entropy = key_of(self._seed, "auction", self._auction_count)
        auction_id = new_id("auc", now_ms, entropy.to_bytes(10, "big"))
        outcome = hold_auction(
            request,
            auction_id,
            self._market,
            visitor,
            self._spend,
            no_deadline(now_ms),
            entropy,
            self._settings,
        )
        return [
            PlacementFills(
                place.placement_id,
                place.no_fill_reason,
                [self._fill(place.placement_id, one, auction_id, visitor.pseudonym) for one in place.decisions],
            )
            for place in outcome.places
        ]

    def report(self, fill: Fill, event_type: EventType, session_row: int, placement_id: str) -> None:
        """Send a beacon; the ledger takes it with the next batch."""
        event_id = f"{session_row}-{len(self._waiting)}-{self._now_ms}-{event_type}"
        event = ReportedEvent(event_id=event_id, type=event_type, beacon_token=fill.beacon_token)
        self._waiting.append((event, fill, session_row, placement_id))

    def settle(self) -> list[Billed]:
        """Let the ledger commit what waits, and return what became of events that are charged for."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        results = self._till.record([event for event, _, _, _ in waiting])
        return [
            Billed(session_row, placement_id, fill, fill.clearing_price_micros or 0, result.amount_micros or 0)
            for result, (event, fill, session_row, placement_id) in zip(results, waiting, strict=True)
            if fill.charge_on == event.type.value
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
            self._spend.apply_campaign(one.campaign_id, one.day, one.spent_day_micros, one.spent_total_micros)
        for funds in update.funds:
            self._spend.apply_funds(funds.advertiser_id, funds.funds_micros)

    def _fill(self, placement_id: str, decision: Decision, auction_id: str, pseudonym: bytes) -> Fill:
        snapshot = self._market.snapshot
        product_id = snapshot.product_id[decision.product_row]
        if decision.charge_on is None:
            return Fill(decision.slot_position, product_id, False, None, None, None, None, None, None, "", None)
        offer = snapshot.columns.offer[decision.offer_row]
        advertiser_id = snapshot.advertiser_id[offer["advertiser_row"]]
        campaign_id = snapshot.campaign_id[offer["campaign_row"]]
        bid_id = snapshot.bid_id[int(offer["bid_row"])]
        if bid_id in snapshot.names.frequency_caps and pseudonym != NO_VISITOR:
            self._visitors.note_served(pseudonym, bid_id, self._now_ms)
        terms = ChargeTerms(
            auction_id,
            placement_id,
            decision.slot_position,
            product_id,
            True,
            advertiser_id,
            campaign_id,
            bid_id,
            decision.charge_on,
            Micros(decision.price_micros),
            decision.quality_ppm,
            pseudonym,
            None,
            self._now_ms,
        )
        return Fill(
            decision.slot_position,
            product_id,
            True,
            advertiser_id,
            campaign_id,
            bid_id,
            decision.charge_on,
            decision.price_micros,
            CURRENCY,
            self._keys.seal_beacon(terms),
            None,
        )
