"""What visitors do on the site, as the site reports it (GA4's action names)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from affinity.catalog import CategoryId, PriceMicros, ProductId
from affinity.tcf import TEXT_LENGTH_MAX

VisitorId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
EventId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
QueryText = Annotated[str, Meta(max_length=512, pattern=r"^[^\x00]*(?![\s\S])")]
Moment = Annotated[datetime, Meta(tz=True)]
EVENT_COUNT_MAX = 500  # of one batch


class Action(StrEnum):
    """What the visitor did."""

    VIEW_ITEM = "view_item"
    VIEW_ITEM_LIST = "view_item_list"
    SELECT_ITEM = "select_item"
    SEARCH = "search"
    ADD_TO_CART = "add_to_cart"
    REMOVE_FROM_CART = "remove_from_cart"
    ADD_TO_WISHLIST = "add_to_wishlist"
    PURCHASE = "purchase"
    DISMISS = "dismiss"  # "not interested": the product is gone for this visitor at once


class Consent(Struct, frozen=True, forbid_unknown_fields=True):
    """Purposes the visitor agreed to. Without `personalised` nothing is stored and fills are contextual."""

    personalised: bool = False


ConsentSignal = Consent | Annotated[str, Meta(min_length=1, max_length=TEXT_LENGTH_MAX)]  # or a TC string


class NavigationEvent(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One thing a visitor did. `category_id` may be left out where the product's own is meant."""

    visitor_id: VisitorId
    action: Action
    occurred_at: Moment
    event_id: EventId | None = None
    product_id: ProductId | None = None
    category_id: CategoryId | None = None
    query: QueryText | None = None
    quantity: Annotated[int, Meta(ge=0, le=10**6)] | None = None
    price_micros: PriceMicros | None = None
    traffic_source: Annotated[str, Meta(max_length=128)] | None = None


class NavigationBatch(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/navigation`. The consent is that of every visitor in the batch; left out, it is given.

    Where it is refused, nothing is recorded, and what was known of the visitors before is dropped.
    """

    events: Annotated[list[NavigationEvent], Meta(max_length=EVENT_COUNT_MAX)]
    consent: ConsentSignal | None = None
