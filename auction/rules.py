"""Retailer rules: compiled to one mask per rule when a snapshot is built, and to one plan per kind of page when asked.

In this order, whatever order they were written in: exclusions first, then pins, boosts (factors multiply, at most 4),
floors (the highest counts), caps per brand (every one holds). Between pins of one slot or one product the rule of
higher priority wins, then the lower rule id.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.catalog import CATEGORY_SEPARATOR, Attribute, Product, category_and_ancestors
from auction.kernel import GROUP_FIRST_FREE
from auction.placement import Floors
from auction.retailer_rule import RetailerRule, Target

PPM = 1_000_000
BOOST_PPM_MAX = 4_000_000
GROUP_COUNT_MAX = 60  # caps of rules on a part of the catalogue that one page can hold
PLAN_COUNT_MAX = 256

Mask = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

NO_BYTES: Bytes = np.zeros(0, np.uint8)
NO_INT64S: Int64s = np.zeros(0, np.int64)
NO_UINT64S: UInt64s = np.zeros(0, np.uint64)


class PinnedSlot(Struct, frozen=True):
    """A product that stands in a slot before anything is sold."""

    slot_position: int
    product_row: int
    rule_row: int


class RulePlan(Struct, frozen=True):
    """What all rules in force together do to one placement of one page. An empty array changes nothing.

    Attributes:
        rule_rows: the rules in force, in the order they are evaluated.
        is_excluded: (P,) 1 where a rule keeps the product out.
        boost_ppm: (P,) factor on weight and merchandising value.
        boost_ppm_max: greatest factor of any product, at least 1,000,000.
        floor_click, floor_impression: (P,) least bid per click and per impression, in micros.
        pins: by slot, at most one per slot and product.
        group: (P,) bits, from GROUP_FIRST_FREE up, of the targeted caps the product counts for.
        group_max: most fills of one brand for each of those bits.
        brand_max: most fills of one brand, whatever the product; None for no limit.
    """

    rule_rows: tuple[int, ...] = ()
    is_excluded: Bytes = NO_BYTES
    boost_ppm: Int64s = NO_INT64S
    boost_ppm_max: int = PPM
    floor_click: Int64s = NO_INT64S
    floor_impression: Int64s = NO_INT64S
    pins: tuple[PinnedSlot, ...] = ()
    group: UInt64s = NO_UINT64S
    group_max: tuple[int, ...] = ()
    brand_max: int | None = None


NO_RULES = RulePlan()


class RuleBook:
    """The live rules of one snapshot, and the plans already made from them."""

    def __init__(self, rules: Sequence[RetailerRule], target_bits: Bytes, product_row: Mapping[str, int]) -> None:
        self._rules = rules
        self._target_bits = target_bits
        self._product_row = product_row
        self._plans: dict[tuple[object, ...], RulePlan] = {}
        self._segments = frozenset(name for rule in rules for name in rule.scope.segments or ())
        self._asks_device = any(rule.scope.devices for rule in rules)
        self._asks_category = any(rule.scope.categories for rule in rules)
        ends = (end for rule in rules for end in (rule.schedule.starts_at, rule.schedule.ends_at))
        self._turns_ms = sorted({int(end.timestamp() * 1000) for end in ends if end is not None})

    def plan_for(
        self,
        page_type: str,
        placement_id: str,
        category_id: str | None,
        device: object,
        segments: frozenset[str],
        now_ms: int,
    ) -> RulePlan:
        """Return what the rules do to a placement on such a page now."""
        if not self._rules:
            return NO_RULES
        key = (
            page_type,
            placement_id,
            category_id if self._asks_category else None,
            device if self._asks_device and isinstance(device, str) else None,
            segments & self._segments if self._segments else None,
            bisect_right(self._turns_ms, now_ms) if self._turns_ms else 0,
        )
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= PLAN_COUNT_MAX:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[key] = self._make_plan(page_type, placement_id, category_id, device, segments, now_ms)
        return plan

    def _make_plan(
        self,
        page_type: str,
        placement_id: str,
        category_id: str | None,
        device: object,
        segments: frozenset[str],
        now_ms: int,
    ) -> RulePlan:
        categories = frozenset(category_and_ancestors(category_id)) if category_id else frozenset()
        rows = [
            row
            for row, rule in enumerate(self._rules)
            if _is_in_force(rule, now_ms) and _is_in_scope(rule, page_type, placement_id, categories, device, segments)
        ]
        if not rows:
            return NO_RULES
        return self._combine(rows)

    def _combine(self, rows: Sequence[int]) -> RulePlan:
        product_count = len(self._product_row)
        excluded, boost, group = NO_BYTES, NO_INT64S, NO_UINT64S
        floors: dict[str, Int64s] = {"click": NO_INT64S, "impression": NO_INT64S}
        group_max: list[int] = []
        brand_max: int | None = None
        pins: list[PinnedSlot] = []
        for row in rows:
            effect = self._rules[row].effect
            if effect.exclude:
                excluded = excluded if len(excluded) else np.zeros(product_count, np.uint8)
                excluded[self._mask(row)] = 1
            if effect.boost is not None:
                boost = boost if len(boost) else np.full(product_count, PPM, np.int64)
                mask = self._mask(row)
                boost[mask] = np.clip(boost[mask] * round(effect.boost * PPM) // PPM, 1, BOOST_PPM_MAX)
            if effect.floor is not None:
                for charge, least in _floors_per_event(effect.floor):
                    if not len(floors[charge]):
                        floors[charge] = np.zeros(product_count, np.int64)
                    mask = self._mask(row)
                    floors[charge][mask] = np.maximum(floors[charge][mask], least)
            if effect.brand_max is not None and self._rules[row].target is None:
                brand_max = effect.brand_max if brand_max is None else min(brand_max, effect.brand_max)
            elif effect.brand_max is not None and len(group_max) < GROUP_COUNT_MAX:
                group = group if len(group) else np.zeros(product_count, np.uint64)
                group[self._mask(row)] |= np.uint64(GROUP_FIRST_FREE << len(group_max))
                group_max.append(effect.brand_max)
            if effect.pin is not None:
                self._add_pin(pins, row)
        return RulePlan(
            rule_rows=tuple(rows),
            is_excluded=excluded,
            boost_ppm=boost,
            boost_ppm_max=max(PPM, int(boost.max())) if len(boost) else PPM,
            floor_click=floors["click"],
            floor_impression=floors["impression"],
            pins=tuple(pins),
            group=group,
            group_max=tuple(group_max),
            brand_max=brand_max,
        )

    def _add_pin(self, pins: list[PinnedSlot], row: int) -> None:
        pin = self._rules[row].effect.pin
        assert pin is not None
        product_row = self._product_row.get(pin.product_id)
        if product_row is None or any(
            other.slot_position == pin.slot_position or other.product_row == product_row for other in pins
        ):
            return
        pins.append(PinnedSlot(pin.slot_position, product_row, row))

    def _mask(self, row: int) -> Mask:
        return np.unpackbits(self._target_bits[row], count=len(self._product_row)).astype(bool)


def in_evaluation_order(rules: Sequence[RetailerRule]) -> list[RetailerRule]:
    """Return the live rules, higher priority first, then in the order of their ids."""
    live = [rule for rule in rules if rule.stage == "live"]
    return sorted(live, key=lambda rule: (-rule.priority, rule.rule_id))


class CatalogueColumns:
    """Products as columns a rule's target is compared with, each made when first asked for."""

    def __init__(self, products: Sequence[Product], read_at_ms: int) -> None:
        self.product_count = len(products)
        self._products = products
        self._read_at_day = np.datetime64(read_at_ms, "ms").astype("datetime64[D]")
        self._values: dict[str, list[Attribute | None]] = {}
        self._numbers: dict[str, NDArray[np.float64]] = {}

    def values(self, field: str) -> list[Attribute | None]:
        """Return the field's value of every product; None where it has none."""
        if field not in self._values:
            read = _FIELDS.get(field)
            self._values[field] = (
                [read(product) for product in self._products]
                if read is not None
                else [product.attributes.get(field) for product in self._products]
            )
        return self._values[field]

    def numbers(self, field: str) -> NDArray[np.float64]:
        """Return the field as numbers; NaN, which no comparison accepts, where it is none."""
        if field not in self._numbers:
            self._numbers[field] = self._ages() if field == "age_days" else _as_numbers(self.values(field))
        return self._numbers[field]

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
    values = columns.values(field)
    if field == "category_id":
        heads = [str(category) for category in wanted]
        below = tuple(head + CATEGORY_SEPARATOR for head in heads)
        exact = frozenset(heads)
        found = [isinstance(value, str) and (value in exact or value.startswith(below)) for value in values]
    else:
        # True == 1 in Python, but a flag is not a number to a merchant.
        accepted = {(isinstance(value, bool), value) for value in wanted}
        found = [(isinstance(value, bool), value) in accepted for value in values]
    return np.array(found, bool)


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

RULE_FIELDS = frozenset(_FIELDS) | {"age_days"}  # what a rule may ask of every product, custom attributes aside


def _floors_per_event(floor: int | Floors) -> list[tuple[str, int]]:
    if isinstance(floor, Floors):
        return [("click", floor.click), ("impression", -(-floor.impression // 1_000))]
    return [("click", floor)]


def _is_in_force(rule: RetailerRule, now_ms: int) -> bool:
    starts_at, ends_at = rule.schedule.starts_at, rule.schedule.ends_at
    if starts_at is not None and now_ms < int(starts_at.timestamp() * 1000):
        return False
    return ends_at is None or now_ms < int(ends_at.timestamp() * 1000)


def _is_in_scope(
    rule: RetailerRule,
    page_type: str,
    placement_id: str,
    categories: frozenset[str],
    device: object,
    segments: frozenset[str],
) -> bool:
    scope = rule.scope
    return (
        (scope.pages is None or page_type in scope.pages)
        and (scope.placements is None or placement_id in scope.placements)
        and (scope.categories is None or not categories.isdisjoint(scope.categories))
        and (scope.devices is None or device in scope.devices)
        and (scope.segments is None or not segments.isdisjoint(scope.segments))
    )
