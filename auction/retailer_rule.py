"""What the merchant lays on pages: typed rules over product fields. `rules.py` compiles and applies them."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from affinity.catalog import CategoryId, ProductId
from affinity.navigation import Moment
from affinity.product_target import Target
from affinity.profile import SegmentId
from auction.campaign import Name, TemperatureRange
from auction.placement import FloorMicros, Floors
from auction.request import PageType
from ledger.terms import Identifier

OneOf = Annotated[list[Identifier], Meta(min_length=1, max_length=200)]
Hour = Annotated[int, Meta(ge=0, le=23)]
ValueMicros = Annotated[int, Meta(ge=0, le=10**9)]  # of one impression


class Scope(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Where a rule acts; what is left out does not restrict."""

    pages: Annotated[list[PageType], Meta(min_length=1, max_length=9)] | None = None
    placements: Annotated[list[Identifier], Meta(min_length=1, max_length=100)] | None = None
    categories: Annotated[list[CategoryId], Meta(min_length=1, max_length=200)] | None = None
    devices: Annotated[list[Identifier], Meta(min_length=1, max_length=50)] | None = None
    segments: Annotated[list[SegmentId], Meta(min_length=1, max_length=50)] | None = None


class HourRange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"from_": "from"}):
    """From the beginning of one hour to the beginning of another, in the retailer's time zone: 22 to 6 is the night."""

    from_: Hour
    to: Annotated[int, Meta(ge=0, le=24)]

    def includes(self, hour: int) -> bool:
        """Say whether an hour of the day, 0 to 23, is in it."""
        if self.from_ < self.to:
            return self.from_ <= hour < self.to
        return hour >= self.from_ or hour < self.to


class Condition(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What must be true of a request: exactly one of these.

    Attributes:
        device, region, store, weather: the context's value is one of them. Where the context says no weather or
            temperature, those of its region at that hour count (`endcap weather import`).
        segment: the visitor is in one of them.
        hour, hours: of the day, in the retailer's time zone.
        temperature_c: of the context, or of its region.
    """

    device: OneOf | None = None
    region: OneOf | None = None
    store: OneOf | None = None
    weather: OneOf | None = None
    segment: Annotated[list[SegmentId], Meta(min_length=1, max_length=50)] | None = None
    hour: HourRange | None = None
    hours: Annotated[list[Hour], Meta(min_length=1, max_length=24)] | None = None
    temperature_c: TemperatureRange | None = None


class Pin(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Put a product in a slot; placed before the auction and never sold."""

    product_id: ProductId
    slot_position: Annotated[int, Meta(ge=1, le=50)]


class Novelty(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Worth so much on the day of its launch, and evenly less until `within_days` later, when it is worth nothing."""

    amount_micros: ValueMicros
    within_days: Annotated[int, Meta(ge=1, le=3650)]


class StockValue(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Worth so much while there are at least so many units left; not where the catalogue does not say."""

    amount_micros: ValueMicros
    at_least: Annotated[int, Meta(ge=1, le=10**9)]


class Value(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What an impression of a product is worth to the merchant without any bid, in micros: the sum of these.

    Attributes:
        amount_micros: the same for every product.
        margin_share: share of the product's margin (price now times `margin_rate`), such as the orders one expects of
            an impression: 0.002 of a margin of 10.00 is 0.02. Becomes parts per million; rounded down to a micro.
        novelty: falls with the days since `launched_at`.
        promotion_micros: while its price is lowered.
        own_brand_micros: if it is of the retailer's own brand.
        stock: while there is much of it.
    """

    amount_micros: ValueMicros = 0
    margin_share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    novelty: Novelty | None = None
    promotion_micros: ValueMicros = 0
    own_brand_micros: ValueMicros = 0
    stock: StockValue | None = None


class Spacing(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Of any `slots` slots one after the other, at most one goes to the same brand, or to the target."""

    slots: Annotated[int, Meta(ge=2, le=50)]
    of: Literal["brand", "target"] = "brand"


class Effect(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What the rule does: exactly one of these.

    Attributes:
        exclude: the target may not appear, paid or organic.
        require: nothing but the target may appear.
        pin: the product stands in that slot.
        boost: factor on the target's weight and organic score; below 1 it buries. Becomes parts per million.
        floor: the target pays at least this per click, or per charge type.
        value: what an impression of the target is worth to the merchant; values of several rules add up, to at most
            1,000,000,000 micros. It counts for paid products too, and a boost does not touch it.
        brand_max: most fills of one brand among the target, in each placement in scope.
        max_share: the target gets at most this share of each placement's slots, rounded down to whole slots.
        spacing: the target's brands, or all of the target, keep a distance in each placement.
        own_brand_min: so many slots of each placement are for own-brand products only; they stay empty when there are
            too few, and the answer says how many. It has no target.
        sponsored_max: most paid fills in each placement. It has no target.
    """

    exclude: Literal[True] | None = None
    require: Literal[True] | None = None
    pin: Pin | None = None
    boost: Annotated[float, Meta(ge=0.000001, le=4.0)] | None = None
    floor: FloorMicros | Floors | None = None
    value: Value | None = None
    brand_max: Annotated[int, Meta(ge=1, le=50)] | None = None
    max_share: Annotated[float, Meta(ge=0, le=1)] | None = None
    spacing: Spacing | None = None
    own_brand_min: Annotated[int, Meta(ge=1, le=50)] | None = None
    sponsored_max: Annotated[int, Meta(ge=0, le=50)] | None = None


class Schedule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """When the rule holds; an end left out is open."""

    starts_at: Moment | None = None
    ends_at: Moment | None = None


class RuleDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/rules`."""

    name: Name
    effect: Effect
    scope: Scope = Scope()
    when: Annotated[list[Condition], Meta(max_length=16)] = []  # all must hold
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
    when: list[Condition] = []
    target: Target | None
    schedule: Schedule
    priority: int
    stage: Literal["draft", "live", "archived"]
    created_at: Moment
    updated_at: Moment
    change_seq: int
