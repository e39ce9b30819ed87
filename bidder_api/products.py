"""The catalogue through the API: one product, a list, and many partial changes at once."""

from typing import Annotated, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import fields
from sqlalchemy.engine import Connection

from affinity.catalog import Product, ProductChange
from affinity.store import (
    apply_product_changes,
    ensure_advertisers,
    get_product,
    get_products,
    list_products,
    next_change_seq,
    note_availability,
    upsert_products,
)
from bidder_api.call import Answer, Call
from bidder_api.errors import Invalid, NotFound
from bidder_api.resources import page_of, read_page

ProductPage = page_of("Product", Product)
CHANGE_COUNT_MAX = 1000
_hints = get_type_hints(Product, include_extras=True)
ProductBody = msgspec.defstruct(  # a product whose id may be left to the path
    "ProductBody",
    [
        (field.name, _hints[field.name] | UnsetType, UNSET)
        if field.required
        else (
            field.name,
            _hints[field.name],
            field.default
            if field.default is not msgspec.NODEFAULT
            else msgspec.field(default_factory=field.default_factory),
        )
        for field in fields(Product)
    ],
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
)


class ProductChangeBatch(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/products:batch`: prices, stock and availability, of products there are."""

    changes: Annotated[list[ProductChange], Meta(min_length=1, max_length=CHANGE_COUNT_MAX)]


class ProductChangeResult(Struct, frozen=True):
    """What became of one change."""

    product_id: str
    result: str
    code: str | None = None


class ProductChangeResults(Struct, frozen=True):
    """What became of each change, in the order they were sent."""

    results: list[ProductChangeResult]


def put(connection: Connection, call: Call) -> Answer:
    """Set a product, whole."""
    product_id = call.path["product_id"]
    product = Product(**msgspec.structs.asdict(call.body) | {"product_id": _own_id(call.body.product_id, product_id)})
    before = get_product(connection, call.retailer_id, product_id)
    ensure_advertisers(connection, call.retailer_id, product.advertiser_ids, call.now_ms)
    upsert_products(connection, call.retailer_id, [product], next_change_seq(connection, call.retailer_id))
    note_availability(connection, call.retailer_id, {product_id: product.is_available}, call.now_ms)
    call.log("put", "product", product_id, before=before, after=product)
    return Answer(body=product, status=200 if before is not None else 201)


def read(connection: Connection, call: Call) -> Answer:
    """Return one product."""
    product = get_product(connection, call.retailer_id, call.path["product_id"])
    if product is None:
        raise NotFound("product", call.path["product_id"])
    return Answer(body=product)


def list_all(connection: Connection, call: Call) -> Answer:
    """Return a page of products."""

    def read_some(after: str | None, limit: int) -> list[Product]:
        return list_products(connection, call.retailer_id, after, limit)

    return Answer(body=read_page(call.query, read_some, lambda product: product.product_id))


def change_many(connection: Connection, call: Call) -> Answer:
    """Change price, stock or availability of many products; unknown ones are named and change nothing."""
    batch: ProductChangeBatch = call.body
    seq = next_change_seq(connection, call.retailer_id)
    unknown = set(apply_product_changes(connection, call.retailer_id, batch.changes, seq))
    known = [change for change in batch.changes if change.product_id not in unknown]
    if known:
        changed = get_products(connection, call.retailer_id, [change.product_id for change in known])
        is_available = {product_id: product.is_available for product_id, product in changed.items()}
        note_availability(connection, call.retailer_id, is_available, call.now_ms)
        call.log("batch", "product", f"{len(known)} products", after=known)
    results = [
        ProductChangeResult(change.product_id, "rejected", "product_unknown")
        if change.product_id in unknown
        else ProductChangeResult(change.product_id, "accepted")
        for change in batch.changes
    ]
    return Answer(body=ProductChangeResults(results))


def _own_id(said: str | UnsetType, product_id: str) -> str:
    if said is not UNSET and said != product_id:
        message = f"product_id must be the path's {product_id!r}, was {said!r}"
        raise Invalid("product_id_differs", message, "/product_id")
    return product_id
