"""Small and large worlds to hold auctions in: products, campaigns, bids and placements made from a few words."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from affinity.catalog import Product
from affinity.model import BoundModel, neutral_model
from affinity.product_target import Target
from affinity.targets import Targets, compile_targets
from affinity.view import VisitorView, anonymous_view
from auction.booking import Booking
from auction.builder import SnapshotSource, build_snapshot
from auction.campaign import Bid, Campaign
from auction.engine import Outcome, hold_auction, no_deadline
from auction.market import Market
from auction.placement import Attention, Floors, Placement
from auction.request import Page, RequestPlacement, SlotRequest
from auction.retailer_rule import Effect, RetailerRule, Schedule, Scope
from auction.settings import Settings
from auction.snapshot import Snapshot
from auction.spend import SpendView
from ledger.terms import ChargeOn

NOW_MS = 1_790_000_000_000  # a Monday afternoon
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
SETTINGS = Settings()


def product(product_id: str, category: str | None = "Shoes > Running", **changes: Any) -> Product:
    fields: dict[str, Any] = {
        "product_id": product_id,
        "title": f"Title {product_id}",
        "product_type": category,
        "price_micros": 50_000_000,
        "brand": f"brand-{product_id}",
        "advertiser_ids": ["adv_a", "adv_b", "adv_c"],
    }
    return Product(**fields | changes)


def campaign(campaign_id: str = "cmp_a", advertiser_id: str = "adv_a", **changes: Any) -> Campaign:
    fields: dict[str, Any] = {
        "campaign_id": campaign_id,
        "advertiser_id": advertiser_id,
        "name": campaign_id,
        "daily_budget_micros": None,
        "total_budget_micros": None,
        "flight_starts_at": None,
        "flight_ends_at": None,
        "pacing": "asap",
        "status": "active",
        "created_at": NOW,
        "updated_at": NOW,
        "change_seq": 1,
    }
    return Campaign(**fields | changes)


def bid(
    bid_id: str, product_ids: Sequence[str], bid_micros: int = 1_000_000, campaign_id: str = "cmp_a", **changes: Any
) -> Bid:
    fields: dict[str, Any] = {
        "bid_id": bid_id,
        "campaign_id": campaign_id,
        "advertiser_id": "adv_" + campaign_id.removeprefix("cmp_"),
        "product_ids": list(product_ids),
        "bid_micros": bid_micros,
        "charge_on": ChargeOn.CLICK,
        "audience": None,
        "navigation_pattern": None,
        "pages": None,
        "category_ids": None,
        "keywords": None,
        "negative_keywords": None,
        "placement_multipliers": {},
        "frequency_cap": None,
        "context": None,
        "status": "active",
        "created_at": NOW,
        "updated_at": NOW,
        "change_seq": 1,
    }
    return Bid(**fields | changes)


def placement(placement_id: str = "top", slot_count: int = 2, **changes: Any) -> Placement:
    attention = [max(1, round(1000 * 0.85**slot)) for slot in range(slot_count)]
    fields: dict[str, Any] = {
        "placement_id": placement_id,
        "page_types": ["home", "category", "search", "product"],
        "slot_count": slot_count,
        "attention_permille": Attention(click=attention, impression=attention),
        "pricing": "critical",
        "allocation": "greedy",
        "floor_micros": Floors(),
        "score_floor_micros": 0,
        "relevance_floor_ppm": 0,
        "squashing_ppm": 1_000_000,
        "brand_max": None,
        "sponsored_max": None,
        "change_seq": 1,
    }
    return Placement(**fields | changes)


def rule(rule_id: str, effect: Effect, target: Target | None = None, **changes: Any) -> RetailerRule:
    fields: dict[str, Any] = {
        "rule_id": rule_id,
        "name": rule_id,
        "effect": effect,
        "scope": Scope(),
        "target": target,
        "schedule": Schedule(),
        "priority": 100,
        "stage": "live",
        "created_at": NOW,
        "updated_at": NOW,
        "change_seq": 1,
    }
    return RetailerRule(**fields | changes)


def source(**changes: Any) -> SnapshotSource:
    fields: dict[str, Any] = {
        "version": 7,
        "currency": "EUR",
        "time_zone": "Europe/Paris",
        "read_at_ms": NOW_MS,
        "products": [product(f"p{number}") for number in range(1, 7)],
        "advertiser_names": {"adv_a": "Brand A", "adv_b": "Brand B", "adv_c": "Brand C"},
        "placements": [placement()],
        "campaigns": [campaign(f"cmp_{letter}", f"adv_{letter}") for letter in "abc"],
        "bids": [],
        "rules": [],
    }
    return SnapshotSource(**fields | changes)


class World:
    """A market with everything an auction needs, every advertiser with plenty of funds."""

    def __init__(self, made_from: SnapshotSource, quality_ppm: dict[str, int] | None = None) -> None:
        self.snapshot: Snapshot = build_snapshot(made_from)
        self.model: BoundModel = neutral_model(self.snapshot.product_id)
        if quality_ppm is not None:
            base = [quality_ppm.get(name, 10_000) for name in self.snapshot.product_id]
            self.model.base_quality_ppm = np.array(base, np.int64)
        self.market = Market(self.snapshot, self.model)
        self.targets: Targets = compile_targets(
            self.snapshot.targets_spec.audiences,
            self.snapshot.targets_spec.patterns,
            sets=self.snapshot.product_sets(),
        )
        self.spend = SpendView(SETTINGS, self.snapshot)
        for advertiser_id in self.snapshot.advertiser_id:
            self.spend.apply_funds(advertiser_id, 10**12)
        self.spend.refresh(NOW_MS)

    def visitor(self, **changes: Any) -> VisitorView:
        """A visitor with consent of whom nothing is known, but for the changes."""
        import msgspec

        return msgspec.structs.replace(
            anonymous_view(self.targets), **{"has_consent": True, "pseudonym": b"\1" * 16} | changes
        )

    def hold(
        self,
        asked: SlotRequest,
        visitor: VisitorView | None = None,
        tie_seed: int = 1,
        settings: Settings = SETTINGS,
        **rest: Any,
    ) -> Outcome:
        view = anonymous_view(self.targets) if visitor is None else visitor
        return hold_auction(
            asked, "auc_1", self.market, view, self.spend, no_deadline(NOW_MS), tie_seed, settings, **rest
        )

    def winners(self, outcome: Outcome, place: int = 0) -> list[tuple[str, int]]:
        """Product and price of each filled slot."""
        return [
            (self.snapshot.product_id[one.product_row], one.price_micros) for one in outcome.places[place].decisions
        ]


def request(page: Page | None = None, **changes: Any) -> SlotRequest:
    fields: dict[str, Any] = {
        "page": page or Page(type="category", category_id="Shoes > Running"),
        "placements": [RequestPlacement(placement_id="top")],
    }
    return SlotRequest(**fields | changes)


def large_source(
    bid_count: int,
    product_count: int = 20_000,
    advertiser_count: int = 400,
    seed: int = 1,
    slot_count: int = 8,
) -> SnapshotSource:
    """A shop with so many bids: mixed contexts, audiences and patterns on half of the bids, as one would find."""
    from affinity.audience import Audience
    from affinity.navigation import Action
    from affinity.pattern import NavigationPattern, PatternStep
    from auction.campaign import Keyword

    chance = random.Random(seed)
    departments = [f"D{number}" for number in range(8)]
    leaves = [f"{one} > C{number} > T{chance.randrange(3)}" for one in departments for number in range(12)]
    words = [f"word{number}" for number in range(500)]
    advertisers = [f"adv_{number:04d}" for number in range(advertiser_count)]
    products = [
        Product(
            product_id=f"p{number:06d}",
            title=" ".join(chance.sample(words, 4)),
            price_micros=chance.randrange(1_000_000, 90_000_000),
            brand=f"brand{number % advertiser_count}",
            product_type=leaves[min(int(chance.expovariate(0.05)), len(leaves) - 1)],
            advertiser_ids=[advertisers[number % advertiser_count]],
            stock=0 if chance.random() < 0.02 else 10,
        )
        for number in range(product_count)
    ]
    campaigns = [campaign(f"cmp_{name}_{part}", name) for name in advertisers for part in range(5)]
    audiences = [Audience(segment=f"segment{number}") for number in range(60)]
    patterns = [
        NavigationPattern(
            within="session",
            steps=[PatternStep(action=Action.VIEW_ITEM, category_id=chance.choice(leaves), at_least=1 + number % 3)],
        )
        for number in range(60)
    ]
    bids = []
    for number in range(bid_count):
        promoted = products[chance.randrange(product_count)]
        advertiser = promoted.advertiser_ids[0]
        extra: dict[str, Any] = {}
        kind = chance.random()
        if kind < 0.3:
            extra["audience"] = chance.choice(audiences)
        elif kind < 0.5:
            extra["navigation_pattern"] = chance.choice(patterns)
        where = chance.random()
        if where < 0.1:
            extra["keywords"] = [
                Keyword(text=chance.choice(words), match=chance.choice(["exact", "phrase", "broad"])) for _ in range(2)
            ]
        elif where < 0.15:
            extra["category_ids"] = [promoted.product_type]
        if chance.random() < 0.1:
            extra["placement_multipliers"] = {"top": chance.choice([0.5, 1.5])}
        is_impression = chance.random() < 0.2
        amount = int(min(max(chance.lognormvariate(0, 0.7) * 300_000, 20_000), 5_000_000))
        bids.append(
            bid(
                f"bid_{number:07d}",
                [promoted.product_id],
                amount // 1_000 * 1_000 * 20 if is_impression else amount,
                f"cmp_{advertiser}_{number % 5}",
                advertiser_id=advertiser,
                charge_on=ChargeOn.IMPRESSION if is_impression else ChargeOn.CLICK,
                **extra,
            )
        )
    return SnapshotSource(
        version=1,
        currency="EUR",
        time_zone="Europe/Paris",
        read_at_ms=NOW_MS,
        products=products,
        advertiser_names={name: name for name in advertisers},
        placements=[placement("top", slot_count, brand_max=2, floor_micros=Floors(click=10_000))],
        campaigns=campaigns,
        bids=bids,
    )


def some_quality(product_ids: Sequence[str], seed: int = 2) -> np.ndarray[Any, np.dtype[np.int64]]:
    chance = np.random.default_rng(seed)
    return np.clip(chance.lognormal(np.log(15_000), 0.6, len(product_ids)), 500, 300_000).astype(np.int64)


def booking(booking_id: str, product_id: str, slot_position: int = 1, **changes: Any) -> Booking:
    fields: dict[str, Any] = {
        "booking_id": booking_id,
        "placement_id": "top",
        "slot_position": slot_position,
        "product_id": product_id,
        "advertiser_id": "adv_c",
        "starts_at": NOW - timedelta(hours=1),
        "ends_at": NOW + timedelta(hours=1),
        "price_micros": 500_000_000,
        "status": "active",
        "created_at": NOW,
        "updated_at": NOW,
        "change_seq": 1,
    }
    return Booking(**fields | changes)
