"""What the merchant lays on pages: typed rules over product fields. `rules.py` compiles and applies them."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from affinity.audience import SegmentId
from affinity.catalog import Attribute, CategoryId, ProductId
from affinity.navigation import Moment
from auction.campaign import Name
from auction.placement import FloorMicros, Floors
from auction.request import PageType
from ledger.terms import Identifier


class Target(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, rename={"not_": "not"}):
    """A tree over product fields; one node is exactly one of `all`, `any`, `not` or a comparison on `field`.

    `field` is `product_id`, `brand`, `category_id` (with everything below it), `price_micros`, `margin_rate`,
    `stock`, `is_own_brand`, `rating`, `age_days`, `on_promotion`, or a custom attribute.
    """

    all: Annotated[list["Target"], Meta(min_length=1, max_length=32)] | None = None
    any: Annotated[list["Target"], Meta(min_length=1, max_length=32)] | None = None
    not_: "Target | None" = None
    field: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    equals: Attribute | None = None
    one_of: Annotated[list[Attribute], Meta(min_length=1, max_length=1000)] | None = None
    at_least: float | None = None
    at_most: float | None = None


class Scope(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Where a rule acts; what is left out does not restrict."""

    pages: Annotated[list[PageType], Meta(min_length=1, max_length=9)] | None = None
    placements: Annotated[list[Identifier], Meta(min_length=1, max_length=100)] | None = None
    categories: Annotated[list[CategoryId], Meta(min_length=1, max_length=200)] | None = None
    devices: Annotated[list[Identifier], Meta(min_length=1, max_length=50)] | None = None
    segments: Annotated[list[SegmentId], Meta(min_length=1, max_length=50)] | None = None


class Pin(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Put a product in a slot; placed before the auction and never sold."""

    product_id: ProductId
    slot_position: Annotated[int, Meta(ge=1, le=50)]


class Effect(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What the rule does: exactly one of these.

    Attributes:
        exclude: the target may not appear, paid or organic.
        pin: the product stands in that slot.
        boost: factor on the target's weight and organic score; below 1 it buries. Becomes parts per million.
        floor: the target pays at least this per click, or per charge type.
        brand_max: most fills of one brand among the target, in each placement in scope.
    """

    exclude: Literal[True] | None = None
    pin: Pin | None = None
    boost: Annotated[float, Meta(ge=0.000001, le=4.0)] | None = None
    floor: FloorMicros | Floors | None = None
    brand_max: Annotated[int, Meta(ge=1, le=50)] | None = None


class Schedule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """When the rule holds; an end left out is open."""

    starts_at: Moment | None = None
    ends_at: Moment | None = None


class RuleDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/rules`."""

    name: Name
    effect: Effect
    scope: Scope = Scope()
    target: Target | None = None  # None: every product
    schedule: Schedule = Schedule()
    priority: Annotated[int, Meta(ge=0, le=1000)] = 100  # higher first; breaks ties between pins
    stage: Literal["draft", "live"] = "draft"


class RetailerRule(Struct, frozen=True, kw_only=True):
    """A rule as it stands."""

    rule_id: str
    name: str
    effect: Effect
    scope: Scope
    target: Target | None
    schedule: Schedule
    priority: int
    stage: Literal["draft", "live", "archived"]
    created_at: Moment
    updated_at: Moment
    change_seq: int
