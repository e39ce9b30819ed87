"""What does not go together among a merchant's rules and bookings: told when saved or previewed, never refused.

Looks at what is written, not at what a page holds: rules that could be in force at once on one placement are compared
in pairs. A page decided under such rules is still right: one of the two has no effect, or nothing may stand there.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from affinity.catalog import CATEGORY_SEPARATOR, Product
from affinity.product_target import CatalogueColumns, target_mask
from affinity.signals import NO_SIGNALS, Signals
from auction.booking import Booking
from auction.placement import Placement
from auction.retailer_rule import Condition, RetailerRule, Schedule, Scope
from auction.virtual_attribute import VirtualAttribute, virtual_columns


class RuleConflict(Struct, frozen=True, kw_only=True):
    """Something of a rule that another rule, a placement or a booking leaves without effect.

    Attributes:
        code: stable word: `pins_on_one_slot`, `product_pinned_twice`, `pin_kept_out`, `pin_on_booked_slot`,
            `pin_beyond_slots`, `own_brand_min_beyond_slots`, `nothing_may_stand`.
        rule_ids: the rules it is about.
    """

    code: str
    rule_ids: list[str]
    words: str


class Surroundings(Struct, frozen=True, kw_only=True):
    """What rules are held against.

    Attributes:
        placements: all there are.
        bookings: active ones.
        products: the pinned ones, by id.
        attributes: active virtual ones, which targets may ask for.
        signals: of merchandising, which they may ask for too.
        now_ms: ages of products count until then.
    """

    placements: Sequence[Placement]
    bookings: Sequence[Booking]
    products: Mapping[str, Product]
    attributes: Sequence[VirtualAttribute]
    signals: Signals = NO_SIGNALS
    now_ms: int


def find_conflicts(rules: Sequence[RetailerRule], around: Surroundings) -> list[RuleConflict]:
    """Return what does not go together among rules taken as live."""
    found: list[RuleConflict] = []
    for row, rule in enumerate(rules):
        found += conflicts_of(rule, rules[row + 1 :], around)
    return found


def conflicts_of(rule: RetailerRule, others: Sequence[RetailerRule], around: Surroundings) -> list[RuleConflict]:
    """Return what of a rule does not go together with others, with placements or with bookings."""
    found = list(_with_placements(rule, [one for one in around.placements if _stands_on(rule.scope, one)]))
    found += _with_bookings(rule, around.bookings)
    if rule.effect.exclude and rule.target is None:
        found.append(_conflict("nothing_may_stand", [rule], f"{rule.name} excludes every product"))
    for other in others:
        if may_meet(rule, other):
            found += _between(rule, other, around)
    return found


def may_meet(one: RetailerRule, other: RetailerRule) -> bool:
    """Say whether two rules could be in force at once on one placement, as far as what they say tells."""
    return (
        _scopes_meet(one.scope, other.scope)
        and _schedules_meet(one.schedule, other.schedule)
        and not any(_exclude_each_other(a, b) for a in one.when for b in other.when)
    )


def _with_placements(rule: RetailerRule, placements: Sequence[Placement]) -> Iterator[RuleConflict]:
    pin, least = rule.effect.pin, rule.effect.own_brand_min
    largest = max((placement.slot_count for placement in placements), default=0)
    if pin is not None and placements and pin.slot_position > largest:
        words = f"{rule.name} pins slot {pin.slot_position}, and no placement in its scope has more than {largest}"
        yield _conflict("pin_beyond_slots", [rule], words)
    for placement in placements:
        if least is not None and least > placement.slot_count:
            words = (
                f"{rule.name} keeps {least} slots for own brand, {placement.placement_id} has {placement.slot_count}"
            )
            yield _conflict("own_brand_min_beyond_slots", [rule], words)


def _with_bookings(rule: RetailerRule, bookings: Sequence[Booking]) -> Iterator[RuleConflict]:
    pin = rule.effect.pin
    for booking in bookings if pin is not None else ():
        assert pin is not None
        is_there = rule.scope.placements is None or booking.placement_id in rule.scope.placements
        time = Schedule(starts_at=booking.starts_at, ends_at=booking.ends_at)
        if is_there and booking.slot_position == pin.slot_position and _schedules_meet(rule.schedule, time):
            words = f"slot {pin.slot_position} of {booking.placement_id} is booked: {booking.booking_id} comes first"
            yield _conflict("pin_on_booked_slot", [rule], words)


def _between(one: RetailerRule, other: RetailerRule, around: Surroundings) -> Iterator[RuleConflict]:
    a, b = one.effect, other.effect
    if a.pin is not None and b.pin is not None:
        if a.pin.slot_position == b.pin.slot_position:
            words = f"{one.name} and {other.name} pin slot {a.pin.slot_position}: the higher priority stands"
            yield _conflict("pins_on_one_slot", [one, other], words)
        elif a.pin.product_id == b.pin.product_id:
            words = f"{one.name} and {other.name} pin product {a.pin.product_id!r}: it stands once"
            yield _conflict("product_pinned_twice", [one, other], words)
    for pinning, keeping in ((one, other), (other, one)):
        pin = pinning.effect.pin
        if pin is not None and _keeps_out(keeping, pin.product_id, around):
            words = f"{keeping.name} keeps out product {pin.product_id!r}, which {pinning.name} pins"
            yield _conflict("pin_kept_out", [pinning, keeping], words)
    if ((a.exclude and b.require) or (a.require and b.exclude)) and one.target == other.target:
        words = f"{one.name} and {other.name} together leave nothing that may stand"
        yield _conflict("nothing_may_stand", [one, other], words)


def _keeps_out(rule: RetailerRule, product_id: str, around: Surroundings) -> bool:
    product = around.products.get(product_id)
    if product is None or not (rule.effect.exclude or rule.effect.require):
        return False
    virtual = virtual_columns(around.attributes, [product], around.now_ms, around.signals)
    columns = CatalogueColumns([product], around.now_ms, virtual, around.signals)
    is_target = bool(target_mask(rule.target, columns)[0])
    return is_target == bool(rule.effect.exclude)


def _stands_on(scope: Scope, placement: Placement) -> bool:
    return (scope.placements is None or placement.placement_id in scope.placements) and (
        scope.pages is None or not set(scope.pages).isdisjoint(placement.page_types)
    )


def _scopes_meet(one: Scope, other: Scope) -> bool:
    for kind in ("pages", "placements", "devices"):
        if _are_disjoint(getattr(one, kind), getattr(other, kind)):
            return False
    if one.categories is None or other.categories is None:
        return True
    return any(_is_in(a, b) or _is_in(b, a) for a in one.categories for b in other.categories)


def _is_in(category: str, above: str) -> bool:
    return category == above or category.startswith(above + CATEGORY_SEPARATOR)


def _schedules_meet(one: Schedule, other: Schedule) -> bool:
    return not (
        (one.ends_at is not None and other.starts_at is not None and one.ends_at <= other.starts_at)
        or (other.ends_at is not None and one.starts_at is not None and other.ends_at <= one.starts_at)
    )


def _exclude_each_other(one: Condition, other: Condition) -> bool:
    """Say whether no request can meet both: a visitor has several segments, and everything else once."""
    return any(
        _are_disjoint(getattr(one, kind), getattr(other, kind)) for kind in ("device", "region", "store", "weather")
    )


def _are_disjoint(one: list[Any] | None, other: list[Any] | None) -> bool:
    return one is not None and other is not None and set(one).isdisjoint(other)


def _conflict(code: str, rules: Sequence[RetailerRule], words: str) -> RuleConflict:
    return RuleConflict(code=code, rule_ids=[rule.rule_id for rule in rules], words=words)
