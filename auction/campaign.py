"""What an advertiser offers: campaigns with budgets and dates, and the bids in them."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from affinity.audience import Audience
from affinity.catalog import CategoryId, ProductId
from affinity.navigation import Moment
from affinity.pattern import NavigationPattern, product_fields_of
from affinity.product_target import Target
from auction.request import PageType
from ledger.money import BID_MICROS_MAX, PositiveMicros
from ledger.terms import ChargeOn, Identifier

Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
ClientStatus = Literal["active", "paused"]  # what a client may write; `archived` comes from DELETE
Status = Literal["active", "paused", "archived"]


class MaxBid(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="max_bid"):
    """Bid as much as the bids say, lowered by pacing only."""


class TargetRoas(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="target_roas"):
    """Lower the bids until sales credited to the campaign are `roas` times what it spends; never above the bids."""

    roas: Annotated[float, Meta(ge=0.01, le=1000)]

    @property
    def roas_ppm(self) -> int:
        """Return the target in parts per million, at least 10,000."""
        return round(self.roas * 1_000_000)


Objective = MaxBid | TargetRoas


class CampaignDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/campaigns`. A budget left out is no limit of its own; the wallet still is one.

    Attributes:
        pacing: `even` spreads a daily budget, or that of a flight with an end, along the day's usual traffic; `asap`
            bids in full until it is spent.
    """

    name: Name
    advertiser_id: Identifier | None = None  # only an admin or agency may say it
    daily_budget_micros: PositiveMicros | None = None
    total_budget_micros: PositiveMicros | None = None
    flight_starts_at: Moment | None = None
    flight_ends_at: Moment | None = None
    pacing: Literal["even", "asap"] = "even"
    objective: Objective = MaxBid()
    status: ClientStatus = "active"


class Campaign(Struct, frozen=True, kw_only=True):
    """A campaign as it stands."""

    campaign_id: str
    advertiser_id: str
    name: str
    daily_budget_micros: int | None
    total_budget_micros: int | None
    flight_starts_at: Moment | None
    flight_ends_at: Moment | None
    pacing: Literal["even", "asap"]
    status: Status
    created_at: Moment
    updated_at: Moment
    change_seq: int
    objective: Objective = MaxBid()


class Keyword(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Words of a search the bid is for."""

    text: Annotated[str, Meta(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
    match: Literal["exact", "phrase", "broad"] = "broad"


class FrequencyCap(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Most times one visitor is shown the bid in a sliding window."""

    count: Annotated[int, Meta(ge=1, le=1000)]
    window_s: Annotated[int, Meta(ge=60, le=90 * 86_400)]


class TemperatureRange(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Degrees Celsius, both ends included; one left out is open. Counted in thousandths."""

    at_least: Annotated[float, Meta(ge=-100, le=100)] | None = None
    at_most: Annotated[float, Meta(ge=-100, le=100)] | None = None

    def includes(self, temperature_c: float) -> bool:
        """Say whether a temperature is in the range."""
        least, most = self.bounds_milli()
        return least <= round(temperature_c * 1000) <= most

    def bounds_milli(self) -> tuple[int, int]:
        """Return both ends in thousandths of a degree."""
        least = -(10**9) if self.at_least is None else round(self.at_least * 1000)
        return least, 10**9 if self.at_most is None else round(self.at_most * 1000)


class BidContext(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Conditions on the request's context; every one given must hold."""

    devices: Annotated[list[Identifier], Meta(min_length=1, max_length=50)] | None = None
    regions: Annotated[list[Identifier], Meta(min_length=1, max_length=200)] | None = None
    stores: Annotated[list[Identifier], Meta(min_length=1, max_length=1000)] | None = None
    weather: Annotated[list[Identifier], Meta(min_length=1, max_length=50)] | None = None
    temperature_c: TemperatureRange | None = None
    hours: Annotated[list[Annotated[int, Meta(ge=0, le=23)]], Meta(min_length=1, max_length=24)] | None = None


class BidDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/bids`.

    Attributes:
        bid_micros: most paid per click, or per 1,000 impressions (then a multiple of 1,000).
        product_target: of these products, only those it holds for as the catalogue stands.
        pages, category_ids, keywords: where it takes part; left out, wherever its products may appear.
        placement_multipliers: placement id to a factor on the bid, 0 to 10.
    """

    campaign_id: Identifier
    product_ids: Annotated[list[ProductId], Meta(min_length=1, max_length=1000)]
    product_target: Target | None = None
    bid_micros: Annotated[int, Meta(ge=1, le=BID_MICROS_MAX)]
    charge_on: ChargeOn = ChargeOn.CLICK
    audience: Audience | None = None
    navigation_pattern: NavigationPattern | None = None
    pages: Annotated[list[PageType], Meta(min_length=1, max_length=9)] | None = None
    category_ids: Annotated[list[CategoryId], Meta(min_length=1, max_length=200)] | None = None
    keywords: Annotated[list[Keyword], Meta(min_length=1, max_length=1000)] | None = None
    negative_keywords: Annotated[list[Keyword], Meta(min_length=1, max_length=1000)] | None = None
    placement_multipliers: Annotated[dict[Identifier, Annotated[float, Meta(ge=0, le=10)]], Meta(max_length=50)] = {}
    frequency_cap: FrequencyCap | None = None
    context: BidContext | None = None
    status: ClientStatus = "active"


class Bid(Struct, frozen=True, kw_only=True):
    """A bid as it stands."""

    bid_id: str
    campaign_id: str
    advertiser_id: str
    product_ids: list[str]
    bid_micros: int
    charge_on: ChargeOn
    audience: Audience | None
    navigation_pattern: NavigationPattern | None
    pages: list[str] | None
    category_ids: list[str] | None
    keywords: list[Keyword] | None
    negative_keywords: list[Keyword] | None
    placement_multipliers: dict[str, float]
    frequency_cap: FrequencyCap | None
    context: BidContext | None
    status: Status
    created_at: Moment
    updated_at: Moment
    change_seq: int
    product_target: Target | None = None

    @property
    def product_fields(self) -> frozenset[str]:
        """Return the product fields it asks for, of its own products or of those navigation was about."""
        own = frozenset[str]() if self.product_target is None else self.product_target.fields
        return own if self.navigation_pattern is None else own | product_fields_of(self.navigation_pattern)
