"""Credit for sales: the last click, once, for the product or another of the advertiser's; returns take it back."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.attribution import DAY_MS, MODELS, AttributionModel, Credit, Line, Shelf, Touch, attribute

NOW_MS = 1_795_521_600_000
ANNA, BERT = b"a" * 16, b"b" * 16
SHELF = Shelf(
    {"shoe": {"acme"}, "boot": {"acme"}, "sock": {"brio", "acme"}, "hat": {"brio"}},
    {"shoe": "Acme", "boot": "Acme", "sock": "Brio", "hat": "Brio"},
)
DEFAULT = MODELS["default"]
VIEWS = AttributionModel(name="views", click_days=14, view_days=7)


def touch(days_ago: float, product_id: str = "shoe", campaign_id: str = "cmp_1", **changes: Any) -> Touch:
    fields: dict[str, Any] = {
        "person": ANNA,
        "is_click": True,
        "occurred_at_ms": NOW_MS - round(days_ago * DAY_MS),
        "token_id": f"{days_ago}-{campaign_id}",
        "product_id": product_id,
        "advertiser_id": "acme",
        "campaign_id": campaign_id,
        "bid_id": "bid_1",
        "placement_id": "top",
    }
    return Touch(**fields | changes)


def line(product_id: str = "shoe", days_ago: float = 0, **changes: Any) -> Line:
    fields: dict[str, Any] = {
        "order_id": "o1",
        "part": 0,
        "line": 1,
        "persons": frozenset([ANNA]),
        "occurred_at_ms": NOW_MS - round(days_ago * DAY_MS),
        "channel": "web",
        "traffic_source": None,
        "product_id": product_id,
        "quantity": 2,
        "unit_price_micros": 30_000_001,
    }
    return Line(**fields | changes)


def credits_of(touches: list[Touch], lines: list[Line], model: AttributionModel = DEFAULT) -> list[Credit]:
    return attribute(model, touches, lines, SHELF, NOW_MS)


def campaigns(touches: list[Touch], model: AttributionModel = DEFAULT, **of_line: Any) -> list[str]:
    return [credit.touch.campaign_id for credit in credits_of(touches, [line(**of_line)], model)]


def test_the_last_click_before_the_order_has_the_credit() -> None:
    touches = [touch(5, campaign_id="early"), touch(2, campaign_id="last"), touch(-1, campaign_id="after")]
    assert campaigns(touches) == ["last"]
    assert campaigns([touch(14, campaign_id="just in")]) == ["just in"]
    assert campaigns([touch(14.001)]) == []
    assert campaigns([touch(1, person=BERT)]) == []
    assert campaigns([touch(1)], persons=frozenset()) == []


def test_a_click_beats_a_later_view_and_views_count_where_the_model_says() -> None:
    click, view = touch(6, campaign_id="click"), touch(1, campaign_id="view", is_click=False)
    assert campaigns([click, view], VIEWS) == ["click"]
    assert campaigns([view], VIEWS) == ["view"]
    assert campaigns([view]) == []
    assert campaigns([touch(8, is_click=False)], VIEWS) == []


def test_another_product_of_the_advertiser_is_a_halo_and_that_of_another_advertiser_nothing() -> None:
    (credit,) = credits_of([touch(1, "boot")], [line("shoe")])
    assert (credit.basis, credit.amount_micros) == ("halo", 60_000_002)
    assert credits_of([touch(1, "shoe")], [line("shoe")])[0].basis == "same_sku"
    assert credits_of([touch(1, "shoe")], [line("sock")])[0].basis == "halo", "acme may sell socks too"
    assert campaigns([touch(1, "shoe")], product_id="hat") == []
    assert campaigns([touch(1, "boot")], MODELS["same-sku-7d"]) == []
    assert campaigns([touch(3, "boot", "older"), touch(1, "hat", "newer", advertiser_id="brio")]) == ["older"]


def test_a_customers_devices_and_a_store_order_come_together() -> None:
    assert campaigns([touch(1, person=BERT)], persons=frozenset([ANNA, BERT]), channel="store") == ["cmp_1"]


def test_a_return_takes_back_what_its_order_was_credited_and_no_more() -> None:
    touches = [touch(20, campaign_id="first"), touch(1, campaign_id="later")]
    lines = [
        line(days_ago=10),
        line(days_ago=0.5, part=1, quantity=-1, unit_price_micros=29_000_000),
        line(days_ago=0.2, part=2, quantity=-5),
    ]
    found = credits_of(touches, lines)
    assert [(one.touch.campaign_id, one.quantity) for one in found] == [("first", 2), ("first", -1), ("first", -1)]
    assert [one.amount_micros for one in found] == [60_000_002, -29_000_000, -30_000_001]
    assert [one.is_provisional for one in found] == [True, False, False]
    assert credits_of(touches, [line(quantity=-2)]) == [], "a return to an order nobody told of"
    assert credits_of([], lines) == []


def test_new_to_brand_is_who_bought_nothing_of_it_for_a_year() -> None:
    def is_new(*before: Line) -> list[bool | None]:
        return [one.is_new_to_brand for one in credits_of([touch(1)], [*before, line()])]

    assert is_new() == [True]
    assert is_new(line("boot", 100, order_id="o0")) == [False]
    assert is_new(line("boot", 366, order_id="o0")) == [True]
    assert is_new(line("hat", 100, order_id="o0")) == [True]
    assert is_new(line("boot", 100, order_id="o0", persons=frozenset([BERT]))) == [True]
    both = credits_of([touch(1)], [line("shoe"), line("boot", line=2)])
    assert [one.is_new_to_brand for one in both] == [True, True], "an order is one purchase"


def test_what_may_be_withdrawn_is_provisional() -> None:
    touches = [touch(20)]
    assert [one.is_provisional for one in credits_of(touches, [line(days_ago=13.9)])] == [True]
    assert [one.is_provisional for one in credits_of(touches, [line(days_ago=14)])] == [False]


@given(st.integers(0, 10**6))
def test_each_line_is_credited_at_most_once_and_as_a_plain_reading_of_the_rules_says(seed: int) -> None:
    chance = random.Random(seed)
    people, products = [ANNA, BERT], ["shoe", "boot", "sock", "hat"]
    touches = [
        touch(
            chance.randint(0, 40) / 2,
            chance.choice(products),
            chance.choice(["c1", "c2"]),
            person=chance.choice(people),
            is_click=chance.random() < 0.5,
            advertiser_id=chance.choice(["acme", "brio"]),
            token_id=f"t{number:02d}",
        )
        for number in range(chance.randint(0, 12))
    ]
    lines = [
        line(
            chance.choice(products),
            chance.randint(0, 40) / 2,
            order_id=f"o{number}",
            persons=frozenset(chance.sample(people, chance.randint(0, 2))),
        )
        for number in range(chance.randint(0, 6))
    ]
    model = chance.choice([*MODELS.values(), VIEWS])
    found = credits_of(touches, lines, model)
    assert len({one.line.order_id for one in found}) == len(found)
    assert {one.line.order_id: one.touch.token_id for one in found} == {
        one.order_id: best for one in lines if (best := naive_touch(model, touches, one)) is not None
    }


def naive_touch(model: AttributionModel, touches: list[Touch], bought: Line) -> str | None:
    def fits(one: Touch) -> bool:
        age_days = (bought.occurred_at_ms - one.occurred_at_ms) / DAY_MS
        days = model.click_days if one.is_click else model.view_days
        is_own = one.product_id == bought.product_id
        is_halo = model.has_halo and one.advertiser_id in SHELF.advertisers_of[bought.product_id]
        return days > 0 and 0 <= age_days <= days and one.person in bought.persons and (is_own or is_halo)

    best = max((one for one in touches if fits(one)), key=lambda one: (one.is_click, one.occurred_at_ms, one.token_id),
               default=None)  # fmt: skip
    return None if best is None else best.token_id


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_model_is_one_that_can_be_asked_for(model: AttributionModel) -> None:
    assert campaigns([touch(model.click_days - 0.5)], model) == ["cmp_1"]
    assert campaigns([touch(model.click_days + 0.5)], model) == []
