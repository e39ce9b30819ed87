"""Where slots are: placements with their attention, pricing, floors and caps, and caps of whole pages."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from auction.request import PageType
from ledger.money import BID_MICROS_MAX
from ledger.terms import Identifier

Allocation = Literal["greedy", "exact"]
OrganicSource = Literal["affinity", "recently_viewed", "cart", "complements", "best_sellers", "caller"]
Permille = Annotated[int, Meta(ge=1, le=1000)]
AttentionList = Annotated[list[Permille], Meta(min_length=1, max_length=50)]
FloorMicros = Annotated[int, Meta(ge=0, le=BID_MICROS_MAX)]
Count = Annotated[int, Meta(ge=0, le=50)]
EXPLORATION_COST_PPM_MAX = 100_000  # a tenth of a page's value is a dear lesson
VisitorCount = Annotated[int, Meta(ge=1, le=200)]


class Attention(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Attention per slot and charge type, per mille of the page's best slot; never rising down the page."""

    click: AttentionList
    impression: AttentionList


class Floors(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Least price per click, and per 1,000 impressions (a multiple of 1,000)."""

    click: FloorMicros = 0
    impression: FloorMicros = 0


class CoolDown(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """After `count` sponsored products without a click between them, none for `seconds`.

    A click on a sponsored product of the placement begins the count anew, and so do `seconds` without any.
    """

    count: VisitorCount
    seconds: Annotated[int, Meta(ge=60, le=30 * 86_400)]


class VisitorLimit(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Most sponsored products the placement shows one visitor, across all advertisers.

    Counts visitors who consented and have an id; of others nothing may be kept, and they are not limited.

    Attributes:
        session: in one session, which ends with half an hour without anything.
        day: from the retailer's midnight to the next.
    """

    session: VisitorCount | None = None
    day: VisitorCount | None = None
    cool_down_after_unclicked: CoolDown | None = None


class PlacementDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `PUT /v1/placements/{placement_id}`: the whole placement, replaced.

    Attributes:
        attention_permille: one list for both charge types, or one each; left out, 1000 · 0.85^(t-1) for slot t.
        pricing: what a winner pays: `critical`, the least bid that keeps its place; `vcg`, the harm it does to the
            others; `first`, its own bid, which is for prices agreed beforehand: in an open auction it invites everybody
            to bid less than the product is worth to them.
        allocation: `greedy`, the most valuable pair of product and slot first; `exact`, the page worth most, where its
            caps allow it and there is time. All placements of a request must have the same.
        floor_micros: floor of clicks, or one for each charge type.
        score_floor_micros: least score w·b + h, in micros per impression.
        relevance_floor_ppm: least relevance of a paid product.
        brand_max, sponsored_max: most fills of one brand, and most paid ones, in this placement.
        sponsored_per_visitor: most paid fills one visitor is shown here.
        exploration_cost_ppm: how much of its pages' value, in parts per million, may be given up to find out which
            products are clicked; 0: none.
        organic_source: where organic products of a merchandised page come from, where the request names no candidates:
            `affinity`, the products of the page's context; `recently_viewed`, what the visitor viewed last and did not
            buy since; `cart`, what is in their cart; `complements`, what is bought together with that, or with the
            page's product where the cart is empty; `best_sellers` of the page's context; `caller`, nowhere else: none.
    """

    page_types: Annotated[list[PageType], Meta(min_length=1, max_length=9)]
    slot_count: Annotated[int, Meta(ge=1, le=50)]
    attention_permille: AttentionList | Attention | None = None
    pricing: Literal["critical", "vcg", "first"] = "critical"
    allocation: Allocation = "greedy"
    floor_micros: FloorMicros | Floors = 0
    score_floor_micros: FloorMicros = 0
    relevance_floor_ppm: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    squashing_ppm: Annotated[int, Meta(ge=0, le=1_000_000)] = 1_000_000
    brand_max: Count | None = None
    sponsored_max: Count | None = None
    sponsored_per_visitor: VisitorLimit | None = None
    exploration_cost_ppm: Annotated[int, Meta(ge=0, le=EXPLORATION_COST_PPM_MAX)] = 0
    organic_source: OrganicSource = "affinity"


class Placement(Struct, frozen=True, kw_only=True):
    """A placement as it stands, with every default filled in."""

    placement_id: Identifier
    page_types: list[str]
    slot_count: int
    attention_permille: Attention
    pricing: str
    allocation: str
    floor_micros: Floors
    score_floor_micros: int
    relevance_floor_ppm: int
    squashing_ppm: int
    brand_max: int | None
    sponsored_max: int | None
    change_seq: int
    sponsored_per_visitor: VisitorLimit | None = None
    exploration_cost_ppm: int = 0
    organic_source: OrganicSource = "affinity"


class PageCaps(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `PUT /v1/page-types/{type}`: caps over all placements of one page."""

    brand_max: Count | None = None
    sponsored_max: Count | None = None
