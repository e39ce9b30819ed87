"""Reports: figures one can add up by hand, gross valid plus invalid, money equal to the books', on both databases."""

import random

import pytest

from ledger.attribution import MODELS
from ledger.errors import NotFound, RequestRefused
from ledger.performance import PerformanceLine, report_performance
from ledger.settings import Settings
from ledger.terms import ChargeOn
from tests.ledger.test_sales import COOKIE, CUSTOMER, DAY_MS, FACTS, sell
from tests.ledger.world import NOON_MS, RETAILER, World

HOUR_MS = 3_600_000


def lines(
    world: World, report: str = "campaigns", by: str = "total", whose: str | None = None, days: int = 31
) -> list[PerformanceLine]:
    found = world.database.read(
        lambda c: report_performance(
            c, RETAILER, report, "EUR", "Europe/Paris", NOON_MS - DAY_MS, NOON_MS + days * DAY_MS, by,
            MODELS["default"], lambda _c, _p: FACTS, world.clock(), whose,
        )
    )  # fmt: skip
    return list(found.items)


@pytest.fixture
def shop(world: World) -> World:
    world.fund("adv-1", 10**9)
    world.fund("adv-2", 10**9)
    return world


def test_a_campaigns_figures_are_those_one_counts_by_hand(shop: World) -> None:
    shop.limit("cmp-1", "adv-1", 500_000, None)
    for number in range(4):
        token = shop.fill(200_001, visitor=COOKIE)
        shop.record(shop.event(token, "impression"))
        if number < 2:
            shop.record(shop.event(token, "view"))
        if number < 3:
            shop.click(token)
    robot = shop.fill(200_001)
    agent = "Googlebot/2.1"
    shop.record(shop.event(robot, "impression", user_agent=agent), shop.event(robot, "click", user_agent=agent))
    shop.click(shop.fill(200_001))  # nothing is left
    shop.clock.pass_ms(DAY_MS)
    sell(shop, "o1", shop.clock(), ("p1", 2, 1_000_003), customer=CUSTOMER)
    (one,) = lines(shop)
    assert (one.gross_impressions, one.invalid_impressions, one.impressions, one.views) == (5, 1, 4, 2)
    assert (one.gross_clicks, one.invalid_clicks, one.clicks) == (5, 1, 4)
    assert (one.charged_micros, one.free_events, one.given_back_micros) == (500_000, 1, 3 * 200_001 + 200_001 - 500_000)
    assert (one.ctr, one.viewability, one.cpc_micros, one.cpm_micros) == (1.0, 0.5, 125_000, 125_000_000)
    assert (one.orders, one.units, one.sales_micros, one.roas, one.acos) == (1, 2, 2_000_006, 4.000012, 0.249999)
    assert one.charged_micros == int(str(shop.one("SELECT SUM(amount_micros) FROM audit_event")))


def test_days_are_the_retailers_and_hours_are_utc(shop: World) -> None:
    shop = World(shop.database, Settings(time_zone="Europe/Paris"), seed=7)
    shop.clock.at_ms = NOON_MS + 11 * HOUR_MS + 60_000  # 23:01 UTC is the next day in Paris
    shop.click(shop.fill(7_919, visitor=COOKIE))
    sell(shop, "o1", shop.clock(), ("p1", 1, 5), customer=CUSTOMER)
    assert [(one.time, one.clicks, one.orders) for one in lines(shop, by="hour")] == [("2026-11-24T23:00:00Z", 1, 1)]
    assert [(one.time, one.clicks, one.orders) for one in lines(shop, by="day")] == [("2026-11-25", 1, 1)]


@pytest.mark.parametrize(("report", "names"), [("campaigns", ["c1", "c2"]), ("products", ["p1", "p3"])])
def test_an_advertiser_is_told_of_its_own_only(shop: World, report: str, names: list[str]) -> None:
    shop.click(shop.fill(1_000, campaign_id="c1"))
    shop.click(shop.fill(2_000, advertiser_id="adv-2", campaign_id="c2", product_id="p3"))
    assert [one.name for one in lines(shop, report)] == names
    assert [one.name for one in lines(shop, report, whose="adv-2")] == names[1:]
    assert [one.name for one in lines(shop, "placements")] == ["category-top"]
    assert lines(shop, whose="adv-9") == []


def test_every_part_adds_up_to_the_whole(shop: World) -> None:
    chance = random.Random(3)
    for _ in range(60):
        shop.clock.pass_ms(chance.randrange(3 * HOUR_MS))
        basis = chance.choice([ChargeOn.CLICK, ChargeOn.IMPRESSION])
        token = shop.fill(chance.randint(1, 9_973), charge_on=basis, campaign_id=f"c{chance.randrange(3)}",
                          product_id=chance.choice(["p1", "p2"]))  # fmt: skip
        shop.record(shop.event(token, "impression"), *([shop.event(token)] if chance.random() < 0.4 else []))
    whole = int(str(shop.one("SELECT SUM(amount_micros) FROM audit_event")))
    count = int(str(shop.one("SELECT COUNT(*) FROM events")))
    for report in ("campaigns", "products", "placements"):
        for by in ("total", "day", "hour"):
            found = lines(shop, report, by)
            assert sum(one.charged_micros for one in found) == whole
            assert sum(one.gross_impressions + one.gross_clicks for one in found) == count
            assert len({(one.name, one.time) for one in found}) == len(found)


def test_what_is_no_report_is_refused(sqlite_world: World) -> None:
    with pytest.raises(NotFound):
        lines(sqlite_world, "weather")
    with pytest.raises(RequestRefused):
        lines(sqlite_world, days=92)
