"""Retailer rules: compiled to one mask per rule when a snapshot is built, and to one plan per kind of page when asked.

`EVALUATION_ORDER` says in which order they act, whatever order they were written in.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.catalog import Product, category_and_ancestors
from affinity.product_target import NO_VIRTUAL_COLUMNS, CatalogueColumns, Mask, Target, VirtualColumns, target_mask
from affinity.signals import NO_SIGNALS, Signals
from auction.kernel import EFFECT, GROUP_EVERYONE, GROUP_FIRST_FREE, GROUP_PAID, VALUE_MICROS_MAX
from auction.placement import Floors
from auction.retailer_rule import Effect, RetailerRule
from auction.situation import NO_SITUATION, Questions, Situation
from auction.worth import value_column

PPM = 1_000_000
BOOST_PPM_MAX = 4_000_000
GROUP_COUNT_MAX = 58  # caps of rules on a part of the catalogue that one page can hold
PLAN_BYTES_MAX = 128_000_000

EVALUATION_ORDER = [
    "exclude and require: what they keep out appears neither paid nor organic, nor pinned",
    "pin: placed before anything is sold; of two on one slot or of one product the higher priority stands, then the "
    "lower rule id",
    "boost: factors multiply, to at most 4",
    "value: amounts add up, to at most 1,000,000,000 micros an impression; no boost touches them",
    "floor: the highest counts",
    "brand_max, max_share, spacing, own_brand_min, sponsored_max: every one holds; pins count towards them and are "
    "not moved by them",
]

Effects = NDArray[np.void]
Bytes = NDArray[np.uint8]
Int32s = NDArray[np.int32]

NO_EFFECT: Effects = np.zeros(0, EFFECT)
OWN_BRAND = Target(field="is_own_brand", equals=True)


class PinnedSlot(Struct, frozen=True):
    """A product that stands in a slot before anything is sold."""

    slot_position: int
    product_row: int
    rule_row: int


RULE_MARK = 1 << 62  # a bit of every cap of a rule and of no candidate: tells it from a cap of the placement
MOST, SHARE, ALL_BUT, APART = range(4)


class PlanCap(NamedTuple):
    """A cap over a placement's slots, however many are asked for.

    Attributes:
        kind: MOST: at most `amount` fills. SHARE: at most `amount` parts per million of the slots, rounded down.
            ALL_BUT: all slots but `amount`. APART: one in any `amount` slots side by side.
        groups: whom it counts, as bits.
        per_brand: 1: for each brand apart, 0: all together.
        amount: see `kind`.
    """

    kind: int
    groups: int
    per_brand: int
    amount: int

    def over(self, slot_count: int) -> list[tuple[int, int]]:
        """Return the kernel's caps: slots as bits, the placement's first being bit 0, and most fills."""
        if self.kind == APART:
            width = min(self.amount, slot_count)
            return [(((1 << width) - 1) << first, 1) for first in range(slot_count - width + 1)]
        if self.kind == SHARE:  # a share is rounded to a millionth: a third of three slots is one
            most = (self.amount * slot_count + slot_count) // PPM
        else:
            most = self.amount if self.kind == MOST else max(0, slot_count - self.amount)
        return [((1 << slot_count) - 1, most)]


class IgnoredRule(NamedTuple):
    """A rule in force that does nothing, and why."""

    rule_row: int
    reason: str


class RulePlan(Struct, frozen=True):
    """What all rules in force together do to one placement of one page. An empty array changes nothing.

    Attributes:
        rule_rows: the rules in force, in the order they are evaluated.
        effect: (P,) EFFECT, what they do to each product; empty: nothing.
        boost_ppm_max: greatest factor of any product, at least 1,000,000.
        value_micros_max: greatest value rules give any product.
        pins: by slot, at most one per slot and product.
        caps: every cap of the rules.
        own_brand_min: so many slots are for own brand only.
        other_brands: group of everything else, 0 without such a rule.
        ignored: rules in force that another one, or the catalogue, leaves without effect.
    """

    rule_rows: tuple[int, ...] = ()
    effect: Effects = NO_EFFECT
    boost_ppm_max: int = PPM
    value_micros_max: int = 0
    pins: tuple[PinnedSlot, ...] = ()
    caps: tuple[PlanCap, ...] = ()
    own_brand_min: int = 0
    other_brands: int = 0
    ignored: tuple[IgnoredRule, ...] = ()

    def excludes(self, product_row: int) -> bool:
        """Say whether a rule keeps the product out."""
        return len(self.effect) > 0 and bool(self.effect["is_excluded"][product_row])

    def group_of(self, product_row: int) -> int:
        """Return the bits of the targeted caps the product counts for."""
        return int(self.effect["group"][product_row]) if len(self.effect) else 0


NO_RULES = RulePlan()


class CompiledRules(NamedTuple):
    """Live rules in the order they are evaluated, with what they say of each product.

    Attributes:
        rules: R of them.
        target_bits: (R, ⌈P/8⌉) which products each is about.
        value_micros: (V, P) of each rule that gives a value, in their order.
    """

    rules: list[RetailerRule]
    target_bits: Bytes
    value_micros: Int32s


def compile_rules(
    rules: Sequence[RetailerRule],
    products: Sequence[Product],
    read_at_ms: int,
    virtual: VirtualColumns = NO_VIRTUAL_COLUMNS,
    signals: Signals = NO_SIGNALS,
) -> CompiledRules:
    """Return the live rules as masks and columns over the products, whose ages count from `read_at_ms`."""
    ordered = in_evaluation_order(rules)
    columns = CatalogueColumns(products, read_at_ms, virtual, signals)
    masks = [target_mask(_target_of(rule), columns) for rule in ordered]
    values = [
        value_column(rule.effect.value, mask, columns)
        for rule, mask in zip(ordered, masks, strict=True)
        if rule.effect.value is not None
    ]
    return CompiledRules(
        ordered,
        np.packbits(masks, axis=1) if masks else np.zeros((0, -(-len(products) // 8)), np.uint8),
        np.array(values, np.int32) if values else np.zeros((0, len(products)), np.int32),
    )


def _target_of(rule: RetailerRule) -> Target | None:
    return OWN_BRAND if rule.effect.own_brand_min is not None else rule.target


class RuleBook:
    """The live rules of one snapshot, and the plans already made from them."""

    def __init__(
        self,
        rules: Sequence[RetailerRule],
        target_bits: Bytes,
        value_micros: Int32s,
        product_row: Mapping[str, int],
        time_zone: str,
    ) -> None:
        self._rules = rules
        self._target_bits, self._value_micros, self._time_zone = target_bits, value_micros, time_zone
        giving = [row for row, rule in enumerate(rules) if rule.effect.value is not None]
        self._value_of = dict(zip(giving, value_micros, strict=True))
        self._product_row = product_row
        self._plans: dict[tuple[object, ...], RulePlan] = {}
        self._plan_count_max = max(8, PLAN_BYTES_MAX // (EFFECT.itemsize * max(1, len(product_row))))
        self._questions = Questions(rules, time_zone)
        self._asks_category = any(rule.scope.categories for rule in rules)

    def go_on_from(self, before: "RuleBook") -> None:
        """Keep the plans of an earlier book over the same products, if it has the same rules and means the same."""
        if (
            self._rules == before._rules
            and self._time_zone == before._time_zone
            and np.array_equal(self._target_bits, before._target_bits)
            and np.array_equal(self._value_micros, before._value_micros)
        ):
            self._plans = dict(before._plans)

    def ask(self, context: Mapping[str, Any], segments: frozenset[str], now_ms: int) -> Situation:
        """Return what the rules want to know of a request, the same for all its placements."""
        return self._questions.ask(context, segments, now_ms) if self._rules else NO_SITUATION

    def plan_for(self, page_type: str, placement_id: str, category_id: str | None, situation: Situation) -> RulePlan:
        """Return what the rules do to a placement on such a page in that situation."""
        if not self._rules:
            return NO_RULES
        key = (page_type, placement_id, category_id if self._asks_category else None, situation)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= self._plan_count_max:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[key] = self._make_plan(page_type, placement_id, category_id, situation)
        return plan

    def _make_plan(self, page_type: str, placement_id: str, category_id: str | None, situation: Situation) -> RulePlan:
        categories = frozenset(category_and_ancestors(category_id)) if category_id else frozenset()
        rows = [
            row
            for row, rule in enumerate(self._rules)
            if _is_in_scope(rule, page_type, placement_id, categories) and self._questions.are_met(rule, situation)
        ]
        return self._combine(rows) if rows else NO_RULES

    def _combine(self, rows: Sequence[int]) -> RulePlan:
        making = _Making(len(self._product_row))
        for row in rows:
            rule = self._rules[row]
            if rule.effect.pin is not None:
                self._add_pin(making, row)
            elif not self._add_cap(making, row):
                _add_effect(making.effects(), rule, self._mask(row), self._value_of.get(row))
        effect = making.effect
        return RulePlan(
            rule_rows=tuple(rows),
            effect=effect,
            boost_ppm_max=max(PPM, int(effect["boost_ppm"].max())) if len(effect) else PPM,
            value_micros_max=int(effect["value_micros"].max()) if len(effect) else 0,
            pins=tuple(making.pins),
            caps=tuple(making.caps),
            own_brand_min=making.own_brand_min,
            other_brands=making.other_brands,
            ignored=tuple(making.ignored),
        )

    def _add_cap(self, making: "_Making", row: int) -> bool:
        """Add the rule's cap; say whether it has one."""
        wish, target = self._rules[row].effect, self._rules[row].target
        if wish.sponsored_max is not None:
            making.caps.append(PlanCap(MOST, GROUP_PAID, 0, wish.sponsored_max))
        elif wish.own_brand_min is not None:
            self._add_own_brand_min(making, row, wish.own_brand_min)
        else:
            cap = _cap_of(wish)
            if cap is None:
                return False
            groups = GROUP_EVERYONE if target is None else making.new_group(row, self._mask(row))
            if groups:
                making.caps.append(cap._replace(groups=groups))
        return True

    def _add_own_brand_min(self, making: "_Making", row: int, least: int) -> None:
        making.other_brands = making.other_brands or making.new_group(row, ~self._mask(row))
        if making.other_brands:
            making.caps.append(PlanCap(ALL_BUT, making.other_brands, 0, least))
            making.own_brand_min = max(making.own_brand_min, least)

    def _add_pin(self, making: "_Making", row: int) -> None:
        pin = self._rules[row].effect.pin
        assert pin is not None
        product_row = self._product_row.get(pin.product_id)
        if product_row is None:
            making.ignored.append(IgnoredRule(row, f"product {pin.product_id!r} is gone"))
        elif any(other.slot_position == pin.slot_position for other in making.pins):
            making.ignored.append(IgnoredRule(row, f"another pin comes first in slot {pin.slot_position}"))
        elif any(other.product_row == product_row for other in making.pins):
            making.ignored.append(IgnoredRule(row, f"product {pin.product_id!r} is pinned to another slot already"))
        else:
            making.pins.append(PinnedSlot(pin.slot_position, product_row, row))

    def _mask(self, row: int) -> Mask:
        return np.unpackbits(self._target_bits[row], count=len(self._product_row)).astype(bool)


class _Making:
    """A plan as it is put together."""

    def __init__(self, product_count: int) -> None:
        self.product_count = product_count
        self.effect = NO_EFFECT
        self.pins: list[PinnedSlot] = []
        self.caps: list[PlanCap] = []
        self.ignored: list[IgnoredRule] = []
        self.own_brand_min = 0
        self.other_brands = 0
        self._group_count = 0

    def effects(self) -> Effects:
        """Return what is done to each product, to be changed."""
        if not len(self.effect):
            self.effect = np.zeros(self.product_count, EFFECT)
            self.effect["boost_ppm"] = PPM
        return self.effect

    def new_group(self, rule_row: int, mask: Mask) -> int:
        """Return the bit of a new group of these products; 0, and the rule is ignored, where there are no more."""
        if self._group_count == GROUP_COUNT_MAX:
            self.ignored.append(
                IgnoredRule(rule_row, f"a page can hold {GROUP_COUNT_MAX} caps on parts of the catalogue")
            )
            return 0
        bit = GROUP_FIRST_FREE << self._group_count
        self._group_count += 1
        self.effects()["group"][mask] |= np.uint64(bit)
        return bit


def _cap_of(wish: Effect) -> PlanCap | None:
    """Return the cap an effect lays on its target, whose group is still to be named."""
    if wish.brand_max is not None:
        return PlanCap(MOST, 0, 1, wish.brand_max)
    if wish.max_share is not None:
        return PlanCap(SHARE, 0, 0, round(wish.max_share * PPM))
    if wish.spacing is not None:
        return PlanCap(APART, 0, int(wish.spacing.of == "brand"), wish.spacing.slots)
    return None


def _add_effect(effect: Effects, rule: RetailerRule, mask: Mask, value_micros: Int32s | None) -> None:
    wish = rule.effect
    if wish.exclude:
        effect["is_excluded"][mask] = 1
    if wish.require:
        effect["is_excluded"][~mask] = 1
    if wish.boost is not None:
        boosted = effect["boost_ppm"][mask].astype(np.int64) * round(wish.boost * PPM) // PPM
        effect["boost_ppm"][mask] = np.clip(boosted, 1, BOOST_PPM_MAX)
    if value_micros is not None:
        added = effect["value_micros"].astype(np.int64) + value_micros
        effect["value_micros"] = np.minimum(added, VALUE_MICROS_MAX)
    if wish.floor is not None:
        for name, least in _floors_per_event(wish.floor):
            effect[name][mask] = np.maximum(effect[name][mask], least)


def in_evaluation_order(rules: Sequence[RetailerRule]) -> list[RetailerRule]:
    """Return the live rules, higher priority first, then in the order of their ids."""
    live = [rule for rule in rules if rule.stage == "live"]
    return sorted(live, key=lambda rule: (-rule.priority, rule.rule_id))


def _floors_per_event(floor: int | Floors) -> list[tuple[str, int]]:
    if isinstance(floor, Floors):
        return [("floor_click", floor.click), ("floor_impression", -(-floor.impression // 1_000))]
    return [("floor_click", floor)]


def _is_in_scope(rule: RetailerRule, page_type: str, placement_id: str, categories: frozenset[str]) -> bool:
    scope = rule.scope
    return (
        (scope.pages is None or page_type in scope.pages)
        and (scope.placements is None or placement_id in scope.placements)
        and (scope.categories is None or not categories.isdisjoint(scope.categories))
    )
