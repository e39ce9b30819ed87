"""What does not go together among rules: told with a code, and only where the two could meet."""

from datetime import timedelta
from typing import Any

import pytest

from affinity.product_target import Target
from auction.conflicts import Surroundings, find_conflicts, may_meet
from auction.retailer_rule import Condition, Effect, Pin, RetailerRule, Schedule, Scope
from tests.auction.worlds import NOW, NOW_MS, booking, placement, product, rule

ACME = Target(field="brand", equals="Acme")
PRODUCTS = {"p1": product("p1", brand="Acme"), "p2": product("p2", brand="Other")}


def codes(*rules: RetailerRule, **around: Any) -> list[tuple[str, list[str]]]:
    fields: dict[str, Any] = {"placements": [placement()], "bookings": [], "products": PRODUCTS, "attributes": []}
    found = find_conflicts(rules, Surroundings(**fields | around, now_ms=NOW_MS))
    assert all(one.words for one in found)
    return [(one.code, one.rule_ids) for one in found]


def pin(rule_id: str, product_id: str, slot_position: int = 1, **changes: Any) -> RetailerRule:
    return rule(rule_id, Effect(pin=Pin(product_id=product_id, slot_position=slot_position)), **changes)


def test_rules_that_go_together_are_not_named() -> None:
    assert (
        codes(pin("a", "p1"), pin("b", "p2", 2), rule("c", Effect(exclude=True), Target(field="brand", equals="X")))
        == []
    )


def test_pins_run_into_each_other_into_placements_and_into_bookings() -> None:
    assert codes(pin("a", "p1"), pin("b", "p2")) == [("pins_on_one_slot", ["a", "b"])]
    assert codes(pin("a", "p1"), pin("b", "p1", 2)) == [("product_pinned_twice", ["a", "b"])]
    assert codes(pin("a", "p1", 3)) == [("pin_beyond_slots", ["a"])]
    assert codes(pin("a", "p1", 3), placements=[placement(), placement("wide", 3)]) == []
    assert codes(pin("a", "p1"), bookings=[booking("bkg_1", "p2")]) == [("pin_on_booked_slot", ["a"])]
    assert codes(pin("a", "p1", scope=Scope(placements=["side"])), bookings=[booking("bkg_1", "p2")]) == []
    late = Schedule(starts_at=NOW + timedelta(days=1))
    assert codes(pin("a", "p1", schedule=late), bookings=[booking("bkg_1", "p2")]) == []


def test_what_is_pinned_may_be_kept_out() -> None:
    assert codes(rule("a", Effect(exclude=True), ACME), pin("b", "p1")) == [("pin_kept_out", ["b", "a"])]
    assert codes(rule("a", Effect(exclude=True), ACME), pin("b", "p2")) == []
    assert codes(rule("a", Effect(require=True), ACME), pin("b", "p2")) == [("pin_kept_out", ["b", "a"])]
    assert codes(rule("a", Effect(require=True), ACME), pin("b", "p1")) == []


def test_nothing_may_stand_where_the_same_target_must_and_may_not() -> None:
    both = rule("a", Effect(require=True), ACME), rule("b", Effect(exclude=True), ACME)
    assert codes(*both) == [("nothing_may_stand", ["a", "b"])]
    assert codes(rule("a", Effect(exclude=True))) == [("nothing_may_stand", ["a"])]


def test_more_slots_for_own_brand_than_there_are() -> None:
    minimum = rule("a", Effect(own_brand_min=3))
    assert codes(minimum, placements=[placement(), placement("wide", 3)]) == [("own_brand_min_beyond_slots", ["a"])]
    assert codes(rule("a", Effect(own_brand_min=3), scope=Scope(pages=["cart"]))) == []


@pytest.mark.parametrize(
    ("one", "other", "do_meet"),
    [
        ({}, {}, True),
        ({"scope": Scope(pages=["home"])}, {"scope": Scope(pages=["search"])}, False),
        ({"scope": Scope(pages=["home"])}, {}, True),
        ({"scope": Scope(placements=["a"])}, {"scope": Scope(placements=["a", "b"])}, True),
        ({"scope": Scope(devices=["a"])}, {"scope": Scope(devices=["b"])}, False),
        ({"scope": Scope(categories=["Shoes"])}, {"scope": Scope(categories=["Shoes > Running"])}, True),
        ({"scope": Scope(categories=["Shoes"])}, {"scope": Scope(categories=["Shoestring"])}, False),
        ({"scope": Scope(segments=["a"])}, {"scope": Scope(segments=["b"])}, True),
        ({"when": [Condition(weather=["rain"])]}, {"when": [Condition(weather=["sun"])]}, False),
        ({"when": [Condition(weather=["rain"])]}, {"when": [Condition(region=["sun"])]}, True),
        ({"schedule": Schedule(ends_at=NOW)}, {"schedule": Schedule(starts_at=NOW)}, False),
        ({"schedule": Schedule(ends_at=NOW + timedelta(seconds=1))}, {"schedule": Schedule(starts_at=NOW)}, True),
    ],
)
def test_only_rules_that_could_be_in_force_at_once_meet(one: Any, other: Any, do_meet: bool) -> None:
    first, second = pin("a", "p1", **one), pin("b", "p2", **other)
    assert may_meet(first, second) == may_meet(second, first) == do_meet
