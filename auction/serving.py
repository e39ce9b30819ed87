"""The slot path's surroundings: what it reads, swapped whole, and what each answer leaves behind.

In-memory parts only: no socket, no database. The endpoint, the demo shop and the simulation all use it.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.clicks import ClickCounters, Clicks, ratio_of
from affinity.correction import Corrections, correct
from affinity.kinds import ProductAttributes
from affinity.model import BoundModel
from affinity.product_sets import NO_SETS, ProductSets
from affinity.targets import Targets, compile_targets
from affinity.view import VisitorView
from affinity.visitors import VisitorStore
from auction.booking import BookedSlot
from auction.credit import ClickBook
from auction.engine import NO_LIMITS, Deadline, Decision, Outcome, hold_auction, rehearse
from auction.errors import AuctionGone, AuctionUnknown, NotReady
from auction.experiment import HOLDOUT, Experiment
from auction.explanation import AuctionReceipt, explain_to_advertiser, explain_to_retailer
from auction.kernel import allocate_exactly_nb
from auction.market import Market
from auction.metrics import AuctionMetrics
from auction.quality import LearntQuality
from auction.receipt import ReceiptLog, Waiting, make_note, time_of
from auction.request import Disclosure, Fill, PlacementFills, SlotRequest, SlotResponse
from auction.settings import Settings
from auction.snapshot import Snapshot
from auction.spend import PacingMemory, SpendView
from auction.visitor_limit import sponsored_left
from ledger.money import Micros
from ledger.terms import NO_VISITOR, ChargeOn, ChargeTerms, new_id

PPM = 1_000_000
NS_PER_MS = 1_000_000
LABEL = "Sponsored"
MAIN_PARAMETERS = [
    "the page you are on",
    "how likely the product is to be clicked",
    "what the advertiser bid for the place",
]
PERSONAL_PARAMETERS = [*MAIN_PARAMETERS, "what you did on this site"]
BOOKED = 2
PARAMETERS = [MAIN_PARAMETERS, PERSONAL_PARAMETERS, ["the page you are on", "that the advertiser booked the place"]]

ENTROPY_BYTES = 10
DRAW_COUNT = 400  # times that many bytes of the system's chance are drawn at once: a call costs as much as an id

BindModel = Callable[[Sequence[str], ProductAttributes], BoundModel]
SealBeacon = Callable[[ChargeTerms], str]


class Served(Struct, frozen=True):
    """A snapshot ready to be read: with its model, and the audiences and patterns visitors are looked at for."""

    market: Market
    targets: Targets


class Learnt(Struct, frozen=True):
    """Corrections worked out for a market, ready to be read.

    Attributes:
        clicks: the counters they follow from.
        base_ppm: the model's quality of each counted product now, 0 where it has none.
    """

    market: Market
    clicks: Clicks
    base_ppm: NDArray[np.float64]
    corrections: Corrections
    qualities: dict[str, LearntQuality]


class _Held(Struct, frozen=True):
    """An auction that was held, as its fills need it."""

    auction_id: str
    now_ms: int
    market: Market
    spend: SpendView
    visitor: VisitorView
    variant: str | None
    is_known: bool  # the visitor consented and has an id, so that what was shown to them is counted


class SlotServer:
    """Fills pages. One thread at a time.

    Args:
        bind_model: binds the current model to products, such as `AffinityModel.bind` or `neutral_model`.
        visitors: what is known of them.
        seal: seals a beacon, such as `BeaconKeys.seal_beacon`.
        settings: this package's.
        key: 16 to 64 secret bytes that draw ties and the holdout.
        receipts: where receipts go; None keeps none.
        metrics: what is counted.
        clock_ms: UTC, milliseconds since 1970.
        clock_ns: monotonic.
        entropy: 10 bytes of chance for each auction's id; the system's, if left out.
    """

    def __init__(
        self,
        *,
        bind_model: BindModel,
        visitors: VisitorStore,
        seal: SealBeacon,
        settings: Settings,
        key: bytes,
        receipts: ReceiptLog | None = None,
        metrics: AuctionMetrics | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        entropy: Callable[[], bytes] | None = None,
    ) -> None:
        self.visitors = visitors
        self.settings = settings
        self.receipts = receipts
        self.metrics = AuctionMetrics() if metrics is None else metrics
        self.clock_ms, self.clock_ns = clock_ms, clock_ns
        self.experiment = Experiment(settings, key)
        self.paid_pause_reason: str | None = None  # set while charges cannot be recorded: organic fills only
        self.served: Served | None = None
        self._spend: SpendView | None = None
        self._memory: PacingMemory | None = None
        self.counters = ClickCounters(visitors.settings)
        self._corrections: Corrections | None = None
        self._corrected_count = 0
        self._credits = ClickBook(settings.credit_window_s * 1000)
        visitors.also_forget.append(self._credits.forget)
        self._early_spend: list[Callable[[SpendView], None]] = []
        self._bind_model = bind_model
        self._seal = seal
        self._entropy = drawn_ahead(ENTROPY_BYTES) if entropy is None else entropy
        self._ties = blake2b(digest_size=8, key=key, person=b"endcap ties")
        self._draws = blake2b(digest_size=8, key=key, person=b"endcap draws")
        self._disclosures: dict[tuple[int, int, int], Disclosure] = {}
        self.metrics.snapshot_age_s = self._snapshot_age_s
        if receipts is not None:
            self.metrics.receipt_counts = lambda: (receipts.written_count, receipts.dropped_count)
        self.metrics.campaigns_paced = lambda: 0 if self._spend is None else self._spend.paced_count
        self.metrics.fills_given_back = lambda: visitors.given_back_count
        self.metrics.watched = self.counters.watched

    # --- what is read ------------------------------------------------------------------------------------------------

    @property
    def spend(self) -> SpendView:
        """Return the view of what is spent.

        Raises:
            NotReady: there is no snapshot yet.
        """
        if self._spend is None:
            raise NotReady("no snapshot is loaded yet")
        return self._spend

    @property
    def market(self) -> Market:
        """Return what auctions read now.

        Raises:
            NotReady: there is no snapshot yet.
        """
        if self.served is None:
            raise NotReady("no snapshot is loaded yet")
        return self.served.market

    def product_sets(self) -> ProductSets:
        """Return which products the product targets of live patterns are about; none before there is a snapshot."""
        return NO_SETS if self.served is None else self.served.targets.pattern_index.sets

    def prepare(self, snapshot: Snapshot) -> Served:
        """Return a snapshot made ready. Changes nothing, so it may run beside the thread that fills pages."""
        before = self.served
        if snapshot.has_exact_pages:
            allocate_exactly_nb.warm()
        spec = snapshot.targets_spec
        known = None if before is None else before.targets
        targets = compile_targets(spec.audiences, spec.patterns, known, snapshot.product_sets())
        market = Market(snapshot, self._bind_model(snapshot.product_id, snapshot.attributes()), self._corrections)
        if before is not None:
            market.go_on_from(before.market)
        rehearse(market, self.settings, self.clock_ns)
        return Served(market, targets)

    def take(self, served: Served) -> None:
        """Read from now on what `prepare` made ready."""
        snapshot = served.market.snapshot
        if self._spend is None:
            self._spend = SpendView(self.settings, snapshot)
            if self._memory is not None:
                self._spend.recall(self._memory)
                self._memory = None
            for tell in self._early_spend:
                tell(self._spend)
            self._early_spend.clear()
        else:
            self._spend.bind(snapshot)
        self._spend.refresh(self.clock_ms())
        self.served = served
        self._look_again_if_outdated()
        self._disclosures = {}
        self.metrics.snapshot_version = snapshot.version

    def swap(self, snapshot: Snapshot) -> None:
        """Read another snapshot from now on."""
        self.take(self.prepare(snapshot))

    def swap_model(self, bind_model: BindModel) -> None:
        """Use another model from now on."""
        self._bind_model = bind_model
        if self.served is not None:
            self.swap(self.served.market.snapshot)

    def apply_campaign(self, campaign_id: str, day: str, spent_day_micros: int, spent_total_micros: int) -> None:
        """Take over what the ledger settled for a campaign; see `SpendView.apply_campaign`."""
        self._tell_spend(lambda view: view.apply_campaign(campaign_id, day, spent_day_micros, spent_total_micros))

    def apply_funds(self, advertiser_id: str, funds_micros: int) -> None:
        """Take over what an advertiser can still pay; see `SpendView.apply_funds`."""
        self._tell_spend(lambda view: view.apply_funds(advertiser_id, funds_micros))

    def recall(self, memory: PacingMemory) -> None:
        """Go on from what pacing had learnt before the last end; see `SpendView.memory`."""
        if self._spend is None:
            self._memory = memory
        else:
            self._spend.recall(memory)

    def forget_spend(self) -> None:
        """Forget everything settled: a full state follows."""
        if self._spend is None:
            self._early_spend.clear()
        else:
            self._spend.forget()

    def _tell_spend(self, tell: Callable[[SpendView], None]) -> None:
        if self._spend is None:
            self._early_spend.append(tell)
        else:
            tell(self._spend)

    # --- what clicks teach -------------------------------------------------------------------------------------------

    def count_event(self, terms: ChargeTerms, is_click: bool, weight: float = 1.0) -> None:
        """Count that a fill, paid or not, was rendered or clicked, for the quality of fills to come; once each.

        `weight` is how many such fills this one stands for, where not every one is told.
        """
        if self.served is None:
            return
        market = self.served.market
        row = market.snapshot.placement_row.get(terms.placement_id)
        if row is None:
            return
        attention = market.snapshot.placements[row].attention_permille.click
        slot = min(terms.slot_position, len(attention)) - 1
        expected_ppm = terms.quality_ppm * attention[slot] / 1_000
        where = terms.placement_id, terms.product_id, slot + 1
        if is_click:
            self.counters.note_click(*where, expected_ppm)
            return
        quality = market.quality_of(terms.placement_id, self._tie_seed(terms.auction_id))
        product_row = market.snapshot.product_row.get(terms.product_id)
        predicted_ppm: float = terms.quality_ppm
        if product_row is not None and len(quality.factor_ppm):
            predicted_ppm = predicted_ppm * PPM / float(quality.factor_ppm[product_row])
        self.counters.note_shown(*where, predicted_ppm, expected_ppm, weight)

    def read_clicks(self, now_ms: int) -> Clicks | None:
        """Return what was counted, None where nothing was since the last corrections were taken."""
        if self.served is None or self.counters.noted_count == self._corrected_count:
            return None
        self._corrected_count = self.counters.noted_count
        return self.counters.read(now_ms)

    def learn(self, clicks: Clicks) -> Learnt:
        """Return what clicks lead to. Changes nothing, so it may run beside the thread that fills pages."""
        market, before = self.market, self._corrections
        version = self.clock_ms() if before is None else max(self.clock_ms(), before.version + 1)
        base_ppm = market.base_of_numbers(clicks.product_ids, clicks.product_count)
        ratio = np.append(ratio_of(clicks.base_ppm, base_ppm), 1.0)  # the last one is what has no number
        attention = {one.placement_id: one.attention_permille.click for one in market.snapshot.placements}
        corrections = correct(clicks.rebased(ratio), attention, version, self._draw_seed(version))
        return Learnt(market, clicks, base_ppm, corrections, market.correct(corrections))

    def take_learnt(self, learnt: Learnt) -> None:
        """Rank and price from now on with what `learn` returned."""
        self._corrections = learnt.corrections
        self.counters.rebase(learnt.clicks, learnt.base_ppm)
        if self.served is not None and self.served.market is learnt.market:
            learnt.market.take(learnt.corrections, learnt.qualities)
        self._look_again_if_outdated()

    def _look_again_if_outdated(self) -> None:
        """Have clicks read again where snapshot and corrections were made ready at the same time, apart."""
        if self.is_outdated:
            self._corrected_count = -1

    @property
    def is_outdated(self) -> bool:
        """Say whether the market in use lacks the last corrections."""
        return self.served is not None and self.served.market.corrections is not self._corrections

    def learn_now(self) -> None:
        """Rank and price from now on with everything counted so far."""
        clicks = self.read_clicks(self.clock_ms())
        if clicks is not None:
            self.take_learnt(self.learn(clicks))

    # --- what became of fills ----------------------------------------------------------------------------------------

    def note_event(self, terms: ChargeTerms, is_click: bool, now_ms: int) -> None:
        """Take in that a fill was accepted as rendered, or as clicked, once each."""
        served, spend = self.served, self._spend
        if served is None or spend is None or not terms.is_sponsored:
            return
        if (terms.charge_on is ChargeOn.CLICK) == is_click:
            spend.note_delay(is_click, now_ms - terms.issued_at_ms)
        pseudonym, visitors, market = terms.visitor_pseudonym, self.visitors, served.market
        if pseudonym == NO_VISITOR:
            return
        if self.counts_renders:
            visitors.note_rendered(pseudonym, terms.issued_at_ms, terms.placement_id, terms.slot_position)
        if is_click:
            if terms.placement_id in market.visitor_limits:
                visitors.note_clicked(pseudonym, terms.placement_id, now_ms)
            campaign_row = market.snapshot.campaign_row.get(terms.campaign_id or "", -1)
            if campaign_row >= 0 and market.snapshot.columns.campaign_roas_ppm[campaign_row]:
                self._credits.note(visitors.person(pseudonym), terms.product_id, terms.campaign_id or "", now_ms)

    @property
    def counts_renders(self) -> bool:
        """Say whether anything depends on which fills were rendered."""
        served = self.served
        return served is not None and bool(served.market.visitor_limits or served.market.snapshot.names.frequency_caps)

    def note_order(self, pseudonyms: Iterable[bytes], product_id: str, amount_micros: int, at_ms: int) -> None:
        """Credit a line of an order to the campaign whose click led to it, for target-ROAS bidding.

        Args:
            pseudonyms: of the visitor, and of the customer where they are known.
            product_id: what was bought.
            amount_micros: for how much; negative for what comes back.
            at_ms: when it was ordered.
        """
        persons = {self.visitors.person(pseudonym) for pseudonym in pseudonyms}
        campaign_id = self._credits.campaign_of(persons, product_id, at_ms)
        if campaign_id is not None:
            self._tell_spend(lambda view: view.apply_value(campaign_id, amount_micros))

    def sponsored_left(self, request: SlotRequest, pseudonym: bytes, now_ms: int) -> Mapping[str, int]:
        """Return how many sponsored products each limited placement of a page may still show a visitor."""
        limits, record = self.market.visitor_limits, self.visitors.record(pseudonym)
        gap_ms = self.visitors.settings.session_gap_s * 1000
        return {
            asked.placement_id: sponsored_left(
                limit, record, asked.placement_id, now_ms, self.spend.day_starts_ms, gap_ms
            )
            for asked in request.placements
            if (limit := limits.get(asked.placement_id)) is not None
        }

    # --- filling pages -----------------------------------------------------------------------------------------------

    def fill(self, request: SlotRequest, arrived_ms: int) -> SlotResponse:
        """Answer a page that asks now; `arrived_ms` is the time of day it asked, UTC milliseconds since 1970.

        Raises:
            AuctionRefused: the request names placements it may not, or there is no snapshot yet.
        """
        return self.fill_since(request, arrived_ms, self.clock_ns())

    def fill_since(
        self, request: SlotRequest, arrived_ms: int, arrived_ns: int, *, is_unread: bool = False
    ) -> SlotResponse:
        """Do as `fill`, for a request that arrived at `arrived_ns` on the monotonic clock.

        Where the visitor could not be read in time (`is_unread`) the page is filled as for somebody without consent,
        but for placements that are limited per visitor, which show nothing sponsored; the answer is partial.

        Raises:
            AuctionRefused: as there.
        """
        served, spend = self.served, self._spend
        if served is None or spend is None:
            raise NotReady("no snapshot is loaded yet")
        market = served.market
        if arrived_ms >= spend.refresh_at_ms:
            spend.refresh(arrived_ms)
        spend.auction_count += 1
        ends_ns = arrived_ns + request.tmax_ms * NS_PER_MS - self.settings.deadline_reserve_us * 1_000
        deadline = Deadline(arrived_ms, ends_ns, self.clock_ns)
        visitor_id, navigation = (None, ()) if is_unread else (request.visitor_id, request.navigation)
        visitor = self.visitors.view(
            visitor_id,
            request.consent,
            served.targets,
            market.model,
            arrived_ms,
            navigation,
            recalls=market.recalls,
        )
        auction_id = new_id("auc", arrived_ms, self._entropy())
        is_known = visitor.has_consent and visitor_id is not None
        if request.consent is not None and not visitor.has_consent and visitor_id is not None:
            self.visitors.withdraw(self.visitors.pseudonym(visitor_id), arrived_ms)
        variant = self.experiment.variant_of(visitor.pseudonym if is_known else auction_id.encode())
        no_paid_reason = "holdout" if variant == HOLDOUT else self.paid_pause_reason
        outcome = hold_auction(
            request,
            auction_id,
            market,
            visitor,
            spend,
            deadline,
            self._tie_seed(auction_id),
            self.settings,
            no_paid_reason=no_paid_reason,
            sponsored_left=self._limits_of(request, visitor, arrived_ms, is_known=is_known, is_unread=is_unread),
        )
        if is_unread:
            outcome = msgspec.structs.replace(outcome, is_partial=True)
        held = _Held(auction_id, arrived_ms, market, spend, visitor, variant, is_known)
        response = self._respond(held, outcome)
        self._keep_receipt(request, auction_id, arrived_ms, outcome, market, variant)
        self.metrics.count_auction((self.clock_ns() - arrived_ns) / 1e9, request.tmax_ms, outcome.is_partial)
        return response

    def receipt(self, auction_id: str, advertiser_id: str | None) -> AuctionReceipt:
        """Return what an auction's receipt says to an advertiser, or to the retailer (None).

        Raises:
            AuctionUnknown: there is none, or the advertiser had no candidate in it.
            AuctionGone: receipts of that time are no longer kept.
        """
        found = None
        if self.receipts is not None and time_of(auction_id) is not None:
            found = self.receipts.find(auction_id)
            if found is None and self.receipts.is_gone(auction_id):
                raise AuctionGone(f"the receipt of {auction_id} is no longer kept")
        seen = None
        if found is not None:
            seen = explain_to_retailer(found) if advertiser_id is None else explain_to_advertiser(found, advertiser_id)
        if seen is None:
            whose = "" if advertiser_id is None else " to have looked at a bid of yours"
            raise AuctionUnknown(f"no auction {auction_id!r} is known{whose}")
        return seen

    def _limits_of(
        self, request: SlotRequest, visitor: VisitorView, now_ms: int, *, is_known: bool, is_unread: bool
    ) -> Mapping[str, int]:
        limits = self.market.visitor_limits
        if is_known and limits:
            return self.sponsored_left(request, visitor.pseudonym, now_ms)
        if is_unread and limits:
            return {asked.placement_id: 0 for asked in request.placements if asked.placement_id in limits}
        return NO_LIMITS

    # --- what an answer is made of -----------------------------------------------------------------------------------

    def _respond(self, held: _Held, outcome: Outcome) -> SlotResponse:
        places: list[PlacementFills] = []
        pending: list[tuple[int, float, int]] = []
        counts = self.metrics.fills
        for place in outcome.places:
            fills: list[Fill] = []
            for decision in place.decisions:
                if decision.booked is not None:
                    counts["booked"] += 1
                    fills.append(self._booked_fill(held, place.placement_id, decision, decision.booked))
                elif decision.offer_row < 0:
                    counts["organic"] += 1
                    fills.append(self._organic_fill(held, place.placement_id, decision))
                else:
                    counts["sponsored"] += 1
                    fills.append(self._paid_fill(held, place.placement_id, decision, pending))
            if place.no_fill_reason is not None:
                self.metrics.count_no_fill(place.no_fill_reason)
            places.append(PlacementFills(place.placement_id, place.no_fill_reason, fills, place.reserved_slot_count))
        if pending:
            held.spend.add_pending(pending)
        version = held.market.snapshot.version
        experiment_id = self.experiment.experiment_id
        return SlotResponse(held.auction_id, version, experiment_id, held.variant, outcome.is_partial, places)

    def _paid_fill(
        self, held: _Held, placement_id: str, decision: Decision, pending: list[tuple[int, float, int]]
    ) -> Fill:
        """Return a sold fill, and note in `pending` what it may cost."""
        market, price = held.market, decision.price_micros
        offer = market.offer_facts(decision.offer_row)
        token = self._promise(
            held, placement_id, decision, offer.advertiser_id, offer.campaign_id, offer.bid_id, decision.charge_on
        )
        expected = price * decision.quality_ppm / PPM if decision.charge_on is ChargeOn.CLICK else float(price)
        pending.append((offer.campaign_row, expected, price))
        if held.is_known and (offer.has_frequency_cap or placement_id in market.visitor_limits):
            bid_id = offer.bid_id if offer.has_frequency_cap else ""
            self.visitors.note_served(held.visitor.pseudonym, bid_id, held.now_ms, placement_id, decision.slot_position)
        return Fill(
            decision.slot_position,
            market.snapshot.product_id[decision.product_row],
            True,
            offer.advertiser_id,
            offer.campaign_id,
            offer.bid_id,
            decision.charge_on,
            price,
            market.snapshot.currency,
            token,
            self._disclosure(offer.advertiser_row, decision.product_row, int(offer.is_personal), market),
        )

    def _booked_fill(self, held: _Held, placement_id: str, decision: Decision, booked: BookedSlot) -> Fill:
        """Return the fill of a booking: sponsored, but no event of it is charged, so that it carries no price."""
        snapshot, position = held.market.snapshot, decision.slot_position
        product_id = snapshot.product_id[decision.product_row]
        advertiser_id, booking_id = snapshot.advertiser_id[booked.advertiser_row], booked.booking_id
        token = self._promise(held, placement_id, decision, advertiser_id, None, booking_id, None)
        disclosure = self._disclosure(booked.advertiser_row, decision.product_row, BOOKED, held.market)
        return Fill(position, product_id, True, advertiser_id, None, booking_id, None, None, None, token, disclosure)

    def _organic_fill(self, held: _Held, placement_id: str, decision: Decision) -> Fill:
        product_id = held.market.snapshot.product_id[decision.product_row]
        token = self._promise(held, placement_id, decision, None, None, None, None)
        return Fill(decision.slot_position, product_id, False, None, None, None, None, None, None, token, None)

    def _promise(
        self,
        held: _Held,
        placement_id: str,
        decision: Decision,
        advertiser_id: str | None,
        campaign_id: str | None,
        bid_id: str | None,
        charge_on: ChargeOn | None,
    ) -> str:
        """Return the token of a fill; sponsored is what an advertiser stands behind, charged what has a basis."""
        return self._seal(
            ChargeTerms(
                held.auction_id,
                placement_id,
                decision.slot_position,
                held.market.snapshot.product_id[decision.product_row],
                advertiser_id is not None,
                advertiser_id,
                campaign_id,
                bid_id,
                charge_on,
                Micros(0 if charge_on is None else decision.price_micros),
                decision.quality_ppm,
                held.visitor.pseudonym,
                held.variant,
                held.now_ms,
            )
        )

    def _disclosure(self, advertiser_row: int, product_row: int, basis: int, market: Market) -> Disclosure:
        key = (advertiser_row, product_row, basis)
        disclosure = self._disclosures.get(key)
        if disclosure is None:
            names = market.snapshot.names
            paid_by = names.advertiser_name[advertiser_row]
            brand_row = int(market.snapshot.columns.product_brand[product_row])
            on_behalf_of = names.brand[brand_row] if brand_row < len(names.brand) else paid_by
            disclosure = self._disclosures[key] = Disclosure(LABEL, on_behalf_of, paid_by, PARAMETERS[basis])
        return disclosure

    def _keep_receipt(
        self,
        request: SlotRequest,
        auction_id: str,
        arrived_ms: int,
        outcome: Outcome,
        market: Market,
        variant: str | None,
    ) -> None:
        if self.receipts is None:
            return
        is_paid = any(decision.offer_row >= 0 for place in outcome.places for decision in place.decisions)
        if not is_paid and (outcome.tie_seed * PPM) >> 64 >= self.settings.unbilled_receipt_ppm:
            return
        note = make_note(
            auction_id,
            arrived_ms,
            request,
            outcome,
            market,
            self.experiment.experiment_id,
            variant,
            self.settings.receipt_rows_max,
        )
        self.receipts.queue(Waiting(note, market.snapshot, is_paid))

    def _tie_seed(self, auction_id: str) -> int:
        hashed = self._ties.copy()
        hashed.update(auction_id.encode())
        return int.from_bytes(hashed.digest(), "big")

    def _draw_seed(self, version: int) -> int:
        hashed = self._draws.copy()
        hashed.update(b"%d" % version)
        return int.from_bytes(hashed.digest(), "big")

    def _snapshot_age_s(self) -> float:
        if self.served is None:
            return 0.0
        return max(0.0, (self.clock_ms() - self.served.market.snapshot.names.read_at_ms) / 1000)


def drawn_ahead(size: int) -> Callable[[], bytes]:
    """Return a source of so many bytes of the system's chance at a time, which asks the system for many at once."""
    stock: list[bytes] = []

    def draw() -> bytes:
        if not stock:
            drawn = os.urandom(size * DRAW_COUNT)
            stock.extend(drawn[place : place + size] for place in range(0, len(drawn), size))
        return stock.pop()

    return draw
