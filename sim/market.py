"""One simulated market: visitors open pages, the server's own engine fills them, the ledger bills, bidders adapt.

The order of events is here; what decides is the server's code (`shop.py`), what chance does is in `visit.py` and
`click.py`. Nothing reads the clock of the machine.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct

from affinity.navigation import Consent
from auction.request import Fill, PlacementFills, SlotRequest
from ledger.event import EventType
from ledger.terms import ChargeOn
from sim import site
from sim.agent import Agent, make_agents
from sim.chance import PPM, Int64s, Stream, key_of
from sim.click import PositionBased
from sim.measure import Tally
from sim.result import BidderResult, Books, PeriodResult, PlacementResult
from sim.scenario import PAGES_SIMULATED, Scenario
from sim.shop import Billed, Shop
from sim.stopwatch import Stopwatch
from sim.visit import PageView, Visit
from sim.world import HOME, SessionStart, build_world, local_midnights_ms, session_starts

ORGANIC_COUNT = 60

Progress = Callable[[int, int], None]


class WorldResult(Struct, frozen=True):
    """What one market left behind: totals per session, and the tables of the report."""

    sessions: Int64s
    auction_count: int
    bidders: list[BidderResult]
    periods: list[PeriodResult]
    placements: list[PlacementResult]
    books: Books


class Shelf(Struct, frozen=True):
    """What a visitor may find on a page: product rows, and this visitor's true and predicted clicks on each.

    Attributes:
        rows: the page's own products and, on the home page, everything that may be promoted there.
        organic: places among `rows`, in the order the shop itself would show them.
    """

    rows: Int64s
    true_ppm: Int64s
    predicted_ppm: Int64s
    organic: list[int]


class PlacementCount(Struct):
    """Running totals of a placement."""

    slots: int = 0
    paid_fills: int = 0
    paid_clicks: int = 0
    revenue_micros: int = 0


class Market:
    """A market on its way through its days. `run` takes it to the end, once."""

    def __init__(self, scenario: Scenario, seed: int, stopwatch: Stopwatch, receipts: Path | None = None) -> None:
        self.scenario, self.seed = scenario, seed
        self.world = build_world(scenario, seed)
        self.placements = [site.placement_of(draft) for draft in scenario.placements]
        self._clicks = {
            placement.placement_id: PositionBased(scenario.clicks.seen_permille or placement.attention_permille.click)
            for placement in self.placements
        }
        looks = [seen for model in self._clicks.values() for seen in model.seen_permille]
        self.agents = make_agents(scenario, self.world, seed, sum(looks) // len(looks))
        self._site = site.Site(scenario, self.world, self.agents, self.placements)
        self.starts = session_starts(scenario.traffic, scenario.world.visitor_count, seed)
        self.tally = Tally(len(self.starts))
        self._agent_of = {agent.advertiser_id: agent for agent in self.agents}
        self._hostile = [agent for agent in self.agents if agent.rival_click_ppm]
        self._hostile_stream = Stream(key_of(seed, "hostile clicks"))
        self._product_row = {product.product_id: row for row, product in enumerate(self.world.products)}
        assortment = self.world.assortment
        self._rows_of = [(rows, np.arange(rows.size)) for rows in assortment[:-1]] + [
            self._with_promoted(assortment[HOME])
        ]
        self._on_page = {page: site.requested(page, self.placements) for page in PAGES_SIMULATED}
        self._floor_of = {
            (placement.placement_id, ChargeOn.CLICK): placement.floor_micros.click for placement in self.placements
        } | {
            (placement.placement_id, ChargeOn.IMPRESSION): placement.floor_micros.impression // 1000
            for placement in self.placements
        }
        self._slot_count = {placement.placement_id: placement.slot_count for placement in self.placements}
        self._counts = {placement.placement_id: PlacementCount() for placement in self.placements}
        self._no_fill: dict[str, Counter[str]] = {placement.placement_id: Counter() for placement in self.placements}
        self._midnights_ms = local_midnights_ms(scenario.traffic)
        self._zone = ZoneInfo(scenario.traffic.time_zone)
        self._auction_count = 0
        self._watch = stopwatch
        self._shop = Shop(self._site.source(1), self.world, self.agents, self._midnights_ms[0], seed, receipts)

    # --- the order of events -----------------------------------------------------------------------------------------

    def run(self, progress: Progress) -> WorldResult:
        """Go through every visit in order of time, changing bids at the start of every bidding period."""
        periods: list[PeriodResult] = []
        upcoming = [(start.at_ms, row) for row, start in enumerate(self.starts)]
        heapq.heapify(upcoming)
        visits: dict[int, tuple[Visit, PageView]] = {}
        finished = 0
        for starts_ms, ends_ms in self._bidding_periods():
            self._change_bids(starts_ms, len(periods))
            before = self._totals()
            while upcoming and upcoming[0][0] < ends_ms:
                now_ms, row = heapq.heappop(upcoming)
                visit, view = visits.pop(row) if row in visits else self._begin(row, self.starts[row])
                following = self._show_page(visit, view, now_ms)
                if following is not None:
                    visits[row] = (visit, following)
                    heapq.heappush(upcoming, (now_ms + visit.reading_ms(), row))
                else:
                    finished += 1
                    progress(finished, len(self.starts))
            self._settle()
            periods.append(self._period(starts_ms, before))
        return WorldResult(
            sessions=self.tally.rows,
            auction_count=self._auction_count,
            bidders=[self._bidder(agent) for agent in self.agents],
            periods=periods,
            placements=[self._placement_result(placement.placement_id) for placement in self.placements],
            books=self._shop.close(),
        )

    def _begin(self, row: int, start: SessionStart) -> tuple[Visit, PageView]:
        visit = Visit(row, start.visitor_row, key_of(self.seed, "visit", row), self.scenario, self.world)
        return visit, visit.open_first()

    def _bidding_periods(self) -> Iterator[tuple[int, int]]:
        """Yield start and end of each; the last one also takes the visits that stay past midnight."""
        step_ms = self.scenario.run.bid_minutes * 60_000
        first, last = self._midnights_ms[0], self._midnights_ms[-1]
        for starts_ms in range(first, last, step_ms):
            ends_ms = starts_ms + step_ms
            yield starts_ms, ends_ms if ends_ms < last else 1 << 62

    def _change_bids(self, now_ms: int, period: int) -> None:
        """Ask every policy, and bring the new bids live."""
        self._shop.set_clock(now_ms)
        day = max(row for row, midnight in enumerate(self._midnights_ms) if midnight <= now_ms)
        gone_ppm = self._day_gone_ppm(now_ms)
        before = [agent.share_ppm for agent in self.agents]
        for agent in self.agents:
            agent.decide(self._shop.spent_on_day_micros(agent.campaign_id, self._day_name(day)), gone_ppm)
        if before != [agent.share_ppm for agent in self.agents]:
            with self._watch.part("building snapshots"):
                self._shop.swap(self._site.source(period + 2))

    def _show_page(self, visit: Visit, view: PageView, now_ms: int) -> PageView | None:
        """Let a visitor open one page, and return the page it opens next."""
        self._shop.set_clock(now_ms)
        visitor_id = f"v{visit.visitor_row:07d}"
        consent = Consent(personalised=self.world.consents[visit.visitor_row])
        with self._watch.part("visitors and clicks"):
            shelf = self._shelf(visit.visitor_row, view)
        if consent.personalised:
            with self._watch.part("navigation and profiles"):
                self._shop.note(site.navigation(self.world, visitor_id, view, now_ms))
                self._shop.predict(shelf.rows, shelf.predicted_ppm)
        requested = self._on_page[view.type]
        if not requested:
            return visit.open_next(None)
        request = SlotRequest(
            page=site.page(self.world, view),
            placements=site.with_candidates(self.world, requested, view, shelf.rows, shelf.organic),
            visitor_id=visitor_id if consent.personalised else None,
            consent=consent,
            exclude_product_ids=[] if view.product_row is None else [self.world.products[view.product_row].product_id],
        )
        with self._watch.part("filling pages"):
            filled = self._shop.fill(request).placements
        self._auction_count += 1
        with self._watch.part("visitors and clicks"):
            clicked_row = self._look(visit, view, shelf, filled, now_ms)
        if self._shop.waiting_count >= self.scenario.run.settle_events:
            self._settle()
        return visit.open_next(clicked_row)

    def _look(
        self, visit: Visit, view: PageView, shelf: Shelf, filled: list[PlacementFills], now_ms: int
    ) -> int | None:
        """Show the page, paid fills and the shop's own products between them; return the first product clicked."""
        clicked_row: int | None = None
        paid_rows = {self._product_row[fill.product_id] for one in filled for fill in one.fills}
        own = [place for place in shelf.organic if int(shelf.rows[place]) != view.product_row]
        without_ads = iter(own)
        between_ads = iter([place for place in own if int(shelf.rows[place]) not in paid_rows])
        has_paid = False
        for one in filled:
            placement_id, model = one.placement_id, self._clicks[one.placement_id]
            fills = {fill.slot_position: fill for fill in one.fills}
            count = self._counts[placement_id]
            if one.no_fill_reason is not None:
                self._no_fill[placement_id][one.no_fill_reason] += 1
            for slot_position in range(1, self._slot_count[placement_id] + 1):
                count.slots += 1
                seen = model.seen_permille[slot_position - 1]
                organic_place = next(without_ads, None)
                organic_ppm = int(shelf.true_ppm[organic_place]) if organic_place is not None else 0
                fill = fills.get(slot_position)
                if fill is not None:
                    row = self._product_row[fill.product_id]
                    true_ppm = self._true_ppm(visit, shelf, row)
                else:
                    place = next(between_ads, None)
                    row = int(shelf.rows[place]) if place is not None else -1
                    true_ppm = int(shelf.true_ppm[place]) if place is not None else 0
                self.tally.add(visit.row, "appeal_shown", seen * true_ppm)
                self.tally.add(visit.row, "appeal_organic", seen * organic_ppm)
                self.tally.add(visit.row, "slots", 1)
                answer = model.answer(visit.stream, slot_position, true_ppm)
                is_paid = fill is not None and fill.is_sponsored
                if fill is not None and is_paid:
                    has_paid = True
                    count.paid_fills += 1
                    self.tally.add(visit.row, "paid_fills", 1)
                    self._shop.report(fill, EventType.IMPRESSION, visit.row, placement_id)
                    self._agent_of[fill.advertiser_id or ""].impressions += 1
                if answer.is_clicked and row >= 0:
                    clicked_row = row if clicked_row is None else clicked_row
                    self._click(visit, row, fill if is_paid else None, placement_id, now_ms)
                if fill is not None and is_paid and self._hostile:
                    self._click_as_rival(visit, fill, placement_id)
        self.tally.add(visit.row, "pages", 1)
        self.tally.add(visit.row, "pages_with_paid", int(has_paid))
        return clicked_row

    def _click(self, visit: Visit, row: int, fill: Fill | None, placement_id: str, now_ms: int) -> None:
        """Count a click, report it where it is paid, and perhaps order."""
        order_ppm = self.world.true_order_ppm(visit.visitor_row, row)
        is_lost = visit.stream.happens(self.scenario.clicks.beacon_loss_ppm)
        is_ordered = visit.stream.happens(order_ppm)
        self.tally.add(visit.row, "orders", int(is_ordered))
        if is_ordered and self.world.consents[visit.visitor_row]:
            self._shop.note(site.order(self.world, f"v{visit.visitor_row:07d}", row, now_ms))
        if fill is None:
            return
        agent = self._agent_of[fill.advertiser_id or ""]
        value_micros = agent.margin_micros(self.world, row) * order_ppm // PPM
        agent.clicks += 1
        agent.value_micros += value_micros
        self.tally.add(visit.row, "paid_clicks", 1)
        self.tally.add(visit.row, "value_micros", value_micros)
        self._counts[placement_id].paid_clicks += 1
        if is_ordered:
            agent.sales_micros += int(self.world.price_micros[row])
            self.tally.add(visit.row, "sales_micros", int(self.world.price_micros[row]))
        if not is_lost:
            self._shop.report(fill, EventType.CLICK, visit.row, placement_id)
        if is_ordered:
            self._shop.note_sale(fill, int(self.world.price_micros[row]))

    def _click_as_rival(self, visit: Visit, fill: Fill, placement_id: str) -> None:
        """Let hostile bidders click a paid product of another; draws from a stream that visitors know nothing of."""
        for agent in self._hostile:
            is_clicked = self._hostile_stream.happens(agent.rival_click_ppm)
            if is_clicked and agent.advertiser_id != fill.advertiser_id:
                self._shop.report(fill, EventType.CLICK, visit.row, placement_id, is_hostile=True)
                return

    def _settle(self) -> None:
        """Let the ledger commit what is waiting, and count what it billed."""
        with self._watch.part("ledger"):
            billed = self._shop.settle()
        for one in billed:
            self._count_charge(one)

    def _count_charge(self, one: Billed) -> None:
        agent = self._agent_of[one.fill.advertiser_id or ""]
        agent.spend_micros += one.amount_micros
        self.tally.add(one.session_row, "revenue_micros", one.amount_micros)
        self._counts[one.placement_id].revenue_micros += one.amount_micros
        if one.is_hostile:
            agent.hostile_micros += one.amount_micros
            self.tally.add(one.session_row, "hostile_micros", one.amount_micros)
        missing = one.price_micros - one.amount_micros
        agent.given_back_micros += missing
        self.tally.add(one.session_row, "given_back_micros", missing)
        assert one.fill.charge_on is not None
        if one.amount_micros > 0:
            self.tally.add(one.session_row, "charges", 1)
            is_at_floor = one.price_micros <= self._floor_of[one.placement_id, one.fill.charge_on]
            self.tally.add(one.session_row, "charges_at_floor", int(is_at_floor))

    # --- what a page is asked with -----------------------------------------------------------------------------------

    def _shelf(self, visitor_row: int, view: PageView) -> Shelf:
        """Return what stands on the page, as this visitor likes it and as the shop predicts it."""
        rows, own_places = self._rows_of[view.category_row]
        true_ppm = self.world.true_click_ppm(visitor_row, rows)
        average_ppm = self.world.average_click_ppm(rows)
        is_known = self.world.consents[visitor_row]
        predicted_ppm = self.world.predicted_click_ppm(true_ppm, rows) if is_known else average_ppm
        ranked_by = predicted_ppm if self.scenario.world.organic == "affinity" else average_ppm
        organic = own_places[np.argsort(-ranked_by[own_places], kind="stable")[:ORGANIC_COUNT]]
        return Shelf(rows, true_ppm, predicted_ppm, [int(place) for place in organic])

    def _with_promoted(self, own_rows: Int64s) -> tuple[Int64s, Int64s]:
        """Return a page's own products and all promoted ones, and the places of its own among them."""
        promoted = [row for agent in self.agents for row in agent.product_rows]
        rows = np.union1d(own_rows, np.array(promoted, dtype=np.int64))
        return rows, np.searchsorted(rows, own_rows)

    def _true_ppm(self, visit: Visit, shelf: Shelf, row: int) -> int:
        """Return the true clicks on a product, whether or not it is of the page's own assortment."""
        place = int(np.searchsorted(shelf.rows, row))
        if place < shelf.rows.size and shelf.rows[place] == row:
            return int(shelf.true_ppm[place])
        return int(self.world.true_click_ppm(visit.visitor_row, np.array([row], dtype=np.int64))[0])

    # --- what is left at the end -------------------------------------------------------------------------------------

    def _day_gone_ppm(self, now_ms: int) -> int:
        """Return how much of a usual day's traffic is over, by the scenario's own hours."""
        weights = self.scenario.traffic.hour_weights
        local = datetime.fromtimestamp(now_ms / 1000, self._zone)
        gone = sum(weights[: local.hour]) * 3600 + weights[local.hour] * (local.minute * 60 + local.second)
        return gone * PPM // (sum(weights) * 3600)

    def _day_name(self, day: int) -> str:
        return datetime.fromtimestamp(self._midnights_ms[day] / 1000, self._zone).date().isoformat()

    def _totals(self) -> tuple[int, int, int, int]:
        counts = self._counts.values()
        revenue = sum(count.revenue_micros for count in counts)
        return self._auction_count, sum(c.slots for c in counts), sum(c.paid_fills for c in counts), revenue

    def _period(self, starts_ms: int, before: tuple[int, int, int, int]) -> PeriodResult:
        pages, slots, paid_fills, revenue = (after - then for after, then in zip(self._totals(), before, strict=True))
        shares: dict[str, list[int]] = {}
        for agent in self.agents:
            shares.setdefault(agent.policy_name, []).append(agent.share_ppm)
        return PeriodResult(
            starts_at=datetime.fromtimestamp(starts_ms / 1000, self._zone).strftime("%Y-%m-%d %H:%M"),
            pages=pages,
            slots=slots,
            paid_fills=paid_fills,
            revenue_micros=revenue,
            share_ppm={name: sum(found) // len(found) for name, found in sorted(shares.items())},
        )

    def _bidder(self, agent: Agent) -> BidderResult:
        budget = agent.budget_of_run_micros(self.scenario.traffic.days)
        if budget is not None:
            self.tally.add(0, "budget_micros", budget)
            self.tally.add(0, "budget_spent_micros", agent.spend_micros)
        return BidderResult(
            advertiser_id=agent.advertiser_id,
            policy=agent.policy_name,
            brand=agent.brand,
            charge_on=agent.group.charge_on.value,
            product_count=len(agent.product_rows),
            daily_budget_micros=agent.group.daily_budget_micros,
            budget_of_run_micros=budget,
            impressions=agent.impressions,
            clicks=agent.clicks,
            spend_micros=agent.spend_micros,
            value_micros=agent.value_micros,
            sales_micros=agent.sales_micros,
            given_back_micros=agent.given_back_micros,
            hostile_micros=agent.hostile_micros,
            target_roas_ppm=agent.group.target_roas_ppm,
        )

    def _placement_result(self, placement_id: str) -> PlacementResult:
        count = self._counts[placement_id]
        reasons = dict(sorted(self._no_fill[placement_id].items()))
        return PlacementResult(
            placement_id, count.slots, count.paid_fills, count.paid_clicks, count.revenue_micros, reasons
        )
