"""From what the engine answered to what a page shows: tiles, their labels, and why each is where it is."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from auction.placement import OrganicSource
from auction.request import Fill, SlotResponse
from bidder_api.shop.catalogue import ShopCatalogue, ShopProduct
from bidder_api.shop.shelves import ShelfPlan
from bidder_api.shop.words import Formats


class Reasons(Struct, frozen=True, kw_only=True):
    """What a receipt says of one fill.

    Attributes:
        organic_source: where organic products of its placement come from; None where the receipt does not say.
        affinity: the visitor's own, 0 to 1; None where nothing of this visitor's played a part.
        rules: names of the rules that touched it.
        bid_micros: most its brand pays for one billed event.
        audience: for whom the bid is, in words; empty for everybody.
    """

    quality_ppm: int
    organic_source: OrganicSource | None = None
    affinity: float | None = None
    is_pinned: bool = False
    rules: Sequence[str] = ()
    bid_micros: int | None = None
    audience: str = ""


class Explanation(Struct, frozen=True, kw_only=True):
    """What a receipt says of an auction: how many products it looked at, and the reasons of its fills by product."""

    candidate_count: int
    reasons: Mapping[str, Reasons]


class Fact(Struct, frozen=True):
    """One line of a list of facts."""

    label: str
    value: str


class Tile(Struct, frozen=True, kw_only=True):
    """A product in a slot, every word of it ready to print."""

    product_id: str
    name: str
    size: str
    brand: str
    url: str
    picture: str
    price: str
    old_price: str | None
    beacon_token: str
    is_sponsored: bool
    label: str
    on_behalf_of: str
    reason: str
    facts: list[Fact]


class Shelf(Struct, frozen=True, kw_only=True):
    """A placement's tiles under a heading."""

    placement_id: str
    heading: str
    tiles: list[Tile]


class DecidedPage(Struct, frozen=True, kw_only=True):
    """Everything one auction put on a page, and the auction in a line."""

    shelves: list[Shelf]
    auction_id: str
    duration: str
    candidate_count: str
    paid_count: int
    worth: str


def lay_out(
    response: SlotResponse,
    plans: Sequence[ShelfPlan],
    explanation: Explanation | None,
    duration_us: int,
    catalogue: ShopCatalogue,
    words: Mapping[str, str],
    formats: Formats,
) -> DecidedPage:
    """Return what a page shows of an answer; `plans` in the order of its placements."""
    shelves = []
    paid: list[Fill] = []
    for plan, placement in zip(plans, response.placements, strict=True):
        tiles = []
        for fill in placement.fills:
            product = catalogue.products.get(fill.product_id)
            if product is None:
                continue
            reasons = explanation.reasons.get(fill.product_id) if explanation else None
            tiles.append(make_tile(product, fill, reasons, words, formats))
            if fill.is_sponsored:
                paid.append(fill)
        if not tiles and plan.organic_source != "affinity":
            continue
        shelves.append(Shelf(placement_id=placement.placement_id, heading=words[plan.heading], tiles=tiles))
    worth = sum(fill.clearing_price_micros or 0 for fill in paid)
    return DecidedPage(
        shelves=shelves,
        auction_id=response.auction_id,
        duration=f"{formats.number(round(duration_us / 1000, 1))} ms",
        candidate_count=formats.number(explanation.candidate_count) if explanation else "",
        paid_count=len(paid),
        worth=formats.price(worth) if worth else "",
    )


def make_tile(
    product: ShopProduct, fill: Fill, reasons: Reasons | None, words: Mapping[str, str], formats: Formats
) -> Tile:
    """Return a filled slot's tile."""
    disclosure = fill.disclosure
    price, old_price = prices(product, formats)
    return Tile(
        product_id=product.product.product_id,
        name=product.name,
        size=product.size,
        brand=product.product.brand,
        url=product.url,
        picture=product.picture,
        price=price,
        old_price=old_price,
        beacon_token=fill.beacon_token,
        is_sponsored=fill.is_sponsored,
        label=words["sponsored"] if fill.is_sponsored else "",
        on_behalf_of=(disclosure.on_behalf_of or product.product.brand) if disclosure else "",
        reason=_reason(fill, reasons, words),
        facts=_facts(fill, reasons, words, formats),
    )


def prices(product: ShopProduct, formats: Formats) -> tuple[str, str | None]:
    """Return the price now and, on promotion, the one before."""
    shelf_price, sale_price = product.product.price_micros, product.product.sale_price_micros
    if sale_price is None or sale_price >= shelf_price:
        return formats.price(shelf_price), None
    return formats.price(sale_price), formats.price(shelf_price)


def _reason(fill: Fill, reasons: Reasons | None, words: Mapping[str, str]) -> str:
    if fill.is_sponsored:
        return words["why_paid"]
    if reasons is not None and reasons.is_pinned:
        return words["why_pinned"]
    return words.get(f"why_{reasons.organic_source}", words["why_organic"]) if reasons else words["why_organic"]


def _facts(fill: Fill, reasons: Reasons | None, words: Mapping[str, str], formats: Formats) -> list[Fact]:
    facts = []
    if reasons is not None:
        affinity = words["popular"] if reasons.affinity is None else formats.percent(reasons.affinity)
        facts.append(Fact(words["affinity"], affinity))
        facts.append(Fact(words["quality"], formats.percent(reasons.quality_ppm / 1_000_000, 2)))
        facts.append(Fact(words["rules"], ", ".join(reasons.rules) or words["none"]))
        if reasons.audience:
            facts.append(Fact(words["audience"], reasons.audience))
    if fill.is_sponsored and fill.clearing_price_micros is not None:
        per = words["per_click" if fill.charge_on == "click" else "per_impression"]
        if reasons is not None and reasons.bid_micros is not None:
            facts.append(Fact(words["bid"], f"{formats.small_price(reasons.bid_micros)} {per}"))
        facts.append(Fact(words["price"], f"{formats.small_price(fill.clearing_price_micros)} {per}"))
    return facts
