"""Simulated advertisers: campaigns and bids on the wire's own types, what clicks are worth to them, their results.

A policy says what share of a click's worth to bid; this turns it into bids, and counts what came of them.
"""

from datetime import UTC, datetime

import msgspec
import numpy as np

from auction.campaign import Bid, Campaign, MaxBid, TargetRoas
from ledger.money import BID_MICROS_MAX
from ledger.terms import ChargeOn
from sim.bidder import Policy, Results, Standing, ask, find_policy, make, rival_click_ppm
from sim.chance import PPM, Stream, bits, key_of
from sim.errors import ScenarioRefused
from sim.scenario import Bidders, Scenario
from sim.world import World

FUNDS_MICROS = 10**12  # more than can be spent, where a scenario says nothing
BRANDS_PER_BIDDER = 2  # of twice as many wanted brands as there are bidders, half bid
EPOCH = datetime.fromtimestamp(0, UTC)


class Agent:
    """One advertiser: a campaign, one bid per promoted product, a policy, and its results so far."""

    def __init__(
        self,
        number: int,
        group: Bidders,
        policy: Policy,
        brand: str,
        rows: list[int],
        world: World,
        seen_permille: int,
    ) -> None:
        self.advertiser_id = f"adv-{number + 1:04d}"
        self.campaign_id = f"cmp-{number + 1:04d}"
        self.group = group
        self.policy = policy
        self.policy_name = group.policy.rpartition(":")[2]
        self.brand = brand
        self.product_rows = rows
        self.funds_micros = group.funds_micros or FUNDS_MICROS
        self.share_ppm = 0
        self.impressions = self.clicks = self.sales_micros = 0
        self.spend_micros = self.value_micros = self.given_back_micros = self.hostile_micros = 0
        self._last = (0, 0, 0, 0, 0)
        self.rival_click_ppm = rival_click_ppm(policy)
        average = world.average_click_ppm(np.array(rows, dtype=np.int64))
        self._worth_micros = [
            self._worth_of(world, row, int(click) * seen_permille // 1000)
            for row, click in zip(rows, average, strict=True)
        ]

    def _worth_of(self, world: World, row: int, click_ppm: int) -> int:
        """Return what one billed event is worth to it on average; of impressions, a thousand."""
        click_micros = self.margin_micros(world, row) * world.order_ppm // PPM
        return click_micros if self.group.charge_on is ChargeOn.CLICK else click_micros * click_ppm // 1000

    def margin_micros(self, world: World, row: int) -> int:
        """Return what an order of the product leaves it."""
        return int(world.price_micros[row]) * self.group.margin_ppm // PPM

    def decide(self, spent_today_micros: int, day_gone_ppm: int) -> None:
        """Ask the policy for the share to bid from now on, showing it what the last one brought."""
        now = (self.impressions, self.clicks, self.spend_micros, self.value_micros, self.sales_micros)
        last = Results(*(after - before for after, before in zip(now, self._last, strict=True)))
        self._last = now
        standing = Standing(self.group.daily_budget_micros, spent_today_micros, day_gone_ppm, last)
        self.share_ppm = ask(self.policy, standing, self.advertiser_id)

    def campaign(self) -> Campaign:
        """Return its campaign."""
        return Campaign(
            campaign_id=self.campaign_id,
            advertiser_id=self.advertiser_id,
            name=f"{self.brand} by {self.policy_name}",
            daily_budget_micros=self.group.daily_budget_micros,
            total_budget_micros=self.group.total_budget_micros,
            objective=self._objective(),
            flight_starts_at=None,
            flight_ends_at=None,
            pacing=self.group.pacing,
            status="active",
            created_at=EPOCH,
            updated_at=EPOCH,
            change_seq=1,
        )

    def _objective(self) -> MaxBid | TargetRoas:
        """Return what the server is asked to steer by: nothing where the policy does so itself."""
        if self.group.target_roas_ppm is None or self.group.policy == "target-roas":
            return MaxBid()
        return TargetRoas(roas=self.group.target_roas_ppm / PPM)

    def bids(self, world: World, change_seq: int) -> list[Bid]:
        """Return its bids at the share decided; a bid that comes to nothing is left out."""
        found = []
        for row, worth_micros in zip(self.product_rows, self._worth_micros, strict=True):
            bid_micros = min(BID_MICROS_MAX, worth_micros * self.share_ppm // PPM)
            if self.group.charge_on is ChargeOn.IMPRESSION:
                bid_micros -= bid_micros % 1000
            if bid_micros > 0:
                found.append(self._bid(world.products[row].product_id, bid_micros, change_seq))
        return found

    def _bid(self, product_id: str, bid_micros: int, change_seq: int) -> Bid:
        return Bid(
            bid_id=f"bid-{self.advertiser_id[4:]}-{product_id}"[:64],
            campaign_id=self.campaign_id,
            advertiser_id=self.advertiser_id,
            product_ids=[product_id],
            bid_micros=bid_micros,
            charge_on=self.group.charge_on,
            audience=self.group.audience,
            navigation_pattern=self.group.navigation_pattern,
            pages=None,
            category_ids=self.group.category_ids,
            keywords=None,
            negative_keywords=None,
            placement_multipliers={},
            frequency_cap=self.group.frequency_cap,
            context=None,
            status="active",
            created_at=EPOCH,
            updated_at=EPOCH,
            change_seq=change_seq,
        )

    def budget_of_run_micros(self, days: int) -> int | None:
        """Return what its limits let it spend in all, None without limits."""
        limits = []
        if self.group.daily_budget_micros is not None:
            limits.append(self.group.daily_budget_micros * days)
        if self.group.total_budget_micros is not None:
            limits.append(self.group.total_budget_micros)
        if self.group.funds_micros is not None:
            limits.append(self.group.funds_micros)
        return min(limits) if limits else None


def make_agents(scenario: Scenario, world: World, seed: int, seen_permille: int = 1000) -> list[Agent]:
    """Give each bidder of the scenario a brand and its most wanted products.

    The most wanted brands bid, dealt out by chance, so that no policy has the best of them; with more bidders than
    brands, several sellers bid for one brand's products.

    Args:
        scenario: its bidders.
        world: what they can bid on.
        seed: of the world.
        seen_permille: how often a slot is looked at on average: what an impression is worth depends on it.

    Raises:
        ScenarioRefused: nothing in the catalogue can be bid on.
    """
    products_of = _products_by_brand(world)
    if not products_of:
        if scenario.bidders:
            raise ScenarioRefused("world: every product is the retailer's own brand; nobody can bid")
        return []
    bidder_count = sum(group.count for group in scenario.bidders)
    by_weight = sorted(
        products_of, key=lambda brand: (-sum(int(world.appeal_ppm[row]) for row in products_of[brand]), brand)
    )
    brands = by_weight[: max(1, bidder_count * BRANDS_PER_BIDDER)]
    draws = bits(key_of(seed, "brands dealt"), len(brands))
    dealt = [brands[int(row)] for row in np.argsort(draws, kind="stable")]
    agents: list[Agent] = []
    for group in scenario.bidders:
        make_policy = find_policy(group.policy)
        for _ in range(group.count):
            number = len(agents)
            brand = dealt[number % len(dealt)]
            stream = Stream(key_of(seed, "policy", number))
            own = _with_its_margin(group, Stream(key_of(seed, "margin", number)))
            rows = products_of[brand][: group.products_each]
            agents.append(
                Agent(
                    number, own, make(make_policy, group, stream), world.brand_name[brand], rows, world, seen_permille
                )
            )
    return agents


def _products_by_brand(world: World) -> dict[int, list[int]]:
    """Return each brand's products that may be bid on, the most appealing first."""
    order = np.lexsort((np.arange(world.appeal_ppm.size), -world.appeal_ppm))
    found: dict[int, list[int]] = {}
    for row in order:
        if not world.is_own_brand[row]:
            found.setdefault(int(world.product_brand[row]), []).append(int(row))
    return found


def _with_its_margin(group: Bidders, stream: Stream) -> Bidders:
    """Return the group with a margin drawn for one of its members."""
    spread = group.margin_spread_ppm
    factor_ppm = PPM - spread + stream.below(2 * spread + 1)
    return msgspec.structs.replace(group, margin_ppm=max(1, min(PPM, group.margin_ppm * factor_ppm // PPM)))
