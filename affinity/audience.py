"""Whom a bid is for: typed trees over what is known of a visitor, compiled to one bit per audience."""

from typing import Annotated

from msgspec import Meta, Struct

from affinity.catalog import Attribute, AttributeName, CategoryId, ProductId

SegmentId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
Days = Annotated[int, Meta(ge=1, le=3650)]


class Audience(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, rename={"not_": "not"}
):
    """A tree, or one node of it: exactly one predicate or one of `all`, `any`, `not`.

    A flat struct rather than a union, since the wire form is told apart by which key is there:
    `{"segment": "vip"}`, `{"score": "promophile", "at_least": 60}`, `{"not": {…}}`.
    `validate_audience` refuses nodes with none or several.
    """

    all: Annotated[list["Audience"], Meta(min_length=1, max_length=32)] | None = None
    any: Annotated[list["Audience"], Meta(min_length=1, max_length=32)] | None = None
    not_: "Audience | None" = None
    segment: SegmentId | None = None
    attribute: AttributeName | None = None  # with one of equals, one_of, at_least, at_most
    score: Annotated[str, Meta(pattern=r"^(promophile|price_tier)(?![\s\S])")] | None = None  # 0..100
    rfm: Annotated[list[str], Meta(min_length=1, max_length=16)] | None = None
    bought_product_within_days: Days | None = None  # with product_ids
    bought_category_within_days: Days | None = None  # with category_id
    bought_brand_within_days: Days | None = None  # with brand; without, the brand of the product bid on
    affinity_category: CategoryId | None = None  # with at_least (0..1)
    affinity_brand: Annotated[str, Meta(max_length=128)] | None = None  # with at_least (0..1)
    product_ids: Annotated[list[ProductId], Meta(max_length=100)] | None = None
    category_id: CategoryId | None = None
    brand: Annotated[str, Meta(max_length=128)] | None = None
    equals: Attribute | None = None
    one_of: Annotated[list[Attribute], Meta(min_length=1, max_length=100)] | None = None
    at_least: float | None = None
    at_most: float | None = None
