"""Which products a target is about: trees over the catalogue's fields, answered for all products at once.

Rules, bids and the steps of navigation patterns name products by the same trees.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from affinity.catalog import CATEGORY_SEPARATOR, Attribute, Product
from affinity.signals import NO_SIGNALS, Signals

VirtualColumns = dict[str, list[Attribute | None]]  # by name, the value of each product
NO_VIRTUAL_COLUMNS: VirtualColumns = {}
Mask = NDArray[np.bool_]
_encode = msgspec.json.Encoder(order="deterministic").encode
NO_VALUE = -1
_Value = tuple[bool, Attribute]  # True == 1 in Python, but a flag is not a number to a merchant


class Target(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, rename={"not_": "not"}):
    """A tree over product fields; one node is exactly one of `all`, `any`, `not` or a comparison on `field`.

    `field` is `product_id`, `brand`, `category_id` (with everything below it), `price_micros`, `margin_rate`,
    `stock`, `is_own_brand`, `rating`, `age_days`, `on_promotion`, `is_best_seller`, `category_trend` (`rising`,
    `steady` or `falling`), or a custom attribute.
    """

    all: Annotated[list["Target"], Meta(min_length=1, max_length=32)] | None = None
    any: Annotated[list["Target"], Meta(min_length=1, max_length=32)] | None = None
    not_: "Target | None" = None
    field: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    equals: Attribute | None = None
    one_of: Annotated[list[Attribute], Meta(min_length=1, max_length=1000)] | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def fields(self) -> frozenset[str]:
        """Return the product fields it asks for."""
        own = frozenset() if self.field is None else frozenset([self.field])
        parts = [*(self.all or ()), *(self.any or ()), *([] if self.not_ is None else [self.not_])]
        return own.union(*[part.fields for part in parts])


def target_key(target: Target) -> bytes:
    """Return what two targets share that are written alike."""
    return _encode(target)


def target_words(target: Target) -> str:
    """Return a target as one would say it of a product.

    >>> target_words(Target(all=[Target(field="season", equals="summer"), Target(field="price_micros", at_most=5)]))
    'season is summer and price_micros is at most 5'
    """
    if target.all is not None:
        return " and ".join(_part_words(part) for part in target.all)
    if target.any is not None:
        return " or ".join(_part_words(part) for part in target.any)
    if target.not_ is not None:
        return f"not ({target_words(target.not_)})"
    said = [] if target.equals is None else [f"is {_value_words(target.equals)}"]
    if target.one_of is not None:
        said.append(f"is one of {', '.join(map(_value_words, target.one_of))}")
    bounds = (("at least", target.at_least), ("at most", target.at_most))
    said += [f"is {word} {_value_words(bound)}" for word, bound in bounds if bound is not None]
    return f"{target.field} {' and '.join(said)}"


def _part_words(part: Target) -> str:
    return f"({target_words(part)})" if part.all is not None or part.any is not None else target_words(part)


def _value_words(value: Attribute) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


class CatalogueColumns:
    """Products as columns a rule's target is compared with, each made when first asked for.

    Args:
        products: in the order of the rows.
        read_at_ms: ages of products count until then.
        virtual: values of virtual attributes.
        signals: what is a best-seller, and how categories fare.
    """

    def __init__(
        self,
        products: Sequence[Product],
        read_at_ms: int,
        virtual: VirtualColumns = NO_VIRTUAL_COLUMNS,
        signals: Signals = NO_SIGNALS,
    ) -> None:
        self.product_count = len(products)
        self._products = products
        self._signals = signals
        self._read_at_day = np.datetime64(read_at_ms, "ms").astype("datetime64[D]")
        self._values: dict[str, list[Attribute | None]] = dict(virtual)
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._numbered: dict[str, tuple[NDArray[np.int32], dict[_Value, int]]] = {}

    def values(self, field: str) -> list[Attribute | None]:
        """Return the field's value of every product; None where it has none."""
        if field not in self._values:
            self._values[field] = self._read(field)
        return self._values[field]

    def numbers(self, field: str) -> NDArray[np.float64]:
        """Return the field as numbers; NaN, which no comparison accepts, where it is none."""
        if field not in self._numbers:
            self._numbers[field] = self._ages() if field == "age_days" else _as_numbers(self.values(field))
        return self._numbers[field]

    def numbered(self, field: str) -> tuple[NDArray[np.int32], dict[_Value, int]]:
        """Return the number of every product's value, NO_VALUE where it has none; and the distinct values' numbers."""
        if field not in self._numbered:
            number_of: dict[_Value, int] = {}
            numbers = [
                NO_VALUE if value is None else number_of.setdefault((isinstance(value, bool), value), len(number_of))
                for value in self.values(field)
            ]
            self._numbered[field] = np.array(numbers, np.int32), number_of
        return self._numbered[field]

    def flags(self, field: str) -> Mask:
        """Return where the field is true."""
        return np.array([value is True for value in self.values(field)], bool)

    def _read(self, field: str) -> list[Attribute | None]:
        if field == "is_best_seller":
            best = frozenset(self._signals.best_sellers)
            return [product.product_id in best for product in self._products]
        if field == "category_trend":
            trend_of = cache(self._signals.trend_of)
            return [trend_of(product.product_type) for product in self._products]
        read = _FIELDS.get(field)
        if read is None:
            return [product.attributes.get(field) for product in self._products]
        return [read(product) for product in self._products]

    def _ages(self) -> NDArray[np.float64]:
        ages = np.full(self.product_count, np.nan)
        for row, product in enumerate(self._products):
            if product.launched_at:
                try:
                    launched = np.datetime64(product.launched_at[:10], "D")
                except ValueError:
                    continue
                ages[row] = (self._read_at_day - launched).astype(np.int64)
        return ages


def target_mask(target: Target | None, columns: CatalogueColumns) -> Mask:
    """Return which products a target is about; every one for None."""
    if target is None:
        return np.ones(columns.product_count, bool)
    if target.all is not None:
        every: Mask = np.logical_and.reduce([target_mask(part, columns) for part in target.all])
        return every
    if target.any is not None:
        some: Mask = np.logical_or.reduce([target_mask(part, columns) for part in target.any])
        return some
    if target.not_ is not None:
        return ~target_mask(target.not_, columns)
    return _comparison(target, columns)


def _comparison(target: Target, columns: CatalogueColumns) -> Mask:
    field = target.field or ""
    mask = np.ones(columns.product_count, bool)
    if target.equals is not None:
        mask &= _is_one_of(field, [target.equals], columns)
    if target.one_of is not None:
        mask &= _is_one_of(field, target.one_of, columns)
    if target.at_least is not None:
        mask &= columns.numbers(field) >= target.at_least
    if target.at_most is not None:
        mask &= columns.numbers(field) <= target.at_most
    return mask


def _is_one_of(field: str, wanted: Sequence[Attribute], columns: CatalogueColumns) -> Mask:
    numbers, number_of = columns.numbered(field)
    if field == "category_id":
        heads = [str(category) for category in wanted]
        below = tuple(head + CATEGORY_SEPARATOR for head in heads)
        exact = frozenset(heads)
        found = [number for (_, name), number in number_of.items() if name in exact or str(name).startswith(below)]
    else:
        accepted = {(isinstance(value, bool), value) for value in wanted}
        found = [number_of[value] for value in accepted if value in number_of]
    if len(found) <= 1:
        only: Mask = numbers == (found[0] if found else NO_VALUE - 1)
        return only
    is_found = np.zeros(len(number_of) + 1, bool)  # the last place is of what has no value
    is_found[found] = True
    return is_found[numbers]


def _as_numbers(values: Sequence[Attribute | None]) -> NDArray[np.float64]:
    numbers = [float(value) if isinstance(value, int | float) else np.nan for value in values]
    return np.array(numbers, np.float64)


def _price_now(product: Product) -> int:
    return product.price_micros if product.sale_price_micros is None else product.sale_price_micros


def _on_promotion(product: Product) -> bool:
    return product.sale_price_micros is not None and product.sale_price_micros < product.price_micros


_FIELDS: dict[str, Callable[[Product], Any]] = {
    "product_id": lambda product: product.product_id,
    "title": lambda product: product.title,
    "brand": lambda product: product.brand or None,
    "category_id": lambda product: product.product_type,
    "price_micros": _price_now,
    "margin_rate": lambda product: product.margin_rate,
    "stock": lambda product: product.stock,
    "is_own_brand": lambda product: product.is_own_brand,
    "rating": lambda product: product.rating,
    "image_count": lambda product: product.image_count,
    "on_promotion": _on_promotion,
}

SIGNAL_VALUES: dict[str, frozenset[Attribute]] = {  # fields that are computed of sales, and every value they can have
    "is_best_seller": frozenset({True, False}),
    "category_trend": frozenset({"rising", "steady", "falling"}),
}
# What a rule may ask of every product, custom attributes aside.
RULE_FIELDS = frozenset(_FIELDS) | {"age_days"} | frozenset(SIGNAL_VALUES)
