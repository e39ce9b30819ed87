"""When rules act: conditions over a request's context, and the weather that a region stands for."""

from datetime import UTC, datetime
from typing import Any

import pytest

from auction.campaign import BidContext, TemperatureRange
from auction.loss import LossReason
from auction.retailer_rule import Condition, Effect, HourRange, Scope
from auction.weather import HOLDS_MS, Forecast, WeatherHour
from tests.auction.worlds import NOW, NOW_MS, World, bid, request, rule, source

HOUR_IN_PARIS = (NOW.hour + 2) % 24


def acts(*conditions: Condition, segments: frozenset[str] = frozenset(), forecast: Any = (), **context: Any) -> bool:
    """Say whether a rule under the conditions acts on a page with that context."""
    ban = rule("rul_1", Effect(exclude=True), when=list(conditions))
    world = World(source(rules=[ban], bids=[bid("bid_1", ["p1"])], weather=list(forecast)))
    outcome = world.hold(request(context=context), world.visitor(segments=segments))
    return outcome.places[0].decisions == []


@pytest.mark.parametrize("kind", ["device", "region", "store", "weather"])
def test_the_context_says_one_of_the_values(kind: str) -> None:
    condition = Condition(**{kind: ["a", "b"]})
    assert acts(condition, **{kind: "b"})
    assert not acts(condition, **{kind: "c"})
    assert not acts(condition, **{kind: ["a"]})
    assert not acts(condition)


def test_all_conditions_must_hold() -> None:
    both = Condition(device=["mobile"]), Condition(weather=["rain"])
    assert acts(*both, device="mobile", weather="rain")
    assert not acts(*both, device="mobile", weather="sun")
    assert not acts(*both, weather="rain")


def test_the_visitor_is_in_one_of_the_segments() -> None:
    condition = Condition(segment=["vip", "new"])
    assert acts(condition, segments=frozenset({"new", "other"}))
    assert not acts(condition, segments=frozenset({"other"}))


def test_hours_are_the_retailers() -> None:
    assert acts(Condition(hours=[HOUR_IN_PARIS]))
    assert not acts(Condition(hours=[NOW.hour]))
    assert acts(Condition(hour=HourRange(from_=HOUR_IN_PARIS, to=HOUR_IN_PARIS + 1)))
    assert not acts(Condition(hour=HourRange(from_=HOUR_IN_PARIS + 1, to=HOUR_IN_PARIS)))


@pytest.mark.parametrize(
    ("begins", "ends", "hours"),
    [(9, 12, {9, 10, 11}), (22, 2, {22, 23, 0, 1}), (0, 24, set(range(24))), (23, 0, {23})],
)
def test_a_range_of_hours_may_go_over_midnight(begins: int, ends: int, hours: set[int]) -> None:
    assert {hour for hour in range(24) if HourRange(from_=begins, to=ends).includes(hour)} == hours


@pytest.mark.parametrize(
    ("told", "is_met"),
    [(20, True), (25.0, True), (19.999, False), (25.001, False), ("22", False), (True, False), (None, False)],
)
def test_a_temperature_is_within_both_ends(told: Any, is_met: bool) -> None:
    wanted = TemperatureRange(at_least=20, at_most=25)
    assert acts(Condition(temperature_c=wanted), temperature_c=told) == is_met
    world = World(source(bids=[bid("bid_1", ["p1"], context=BidContext(temperature_c=wanted))]))
    outcome = world.hold(request(context={"temperature_c": told}))
    assert (outcome.places[0].decisions != []) == is_met
    if not is_met:
        assert world.market.scratch.found.lost["reason"][0] == LossReason.CONTEXT_MISSED


def test_a_bid_that_asks_for_no_temperature_takes_part_in_any() -> None:
    world = World(source(bids=[bid("bid_1", ["p1"], context=BidContext(devices=["mobile"]))]))
    for told in ({}, {"temperature_c": -40}, {"temperature_c": 40.5}):
        assert world.hold(request(context={"device": "mobile", **told})).places[0].decisions
    cold = BidContext(temperature_c=TemperatureRange(at_most=0))
    world = World(source(bids=[bid("bid_1", ["p1"], context=cold)]))
    assert not world.hold(request()).places[0].decisions
    assert world.hold(request(context={"temperature_c": -1000})).places[0].decisions


RAIN = WeatherHour("fr-75", NOW_MS - 60_000, "rain", 7.5)


def test_a_region_stands_for_its_weather_and_the_pages_own_word_wins() -> None:
    wet, cool = Condition(weather=["rain"]), Condition(temperature_c=TemperatureRange(at_most=10))
    assert acts(wet, cool, forecast=[RAIN], region="fr-75")
    assert not acts(wet, forecast=[RAIN], region="fr-13")
    assert not acts(wet, forecast=[RAIN])
    forecast = Forecast([RAIN])
    assert forecast.completed({"region": "fr-75", "weather": "sun"}, NOW_MS) == {
        "region": "fr-75", "weather": "sun", "temperature_c": 7.5,
    }  # fmt: skip
    assert forecast.completed({"region": "fr-75", "temperature_c": 30}, NOW_MS)["temperature_c"] == 30
    assert forecast.completed({"region": ["fr-75"]}, NOW_MS) == {"region": ["fr-75"]}


def test_weather_reaches_bids_too() -> None:
    wet = BidContext(weather=["rain"], temperature_c=TemperatureRange(at_least=5))
    world = World(source(bids=[bid("bid_1", ["p1"], context=wet)], weather=[RAIN]))
    assert world.hold(request(context={"region": "fr-75"})).places[0].decisions
    assert not world.hold(request(context={"region": "fr-75", "weather": "sun"})).places[0].decisions


def test_an_hour_holds_until_the_next_one_and_three_hours_at_most() -> None:
    later = WeatherHour("fr-75", NOW_MS + 3_600_000, "sun")
    forecast = Forecast([later, RAIN])

    def weather_at(now_ms: int) -> Any:
        return forecast.completed({"region": "fr-75"}, now_ms).get("weather")

    assert weather_at(RAIN.from_ms - 1) is None
    assert weather_at(RAIN.from_ms) == "rain"
    assert weather_at(later.from_ms - 1) == "rain"
    assert weather_at(later.from_ms + HOLDS_MS - 1) == "sun"
    assert weather_at(later.from_ms + HOLDS_MS) is None


def test_what_no_rule_asks_makes_no_new_plan() -> None:
    """A device or temperature nobody names must not fill the cache of plans."""
    rules = [
        rule("rul_1", Effect(exclude=True), when=[Condition(device=["mobile"])]),
        rule("rul_2", Effect(exclude=True), when=[Condition(temperature_c=TemperatureRange(at_least=20))]),
        rule("rul_3", Effect(exclude=True), scope=Scope(segments=["vip"])),
    ]
    book = World(source(rules=rules)).market.rules
    situations = {
        book.ask({"device": f"d{number}", "store": "s", "temperature_c": number}, frozenset({f"s{number}"}), NOW_MS)
        for number in range(20)
    }
    assert len(situations) == 1


def test_a_schedule_turns_at_its_ends() -> None:
    from auction.retailer_rule import Schedule

    begins, ends = (datetime.fromtimestamp(NOW_MS / 1000 + s, UTC) for s in (10, 20))
    book = World(
        source(rules=[rule("rul_1", Effect(exclude=True), schedule=Schedule(starts_at=begins, ends_at=ends))])
    ).market.rules

    def is_on(after_s: float) -> bool:
        situation = book.ask({}, frozenset(), int(NOW_MS + after_s * 1000))
        return book.plan_for("home", "top", None, situation).rule_rows == (0,)

    assert [is_on(after_s) for after_s in (0, 9.999, 10, 19.999, 20)] == [False, False, True, True, False]
