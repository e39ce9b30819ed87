"""Sales beside what campaigns were charged, out of the tables: on both databases, for any dates, erasure heeded."""

import pytest

from ledger.attribution import MODELS, Shelf
from ledger.command import OrderLine, OrderRecord, RecordOrders, ReportedOrder
from ledger.errors import RequestRefused
from ledger.funding import to_moment
from ledger.sales import SalesFacts, SalesLine, report_sales
from ledger.settings import Settings
from ledger.store import erase_visitors
from tests.ledger.world import MINUTE_MS, NOON_MS, RETAILER, World

DAY_MS = 24 * 60 * MINUTE_MS
COOKIE, CUSTOMER, OTHER = b"c" * 16, b"k" * 16, b"o" * 16
SHELF = Shelf({"p1": {"adv-1"}, "p2": {"adv-1"}, "p3": {"adv-2"}}, {"p1": "Acme", "p2": "Acme", "p3": "Brio"})
FACTS = SalesFacts(SHELF, {COOKIE: CUSTOMER})


def sell(world: World, order_id: str, at_ms: int, *lines: tuple[str, int, int], **who: object) -> None:
    order = ReportedOrder(
        order_id=order_id,
        occurred_at=to_moment(at_ms),
        lines=[OrderLine(product_id=one, quantity=many, unit_price_micros=price) for one, many, price in lines],
        channel=who.pop("channel", "web"),  # type: ignore[arg-type]
        traffic_source=who.pop("traffic_source", None),  # type: ignore[arg-type]
    )
    record = OrderRecord(order, who.get("visitor"), who.get("customer"))  # type: ignore[arg-type]
    world.writer.command(RecordOrders([record]))


def sales(
    world: World, from_day: int = 0, to_day: int = 31, model: str = "default", whose: str | None = None
) -> dict[str, SalesLine]:
    from_ms, to_ms = NOON_MS + from_day * DAY_MS, NOON_MS + to_day * DAY_MS
    report = world.database.read(
        lambda c: report_sales(
            c, RETAILER, "EUR", from_ms, to_ms, MODELS[model], lambda _c, _p: FACTS, world.clock(), whose
        )
    )
    return {one.campaign_id: one for one in report.items}


def clicked(world: World, visitor: bytes = COOKIE, kind: str = "click", **terms: object) -> None:
    token = world.fill(250_001, visitor=visitor, **terms)
    world.record(world.event(token, "impression"), world.event(token, kind))


@pytest.fixture
def shop(world: World) -> World:
    world.fund("adv-1", 10**9)
    world.fund("adv-2", 10**9)
    return world


def test_a_click_on_the_phone_and_the_purchase_in_the_store_come_together(shop: World) -> None:
    clicked(shop)
    clicked(shop, OTHER, advertiser_id="adv-2", campaign_id="cmp-2", product_id="p3")
    shop.clock.pass_ms(2 * DAY_MS)
    sell(shop, "o1", shop.clock(), ("p1", 2, 40_000_003), ("p2", 1, 9_999_999), ("p3", 1, 5), customer=CUSTOMER,
         channel="store", traffic_source="newsletter")  # fmt: skip
    found = sales(shop)
    one = found["cmp-1"]
    assert (one.charged_micros, one.orders, one.units) == (250_001, 1, 3)
    assert (one.same_sku_sales_micros, one.halo_sales_micros) == (80_000_006, 9_999_999)
    assert one.sales_micros == one.new_to_brand_sales_micros == one.provisional_sales_micros == 90_000_005
    assert (one.sales_by_channel, one.sales_by_source) == ({"store": 90_000_005}, {"newsletter": 90_000_005})
    assert (one.roas, one.acos) == (359.9986, 0.0028)
    two = found["cmp-2"]
    assert (two.charged_micros, two.sales_micros, two.roas, two.acos) == (250_001, 0, 0.0, None)
    assert set(sales(shop, whose="adv-2")) == {"cmp-2"}


def test_a_return_counts_in_the_days_it_came_back(shop: World) -> None:
    clicked(shop)
    sell(shop, "o1", NOON_MS + DAY_MS, ("p1", 2, 40_000_003), visitor=COOKIE)
    sell(shop, "o1", NOON_MS + 20 * DAY_MS, ("p1", -1, 40_000_003), visitor=COOKIE)
    shop.clock.pass_ms(40 * DAY_MS)
    assert sales(shop)["cmp-1"].sales_micros == 40_000_003
    assert sales(shop, 0, 10)["cmp-1"].sales_micros == 80_000_006
    back = sales(shop, 10, 31)["cmp-1"]
    assert (back.sales_micros, back.orders, back.units, back.charged_micros) == (-40_000_003, 0, -1, 0)


def test_another_model_reads_the_same_rows_otherwise_and_the_books_stay(shop: World) -> None:
    clicked(shop)
    sell(shop, "o1", NOON_MS + 20 * DAY_MS, ("p1", 1, 7_000_001), visitor=COOKIE)
    before = shop.rows("SELECT * FROM chain_heads")
    assert sales(shop)["cmp-1"].sales_micros == 0
    assert sales(shop, model="iab-europe-30d")["cmp-1"].sales_micros == 7_000_001
    assert shop.rows("SELECT * FROM chain_heads") == before


def test_a_purchase_of_the_year_before_makes_nobody_new(shop: World) -> None:
    sell(shop, "o0", NOON_MS - 200 * DAY_MS, ("p2", 1, 1), customer=CUSTOMER)
    clicked(shop)
    sell(shop, "o1", NOON_MS + DAY_MS, ("p1", 1, 7_000_001), visitor=COOKIE)
    one = sales(shop)["cmp-1"]
    assert (one.sales_micros, one.new_to_brand_sales_micros, one.orders) == (7_000_001, 0, 1)


@pytest.mark.parametrize("keeps_views", [False, True])
def test_views_are_credited_where_they_are_kept(sqlite_world: World, keeps_views: bool) -> None:
    world = World(sqlite_world.database, Settings(keeps_views=keeps_views))
    world.fund("adv-1", 10**9)
    clicked(world, kind="view")
    sell(world, "o1", NOON_MS + 3600_000, ("p1", 1, 7_000_001), visitor=COOKIE)
    found = sales(world, model="criteo-like").get("cmp-1")
    assert (found is not None and found.sales_micros == 7_000_001) == keeps_views
    assert sales(world)["cmp-1"].sales_micros == 0 if keeps_views else True


def test_an_erased_visitor_brings_no_sales(shop: World) -> None:
    clicked(shop)
    sell(shop, "o1", NOON_MS + DAY_MS, ("p1", 1, 7_000_001), visitor=COOKIE)
    shop.database.transact(lambda connection: erase_visitors(connection, RETAILER, [COOKIE], shop.clock(), DAY_MS))
    assert sales(shop)["cmp-1"].sales_micros == 0


@pytest.mark.parametrize(("from_day", "to_day"), [(1, 1), (2, 1), (0, 93)])
def test_a_range_is_at_most_a_quarter_and_not_empty(sqlite_world: World, from_day: int, to_day: int) -> None:
    with pytest.raises(RequestRefused) as refused:
        sales(sqlite_world, from_day, to_day)
    assert refused.value.code == "range_invalid"
