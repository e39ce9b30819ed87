"""The catalogue as the retailer feeds it: products, their categories, and who may advertise them.

Holds wire types only; `feed.py` reads files, `store.py` keeps them.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

CATEGORY_SEPARATOR = " > "

ProductId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
AdvertiserId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
CategoryId = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
ShortText = Annotated[str, Meta(max_length=512, pattern=r"^[^\x00]*(?![\s\S])")]
LinkText = Annotated[str, Meta(max_length=2048, pattern=r"^https?://[^\x00-\x20\x7f]+(?![\s\S])")]
Attribute = bool | int | float | str  # a custom attribute; its type is fixed by the first feed that brings it
AttributeType = Literal["bool", "int", "float", "str"]
AttributeName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_]*(?![\s\S])")]

PriceMicros = Annotated[int, Meta(ge=0, le=10**12)]
Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]


class Product(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One product, in Google Merchant Center's names and ours (INTERFACE: `endcap catalog import`).

    Attributes:
        product_type: the category as a path, `Shoes > Running`; it is the `category_id` of pages and bids.
        price_micros, sale_price_micros: shelf price, and the price now if it is on promotion.
        availability: `in_stock`, `out_of_stock`, `preorder` or `backorder`; only `out_of_stock` is never filled.
        margin_rate: share of the price the retailer keeps, 0 to 1.
        stock: units left; None where the retailer does not say. 0 is never filled.
        launched_at: RFC 3339 date, for novelty.
        advertiser_ids: every advertiser entitled to bid on it: brand, marketplace seller, agency.
        relevance: how much the product belongs on a page at all, where the request does not say.
        attributes: any further column of the feed, typed.
    """

    product_id: ProductId
    title: ShortText = ""
    link: LinkText | None = None
    image_link: LinkText | None = None
    price_micros: PriceMicros = 0
    sale_price_micros: PriceMicros | None = None
    availability: Annotated[str, Meta(pattern=r"^(in_stock|out_of_stock|preorder|backorder)(?![\s\S])")] = "in_stock"
    brand: Annotated[str, Meta(max_length=128)] = ""
    gtin: Annotated[str, Meta(max_length=32)] | None = None
    product_type: CategoryId | None = None
    margin_rate: Ratio | None = None
    stock: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    is_own_brand: bool = False
    launched_at: Annotated[str, Meta(max_length=32)] | None = None
    advertiser_ids: Annotated[list[AdvertiserId], Meta(max_length=64)] = []
    image_count: Annotated[int, Meta(ge=0, le=1000)] | None = None
    rating: Annotated[float, Meta(ge=0.0, le=5.0)] | None = None
    relevance: Ratio | None = None
    attributes: Annotated[dict[AttributeName, Attribute], Meta(max_length=64)] = {}

    @property
    def is_available(self) -> bool:
        """Say whether a slot may show it now."""
        return self.availability != "out_of_stock" and self.stock != 0


class ProductChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A partial change of one product (`POST /v1/products:batch`): only what is given changes."""

    product_id: ProductId
    price_micros: PriceMicros | UnsetType = UNSET
    sale_price_micros: PriceMicros | UnsetType | None = UNSET
    availability: Annotated[str, Meta(pattern=r"^(in_stock|out_of_stock|preorder|backorder)(?![\s\S])")] | UnsetType = (
        UNSET
    )
    stock: Annotated[int, Meta(ge=0, le=10**9)] | UnsetType | None = UNSET


def change_product(product: Product, change: ProductChange) -> Product:
    """Return the product with what the change gives in place of what it had."""
    given = {
        name: value
        for name, value in msgspec.structs.asdict(change).items()
        if value is not UNSET and name != "product_id"
    }
    return msgspec.structs.replace(product, **given)


def attribute_type(value: Attribute) -> AttributeType:
    """Name the type of a custom attribute's value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    return "float" if isinstance(value, float) else "str"


def category_and_ancestors(category_id: str) -> Iterator[str]:
    """Yield the category itself, then each category above it, up to the root's child.

    >>> list(category_and_ancestors("Shoes > Running > Trail"))
    ['Shoes > Running > Trail', 'Shoes > Running', 'Shoes']
    """
    while category_id:
        yield category_id
        category_id = category_id.rpartition(CATEGORY_SEPARATOR)[0]
