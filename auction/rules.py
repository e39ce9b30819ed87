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
from auction.kernel import EFFECT, GROUP_FIRST_FREE
from auction.placement import Floors
from auction.retailer_rule import RetailerRule, Target

PPM = 1_000_000
BOOST_PPM_MAX = 4_000_000
GROUP_COUNT_MAX = 60  # caps of rules on a part of the catalogue that one page can hold
PLAN_BYTES_MAX = 128_000_000

Mask = NDArray[np.bool_]
Effects = NDArray[np.void]
Bytes = NDArray[np.uint8]

NO_EFFECT: Effects = np.zeros(0, EFFECT)


class PinnedSlot(Struct, frozen=True):
    """A product that stands in a slot before anything is sold."""

    slot_position: int
    product_row: int
    rule_row: int


class RulePlan(Struct, frozen=True):
    """What all rules in force together do to one placement of one page. An empty array changes nothing.

    Attributes:
        rule_rows: the rules in force, in the order they are evaluated.
        effect: (P,) EFFECT, what they do to each product; empty: nothing.
        boost_ppm_max: greatest factor of any product, at least 1,000,000.
        pins: by slot, at most one per slot and product.
        group_max: most fills of one brand for each of the groups' bits.
        brand_max: most fills of one brand, whatever the product; None for no limit.
    """

    rule_rows: tuple[int, ...] = ()
    effect: Effects = NO_EFFECT
    boost_ppm_max: int = PPM
    pins: tuple[PinnedSlot, ...] = ()
    group_max: tuple[int, ...] = ()
    brand_max: int | None = None

    def excludes(self, product_row: int) -> bool:
        """Say whether a rule keeps the product out."""
        return len(self.effect) > 0 and bool(self.effect["is_excluded"][product_row])

    def group_of(self, product_row: int) -> int:
        """Return the bits of the targeted caps the product counts for."""
        return int(self.effect["group"][product_row]) if len(self.effect) else 0


NO_RULES = RulePlan()


class RuleBook:
    """The live rules of one snapshot, and the plans already made from them."""

    def __init__(self, rules: Sequence[RetailerRule], target_bits: Bytes, product_row: Mapping[str, int]) -> None:
        self._rules = rules
        self._target_bits = target_bits
        self._product_row = product_row
        self._plans: dict[tuple[object, ...], RulePlan] = {}
        self._plan_count_max = max(8, PLAN_BYTES_MAX // (EFFECT.itemsize * max(1, len(product_row))))
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
            if len(self._plans) >= self._plan_count_max:
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
        effect = NO_EFFECT
        group_max: list[int] = []
        brand_max: int | None = None
        pins: list[PinnedSlot] = []
        for row in rows:
            wish = self._rules[row].effect
            if wish.pin is not None:
                self._add_pin(pins, row)
            elif wish.brand_max is not None and self._rules[row].target is None:
                brand_max = wish.brand_max if brand_max is None else min(brand_max, wish.brand_max)
            else:
                if not len(effect):
                    effect = np.zeros(len(self._product_row), EFFECT)
                    effect["boost_ppm"] = PPM
                self._add_effect(effect, row, group_max)
        return RulePlan(
            rule_rows=tuple(rows),
            effect=effect,
            boost_ppm_max=max(PPM, int(effect["boost_ppm"].max())) if len(effect) else PPM,
            pins=tuple(pins),
            group_max=tuple(group_max),
            brand_max=brand_max,
        )

    def _add_effect(self, effect: Effects, row: int, group_max: list[int]) -> None:
        wish, mask = self._rules[row].effect, self._mask(row)
        if wish.exclude:
            effect["is_excluded"][mask] = 1
        if wish.boost is not None:
            boosted = effect["boost_ppm"][mask].astype(np.int64) * round(wish.boost * PPM) // PPM
            effect["boost_ppm"][mask] = np.clip(boosted, 1, BOOST_PPM_MAX)
        if wish.floor is not None:
            for name, least in _floors_per_event(wish.floor):
                effect[name][mask] = np.maximum(effect[name][mask], least)
        if wish.brand_max is not None and len(group_max) < GROUP_COUNT_MAX:
            effect["group"][mask] |= np.uint64(GROUP_FIRST_FREE << len(group_max))
            group_max.append(wish.brand_max)

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
        return [("floor_click", floor.click), ("floor_impression", -(-floor.impression // 1_000))]
    return [("floor_click", floor)]


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
