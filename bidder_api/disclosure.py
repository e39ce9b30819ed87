"""How auctions here are decided, told to those who bid in them: from what is configured now, not from a brochure.

After the Media Rating Council's auction transparency standards (2024): the type of auction, who wins and what they pay,
floors and how they move, what is done with bids, what else has a say, and how often the rules change.
"""

from datetime import datetime
from typing import Literal

from msgspec import Struct
from sqlalchemy.engine import Connection

from auction.placement import Floors, Placement
from auction.rules import EVALUATION_ORDER
from auction.settings import Settings
from auction.store import list_placements, list_rules
from bidder_api.call import Answer, Call, Work
from bidder_api.resources import moment
from bidder_api.store import summarize_changes

LISTED_COUNT_MAX = 10_000
DAYS = (7, 30, 90)
DAY_MS = 86_400_000
TOLD_KINDS = ("placement", "rule", "page_type")
PRICE_RULES = {
    "critical": "The least bid, in whole micros, with which the winner would have kept its place; never above its bid.",
    "vcg": "What the winner's being there costs the others, never more than the least bid that keeps its place.",
    "first": "The winner's own bid; for prices agreed beforehand.",
}
WIN_RULES = {
    "greedy": "The most valuable pair of product and slot first, then the next that is still possible.",
    "exact": "The page that is worth most in all, where its caps allow it and there is time; else as greedy.",
}


class PlacementRules(Struct, frozen=True, kw_only=True):
    """What holds in one placement.

    Attributes:
        floors: least bid for a click, and for 1,000 impressions.
    """

    placement_id: str
    page_types: list[str]
    slot_count: int
    winner_rule: str
    price_rule: str
    floors: Floors
    score_floor_micros: int
    relevance_floor_ppm: int
    brand_max: int | None
    sponsored_max: int | None


class RuleChanges(Struct, frozen=True, kw_only=True):
    """How often placements, caps of pages and retailer rules were changed of late."""

    kind: Literal["placement", "rule", "page_type"]
    last_7_days: int
    last_30_days: int
    last_90_days: int
    last_changed_at: datetime | None


class AuctionDisclosure(Struct, frozen=True, kw_only=True):
    """How auctions here are decided."""

    auction_type: str
    value_rule: str
    tie_rule: str
    floor_rule: str
    floor_movement: str
    use_of_bids: str
    budget_rule: str
    visitor_data: str
    retailer_rules: str
    retailer_rule_order: list[str]
    live_rule_count: int
    experiment: str
    proof: str
    placements: list[PlacementRules]
    changes: list[RuleChanges]


def disclosing(settings: Settings) -> Work:
    """Return the operation that tells how auctions are decided under these settings."""

    def read_disclosure(connection: Connection, call: Call) -> Answer:
        placements = list_placements(connection, call.retailer_id, None, LISTED_COUNT_MAX)
        live = list_rules(connection, call.retailer_id, None, LISTED_COUNT_MAX, stage="live")
        return Answer(
            body=AuctionDisclosure(
                auction_type="One sealed-bid auction for all slots of a page; each bid is asked for once.",
                value_rule="A bid is worth its price per event, times how likely the event is there, times the slot's "
                "attention, plus what the product is worth to the retailer without it.",
                tie_rule="Exact ties go to the earlier slot, then are drawn by a keyed hash of the auction, which "
                "nobody can know beforehand.",
                floor_rule="Floors are the placement's and those of retailer rules, the highest counts; a bid under "
                "it takes no part, and none that is over it is told apart by who bids.",
                floor_movement="Floors are set by the retailer's staff; no program and no bid moves them.",
                use_of_bids="Bids decide the auction they are made in. They set no floor, reach no other advertiser "
                "and train no model. Nobody bids with knowledge of others' bids.",
                budget_rule="A campaign that spends too fast has its bids lowered, the same for every page; it is "
                "never charged above its budgets.",
                visitor_data="Audiences, navigation patterns and predictions use what a visitor did here, with "
                "consent only.",
                retailer_rules="The retailer may exclude, pin, boost or require products and cap brands, by rules "
                "that do not depend on bids.",
                retailer_rule_order=EVALUATION_ORDER,
                live_rule_count=len(live),
                experiment=_experiment(settings),
                proof="Every auction leaves a receipt: GET /v1/auctions/{auction_id} says of your own bids what was "
                "won, at what price, and why others lost.",
                placements=[_rules_of(placement) for placement in placements],
                changes=[_changes_of(connection, call, kind) for kind in TOLD_KINDS],
            )
        )

    return read_disclosure


def _experiment(settings: Settings) -> str:
    if not settings.holdout_ppm:
        return "None runs now."
    share = settings.holdout_ppm / 10_000
    return f"{share:g} % of visitors see no paid product ({settings.experiment_id}), to measure what ads bring."


def _rules_of(placement: Placement) -> PlacementRules:
    return PlacementRules(
        placement_id=placement.placement_id,
        page_types=placement.page_types,
        slot_count=placement.slot_count,
        winner_rule=WIN_RULES[placement.allocation],
        price_rule=PRICE_RULES[placement.pricing],
        floors=placement.floor_micros,
        score_floor_micros=placement.score_floor_micros,
        relevance_floor_ppm=placement.relevance_floor_ppm,
        brand_max=placement.brand_max,
        sponsored_max=placement.sponsored_max,
    )


def _changes_of(connection: Connection, call: Call, kind: str) -> RuleChanges:
    counts = [summarize_changes(connection, call.retailer_id, kind, call.now_ms - days * DAY_MS)[0] for days in DAYS]
    _, last_ms = summarize_changes(connection, call.retailer_id, kind, 0)
    return RuleChanges(
        kind=kind,  # type: ignore[arg-type]
        last_7_days=counts[0],
        last_30_days=counts[1],
        last_90_days=counts[2],
        last_changed_at=None if last_ms is None else moment(last_ms),
    )
