"""The page's question and our answer, as they travel on the wire (`POST /v1/fills`)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from affinity.catalog import CategoryId
from affinity.navigation import ConsentSignal, NavigationEvent, QueryText
from ledger.terms import ChargeOn, Identifier

PageType = Literal["home", "landing", "category", "search", "product", "cart", "confirmation", "email", "store_screen"]
Mode = Literal["sponsored", "merchandised"]
CANDIDATE_COUNT_MAX = 10_000
NameText = Annotated[str, Meta(max_length=64)]  # a look-up key: an unknown one is simply not found


class Page(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which page asks. `filters` are the visitor's own and bind paid and organic alike.

    Filter keys are product fields or custom attributes with a list of allowed values, besides
    `price_min_micros` and `price_max_micros`.
    """

    type: PageType
    category_id: CategoryId | None = None
    query: QueryText | None = None
    product_id: NameText | None = None
    filters: Annotated[dict[str, Any], Meta(max_length=20)] = {}


class RequestCandidate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A product the retailer would show here, with its place in its own ranking."""

    product_id: NameText
    organic_rank: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    relevance: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None


class RequestPlacement(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A placement to fill. With `candidates`, only those products are looked at."""

    placement_id: NameText
    slot_count: Annotated[int, Meta(ge=1, le=50)] | None = None  # None: as the placement is configured
    candidates: Annotated[list[RequestCandidate | NameText], Meta(max_length=CANDIDATE_COUNT_MAX)] | None = None


class SlotRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/fills`: one decision for the whole page.

    Left out, consent is not given, and nothing becomes of what is known; where it is refused, that is dropped.
    """

    page: Page
    placements: Annotated[list[RequestPlacement], Meta(min_length=1, max_length=5)]
    visitor_id: Identifier | None = None
    consent: ConsentSignal | None = None
    exclude_product_ids: Annotated[list[NameText], Meta(max_length=1000)] = []
    navigation: Annotated[list[NavigationEvent], Meta(max_length=100)] = []
    context: Annotated[dict[str, Any], Meta(max_length=50)] = {}
    tmax_ms: Annotated[int, Meta(ge=1, le=10_000)] = 50
    mode: Mode = "sponsored"
    rules: Literal["on", "off"] = "on"


class ReadPlacement(RequestPlacement, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same; where its candidates were read from the request's bytes, the number they go by (`candidates.py`)."""

    candidates: int | None = None  # type: ignore[assignment]  # stands for the same thing


class ReadSlotRequest(SlotRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `SlotRequest` but for the candidates of its placements."""

    placements: Annotated[list[ReadPlacement], Meta(min_length=1, max_length=5)]  # type: ignore[assignment]


Candidates = Sequence[RequestCandidate | str] | int


class Disclosure(Struct, frozen=True):
    """What a shopper is told about a paid place."""

    label: str
    on_behalf_of: str | None
    paid_by: str | None
    main_parameters: list[str]


class Fill(Struct, frozen=True, gc=False):
    """A slot given to a product. An organic fill carries null money and an unbilled token.

    So does a booked one, which is sponsored and labelled: its `bid_id` is the booking's id, and it is invoiced as
    agreed.
    """

    slot_position: int
    product_id: str
    is_sponsored: bool
    advertiser_id: str | None
    campaign_id: str | None
    bid_id: str | None
    charge_on: ChargeOn | None
    clearing_price_micros: int | None
    currency: str | None
    beacon_token: str
    disclosure: Disclosure | None


class PlacementFills(Struct, frozen=True, omit_defaults=True):
    """One placement's fills in page order; `no_fill_reason` says why there are none.

    Attributes:
        reserved_slot_count: slots left empty because a rule keeps them for own-brand products, of which too few could
            stand there; left out where there are none.
    """

    placement_id: str
    no_fill_reason: str | None
    fills: list[Fill]
    reserved_slot_count: int = 0


class SlotResponse(Struct, frozen=True):
    """Answer of `POST /v1/fills`."""

    auction_id: str
    snapshot_version: int
    experiment_id: str | None
    variant: str | None
    partial: bool
    placements: list[PlacementFills]
