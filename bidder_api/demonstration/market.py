"""The demo's market: what a merchant and forty brands might have set up, made from the catalogue alone.

The data has no bids, so these are invented; always the same for the same catalogue. Holds no HTTP: `demo.py` posts it.
"""

from collections.abc import Iterable, Sequence
from zlib import crc32

from msgspec import Struct

from affinity.audience import Audience
from affinity.catalog import CATEGORY_SEPARATOR, Product
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep
from affinity.product_target import Target
from auction.campaign import BidDraft, CampaignDraft, FrequencyCap
from auction.placement import Floors, PlacementDraft
from auction.retailer_rule import Effect, Pin, RuleDraft, Scope
from bidder_api.shop.shelves import CATEGORY_SHELF, GENERATIONS, HOME_END_CAP, SHELVES
from ledger.terms import ChargeOn

BRAND_COUNT = 40
CATEGORIES_PER_BRAND_MAX = 4
PRODUCTS_PER_BID = 4
TOP_UP_MICROS = 250_000_000
ORGANIC_CLICK_VALUE_MICROS = 200_000  # what the demo's merchant says a click is worth without anybody paying for it

CLICK_FLOOR_MICROS = 30_000
CPM_FLOOR_MICROS = 1_000_000
PINS_PER_AISLE = 8
EVERYDAY_LINES = 2_500  # basket lines in the data's year


class Offer(Struct, frozen=True, kw_only=True):
    """A bid that still waits for the id of its campaign."""

    name: str
    draft: BidDraft


class Brand(Struct, frozen=True, kw_only=True):
    """An advertiser with one campaign and its bids."""

    advertiser_id: str
    campaign: CampaignDraft
    offers: list[Offer]


def placements() -> dict[str, PlacementDraft]:
    """Return the shop's placements by id: each shelf once per generation, paid places in the fourth alone."""
    made = {}
    for plan in SHELVES:
        for generation in GENERATIONS:
            is_sold = generation == "bids"
            made[plan.placement_id(generation)] = PlacementDraft(
                page_types=[plan.page_type],  # type: ignore[list-item]
                slot_count=plan.slot_count,
                attention_permille=[max(150, round(1000 * 0.93**place)) for place in range(plan.slot_count)],
                floor_micros=Floors(click=CLICK_FLOOR_MICROS, impression=CPM_FLOOR_MICROS),
                sponsored_max=plan.sponsored_max if is_sold else 0,
                brand_max=None,
                organic_source=plan.organic_source,
            )
    return made


def merchant_rules(products: Sequence[Product], end_caps: Iterable[tuple[str, str]]) -> list[RuleDraft]:
    """Return the merchant's rules: pins of the first generation, and what lies on the third and fourth.

    Args:
        products: the catalogue.
        end_caps: (aisle, product id) of what stood on physical end caps, most stores first within an aisle.
    """
    ruled = [plan.placement_id(generation) for plan in SHELVES for generation in ("rules", "bids")]
    ruled_home = [plan.placement_id(generation) for plan in SHELVES[:2] for generation in ("rules", "bids")]
    rules = [
        _rule("Push the house brand", ruled, Effect(boost=1.2), Target(field="is_own_brand", equals=True)),
        _rule("Push promotions", ruled, Effect(boost=1.15), Target(field="on_promotion", equals=True)),
        _rule("Push what is new", ruled, Effect(boost=1.3), Target(field="age_days", at_most=150)),
        _rule(
            "What everybody buys anyway needs no end cap",
            ruled_home,
            Effect(boost=0.5),
            Target(field="lines_sold", at_least=EVERYDAY_LINES),
        ),
        _rule(
            "At most three of one national brand on a shelf",
            ruled,
            Effect(brand_max=3),
            Target(field="is_own_brand", equals=False),
        ),
        _rule(
            "No cleaning products and no medicine on the home page",
            ruled_home,
            Effect(exclude=True),
            Target(
                any=[
                    Target(field="category_id", equals="Household > Cleaning"),
                    Target(field="category_id", equals="Health & beauty > Medicine cabinet"),
                ]
            ),
        ),
        _rule(
            "Baby products are not sold cheaply",
            ruled,
            Effect(floor=Floors(click=80_000, impression=4_000_000)),
            Target(field="category_id", equals="Baby"),
        ),
    ]
    return rules + _pins(products, end_caps)


def _pins(products: Sequence[Product], end_caps: Iterable[tuple[str, str]]) -> list[RuleDraft]:
    """Pin what stood on real end caps: one per aisle on the home page, the best eight on each aisle's own page."""
    category = {product.product_id: product.product_type or "" for product in products if product.is_available}
    by_aisle: dict[str, list[str]] = {}
    for aisle, product_id in end_caps:
        if product_id in category:
            by_aisle.setdefault(aisle, []).append(product_id)
    home = HOME_END_CAP.placement_id("pinned")
    pins = [
        _pin(home, [], product_ids[0], position)
        for position, product_ids in enumerate(list(by_aisle.values())[: HOME_END_CAP.slot_count], 1)
    ]
    shelf = CATEGORY_SHELF.placement_id("pinned")
    for aisle, product_ids in by_aisle.items():
        for position, product_id in enumerate(product_ids[:PINS_PER_AISLE], 1):
            pins.append(_pin(shelf, [aisle], product_id, position))
    return pins


def _pin(placement_id: str, categories: list[str], product_id: str, position: int) -> RuleDraft:
    where = categories[0] if categories else "home"
    return RuleDraft(
        name=f"End cap, {where}, slot {position}",
        effect=Effect(pin=Pin(product_id=product_id, slot_position=position)),
        scope=Scope(placements=[placement_id], categories=categories or None),
        stage="live",
    )


def _rule(name: str, placement_ids: list[str], effect: Effect, target: Target) -> RuleDraft:
    return RuleDraft(name=name, effect=effect, scope=Scope(placements=placement_ids), target=target, stage="live")


def brands(products: Sequence[Product]) -> list[Brand]:
    """Return the forty national brands that sell most, each with a campaign and bids on its best products."""
    own: dict[str, list[Product]] = {}
    for product in products:
        if product.is_available and product.advertiser_ids:
            own.setdefault(product.advertiser_ids[0], []).append(product)
    sold = {advertiser_id: sum(map(_lines_sold, theirs)) for advertiser_id, theirs in own.items()}
    biggest = sorted(own, key=lambda advertiser_id: (-sold[advertiser_id], advertiser_id))[:BRAND_COUNT]
    return [_brand(advertiser_id, own[advertiser_id]) for advertiser_id in biggest]


def _brand(advertiser_id: str, products: list[Product]) -> Brand:
    """Make a brand's campaign: open bids on its best sellers, and bids for visitors it would like to win."""
    products = sorted(products, key=lambda product: (-_lines_sold(product), product.product_id))
    name = products[0].brand
    chance = _Chance(advertiser_id)
    by_category: dict[str, list[Product]] = {}
    for product in products:
        category = CATEGORY_SEPARATOR.join((product.product_type or "").split(CATEGORY_SEPARATOR)[:2])
        by_category.setdefault(category, []).append(product)
    offers = []
    for place, (category, theirs) in enumerate(list(by_category.items())[:CATEGORIES_PER_BRAND_MAX]):
        product_ids = [product.product_id for product in theirs[:PRODUCTS_PER_BID]]
        click = _click_bid(theirs[0], chance)
        offers.append(_offer(f"{category}: everybody", product_ids, click))
        offers.append(_tempting(category, name, product_ids, click, place + chance.below(5)))
        if place % 3 == 2:
            cpm = (2 + chance.below(9)) * 500_000 + CPM_FLOOR_MICROS
            offers.append(_offer(f"{category}: to be seen", product_ids, cpm, charge_on=ChargeOn.IMPRESSION))
    campaign = CampaignDraft(
        name=f"{name}, all year",
        advertiser_id=advertiser_id,
        daily_budget_micros=(20 + chance.below(60)) * 1_000_000,
        total_budget_micros=TOP_UP_MICROS,
        pacing="asap" if chance.below(3) == 0 else "even",
    )
    return Brand(advertiser_id=advertiser_id, campaign=campaign, offers=offers)


def _tempting(category: str, brand: str, product_ids: list[str], click_micros: int, kind: int) -> Offer:
    """Return a dearer bid for visitors a brand wants more than others; which, goes round by `kind`."""
    audience: Audience | None = None
    pattern: NavigationPattern | None = None
    factor, cap = 2, FrequencyCap(count=6, window_s=86_400)
    match kind % 5:
        case 0:
            whom = "looked here twice this session and did not buy"
            factor = 4
            pattern = NavigationPattern(
                within="session",
                steps=[PatternStep(action=Action.VIEW_ITEM, category_id=category, at_least=2)],
                without=[PatternStep(action=Action.PURCHASE, category_id=category)],
            )
        case 1:
            whom = "buy on promotion"
            audience = Audience(score="promophile", at_least=70)
        case 2:
            whom = "champions and loyal who have not bought the brand for 90 days"
            factor = 3
            audience = Audience(
                all=[
                    Audience(rfm=["champion", "loyal"]),
                    Audience(not_=Audience(bought_brand_within_days=90, brand=brand)),
                ]
            )
        case 3:
            whom = "bought in this category within 60 days"
            factor = 3
            audience = Audience(bought_category_within_days=60, category_id=category)
        case _:
            whom = "about to leave"
            audience = Audience(any=[Audience(segment="rfm-at-risk"), Audience(segment="rfm-hibernating")])
    return _offer(
        f"{category}: {whom}", product_ids, click_micros * factor, audience=audience, pattern=pattern, cap=cap
    )


def _offer(
    name: str,
    product_ids: list[str],
    bid_micros: int,
    *,
    charge_on: ChargeOn = ChargeOn.CLICK,
    audience: Audience | None = None,
    pattern: NavigationPattern | None = None,
    cap: FrequencyCap | None = None,
) -> Offer:
    draft = BidDraft(
        campaign_id="…",
        product_ids=product_ids,
        bid_micros=bid_micros,
        charge_on=charge_on,
        audience=audience,
        navigation_pattern=pattern,
        frequency_cap=cap,
    )
    return Offer(name=name, draft=draft)


def _click_bid(product: Product, chance: "_Chance") -> int:
    """Bid one to three hundredths of the price for a click, within what a grocer's click is worth."""
    share = 10 + chance.below(21)
    bid = product.price_micros * share // 1_000
    return min(150_000, max(CLICK_FLOOR_MICROS, bid)) // 1_000 * 1_000


def _lines_sold(product: Product) -> int:
    return int(product.attributes.get("lines_sold", 0))


class _Chance:
    """Numbers that look random and follow from a name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def below(self, limit: int) -> int:
        """Return the next number from 0 up to a limit."""
        self._count += 1
        return crc32(f"{self._name}/{self._count}".encode()) % limit
