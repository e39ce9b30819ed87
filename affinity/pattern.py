"""Navigation patterns: ordered steps a visitor must have taken, in a window, without others."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from affinity.catalog import CategoryId, PriceMicros, ProductId
from affinity.navigation import Action, QueryText


class PatternStep(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Something done at least so many times; every condition given must hold of each of those events."""

    action: Action
    at_least: Annotated[int, Meta(ge=1, le=100)] = 1
    category_id: CategoryId | None = None  # the category or any below it
    brand: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    product_id: ProductId | None = None
    price_at_least_micros: PriceMicros | None = None
    price_at_most_micros: PriceMicros | None = None
    query_contains: Annotated[str, Meta(min_length=1, max_length=128)] | None = None  # all of its words


class NavigationPattern(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Steps in order, all within one session or so many seconds, and none of `without` since the first step."""

    within: Literal["session"] | Annotated[int, Meta(ge=1, le=90 * 86_400)]
    steps: Annotated[list[PatternStep], Meta(min_length=1, max_length=8)]
    without: Annotated[list[PatternStep], Meta(max_length=8)] = []

